package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"

	"wsdaemon.dev/ws-daemon/internal/jobs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	backup   jobs.Class = "backup"
	fill     jobs.Class = "initialize"
	long                = time.Hour
	someWork            = time.Minute
)

var errBroken = errors.New("disk is broken")

func key(uid, op string) jobs.Key { return jobs.Key{UID: uid, Op: op} }

// recorder is where a manager's notifications go.
type recorder struct {
	mu   sync.Mutex
	keys []jobs.Key
}

func (r *recorder) notify(k jobs.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = append(r.keys, k)
}

func (r *recorder) all() []jobs.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]jobs.Key{}, r.keys...)
}

// manage runs a test in a bubble with a clock of its own, and shuts the manager down at its end.
func manage(t *testing.T, limits map[jobs.Class]int, test func(g *WithT, m *jobs.Manager, r *recorder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		m := jobs.New(limits, nil, r.notify)
		g := NewWithT(t)
		defer func() { g.Expect(m.Shutdown(context.Background())).To(Succeed()) }()
		test(g, m, r)
	})
}

// work takes a minute, or less if its context ends.
func work(result any, err error) jobs.Func {
	return func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		select {
		case <-time.After(someWork):
			return result, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func active(m *jobs.Manager, uid string) jobs.Key {
	k, ok := m.Running(uid)
	if ok != (k != jobs.Key{}) {
		panic("a key of no job")
	}
	return k
}

func TestResultIsKeptUntilForgotten(t *testing.T) {
	manage(t, nil, func(g *WithT, m *jobs.Manager, r *recorder) {
		k := key("a", "backup")
		start := time.Now()
		g.Expect(m.State(k)).To(Equal(jobs.State{}))
		g.Expect(m.Start(k, backup, long, work("7.2", nil))).To(BeTrue())
		g.Expect(m.State(k)).To(Equal(jobs.State{Phase: jobs.Running, Class: backup, Queued: start, Started: start}))
		g.Expect(active(m, "a")).To(Equal(k))
		m.Forget(k)
		g.Expect(m.State(k).Phase).To(Equal(jobs.Running), "only a job that is done can be forgotten")

		time.Sleep(someWork)
		synctest.Wait()
		done := jobs.State{
			Phase: jobs.Done, Class: backup, Queued: start, Started: start, Ended: start.Add(someWork), Result: "7.2",
		}
		g.Expect(m.State(k)).To(Equal(done))
		g.Expect(r.all()).To(Equal([]jobs.Key{k}))
		g.Expect(active(m, "a")).To(Equal(jobs.Key{}))
		g.Expect(m.Start(k, backup, long, work(nil, nil))).To(BeFalse(), "the result was not acknowledged")
		g.Expect(m.State(k)).To(Equal(done))

		m.Forget(k)
		m.Forget(k)
		g.Expect(m.State(k)).To(Equal(jobs.State{}))
		g.Expect(m.Start(k, backup, long, work(nil, nil))).To(BeTrue())
	})
}

func TestOneJobPerUID(t *testing.T) {
	manage(t, map[jobs.Class]int{backup: 2, fill: 2}, func(g *WithT, m *jobs.Manager, _ *recorder) {
		g.Expect(m.Start(key("a", "backup"), backup, long, work(1, nil))).To(BeTrue())
		g.Expect(m.Start(key("a", "remove"), fill, long, work(2, nil))).To(BeFalse())
		g.Expect(m.State(key("a", "remove"))).To(Equal(jobs.State{}))
		g.Expect(m.Start(key("b", "backup"), backup, long, work(3, nil))).To(BeTrue())
		time.Sleep(someWork)
		synctest.Wait()
		g.Expect(m.Start(key("a", "remove"), fill, long, work(2, nil))).To(BeTrue(), "beside a result that is kept")
		g.Expect(m.State(key("a", "backup")).Result).To(Equal(1))
	})
}

func TestQueueIsInOrderAndBounded(t *testing.T) {
	manage(t, map[jobs.Class]int{backup: 2}, func(g *WithT, m *jobs.Manager, r *recorder) {
		start := time.Now()
		keys := make([]jobs.Key, 0, 6)
		for i := range 6 {
			k := key(fmt.Sprint(i), "backup")
			keys = append(keys, k)
			g.Expect(m.Start(k, backup, 90*time.Second, work(i, nil))).To(BeTrue())
		}
		g.Expect(m.Start(key("other", "fill"), fill, long, work(nil, nil))).To(BeTrue())
		g.Expect(m.State(key("other", "fill")).Phase).To(Equal(jobs.Running), "classes do not wait for each other")
		g.Expect(phases(m, keys)).To(Equal([]jobs.Phase{
			jobs.Running, jobs.Running, jobs.Queued, jobs.Queued, jobs.Queued, jobs.Queued,
		}))
		g.Expect(active(m, "5")).To(Equal(keys[5]), "a queued job counts")
		m.Cancel(keys[3])
		synctest.Wait()
		g.Expect(m.State(keys[3])).To(Equal(jobs.State{
			Phase: jobs.Done, Class: backup, Queued: start, Ended: start, Err: jobs.ErrCancelled,
		}))
		g.Expect(r.all()).To(Equal(keys[3:4]))

		time.Sleep(someWork)
		synctest.Wait()
		g.Expect(phases(m, keys)).To(Equal([]jobs.Phase{
			jobs.Done, jobs.Done, jobs.Running, jobs.Done, jobs.Running, jobs.Queued,
		}))
		time.Sleep(2 * someWork)
		synctest.Wait()
		for _, i := range []int{0, 1, 2, 4, 5} {
			state := m.State(keys[i])
			g.Expect(state.Err).NotTo(HaveOccurred(), "waiting does not count for the timeout")
			g.Expect(state.Result).To(Equal(i))
		}
		g.Expect(m.State(keys[5]).Started).To(Equal(start.Add(2 * someWork)))
	})
}

func phases(m *jobs.Manager, keys []jobs.Key) []jobs.Phase {
	list := make([]jobs.Phase, 0, len(keys))
	for _, k := range keys {
		list = append(list, m.State(k).Phase)
	}
	return list
}

func TestEnds(t *testing.T) {
	exit := func(context.Context, func(jobs.Progress)) (any, error) { runtime.Goexit(); return "never", nil }
	own := func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		<-ctx.Done()
		return "half", fmt.Errorf("upload: %w", errBroken)
	}
	ignore := func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		<-ctx.Done()
		return "whole", nil
	}
	for name, test := range map[string]struct {
		timeout time.Duration
		cancel  bool
		fn      jobs.Func
		result  any
		errs    []error
		message string
	}{
		"success":              {timeout: long, fn: work("whole", nil), result: "whole"},
		"failure":              {timeout: long, fn: work(nil, errBroken), errs: []error{errBroken}, message: "disk is broken"},
		"timeout":              {timeout: time.Second, fn: work("", nil), errs: []error{jobs.ErrTimeout, context.DeadlineExceeded}, message: "job timed out: context deadline exceeded"},
		"timeout, own error":   {timeout: time.Second, fn: own, result: "half", errs: []error{jobs.ErrTimeout, errBroken}, message: "job timed out: upload: disk is broken"},
		"no time at all":       {fn: work("", nil), errs: []error{jobs.ErrTimeout}, message: "job timed out: context deadline exceeded"},
		"cancelled":            {timeout: long, cancel: true, fn: work("", nil), errs: []error{jobs.ErrCancelled, context.Canceled}, message: "job cancelled: context canceled"},
		"cancelled, own error": {timeout: long, cancel: true, fn: own, result: "half", errs: []error{jobs.ErrCancelled, errBroken}, message: "job cancelled: upload: disk is broken"},
		"cancelled after all":  {timeout: long, cancel: true, fn: ignore, result: "whole"},
		"ended its goroutine":  {timeout: long, fn: exit, message: "job ended its goroutine without returning"},
		"panic":                {timeout: long, fn: func(context.Context, func(jobs.Progress)) (any, error) { panic("oops") }, message: "job panicked: oops"},
		"panic with an error":  {timeout: long, fn: func(context.Context, func(jobs.Progress)) (any, error) { panic(errBroken) }, errs: []error{errBroken}, message: "job panicked: disk is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			manage(t, nil, func(g *WithT, m *jobs.Manager, r *recorder) {
				k := key("a", "backup")
				g.Expect(m.Start(k, backup, test.timeout, test.fn)).To(BeTrue())
				synctest.Wait()
				if test.cancel {
					m.Cancel(k)
					m.Cancel(key("a", "unknown"))
				}
				time.Sleep(2 * someWork)
				synctest.Wait()
				state := m.State(k)
				g.Expect(state.Phase).To(Equal(jobs.Done))
				g.Expect(r.all()).To(Equal([]jobs.Key{k}))
				expect(g, state, test.result, test.errs, test.message)
				m.Cancel(k)
				g.Expect(m.State(k)).To(Equal(state), "it is over")
				g.Expect(m.Start(key("b", "backup"), backup, long, work(nil, nil))).To(BeTrue())
				g.Expect(m.State(key("b", "backup")).Phase).To(Equal(jobs.Running), "the place is free again")
			})
		})
	}
}

func expect(g *WithT, state jobs.State, result any, errs []error, message string) {
	if result == nil {
		g.Expect(state.Result).To(BeNil())
	} else {
		g.Expect(state.Result).To(Equal(result))
	}
	if message == "" {
		g.Expect(state.Err).NotTo(HaveOccurred())
		return
	}
	g.Expect(state.Err).To(MatchError(message))
	for _, err := range errs {
		g.Expect(state.Err).To(MatchError(err))
	}
}

// A job that cannot be ended, since its disk hangs, keeps no place from the others; when it returns, it is one that timed out.
func TestS7_JobThatDoesNotReturn(t *testing.T) {
	manage(t, map[jobs.Class]int{backup: 1}, func(g *WithT, m *jobs.Manager, r *recorder) {
		answers := make(chan struct{})
		blocked := func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
			<-answers
			return nil, ctx.Err()
		}
		quick := func(context.Context, func(jobs.Progress)) (any, error) { return nil, nil }
		g.Expect(m.Start(key("a", "backup"), backup, someWork, blocked)).To(BeTrue())
		g.Expect(m.Start(key("b", "backup"), backup, someWork, quick)).To(BeTrue())
		time.Sleep(someWork + jobs.Grace - 1)
		synctest.Wait()
		g.Expect([]any{m.State(key("a", "backup")).Overdue, m.State(key("b", "backup")).Phase}).To(Equal([]any{false, jobs.Queued}))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		g.Expect([]any{m.State(key("a", "backup")).Overdue, m.State(key("b", "backup")).Phase}).To(Equal([]any{true, jobs.Done}))
		g.Expect(r.all()).To(ConsistOf(key("a", "backup"), key("b", "backup")))
		g.Expect(m.Start(key("a", "restore"), backup, someWork, quick)).To(BeFalse(), "it is still at work on that workspace")

		close(answers)
		synctest.Wait()
		late := m.State(key("a", "backup"))
		g.Expect([]any{late.Phase, late.Overdue}).To(Equal([]any{jobs.Done, false}))
		g.Expect(late.Err).To(MatchError(jobs.ErrTimeout))
		waits := make(chan struct{})
		wait := func(context.Context, func(jobs.Progress)) (any, error) { <-waits; return nil, nil }
		for _, uid := range []string{"c", "d"} {
			g.Expect(m.Start(key(uid, "backup"), backup, someWork, wait)).To(BeTrue())
		}
		synctest.Wait()
		g.Expect([]any{m.State(key("c", "backup")).Phase, m.State(key("d", "backup")).Phase}).To(Equal([]any{jobs.Running, jobs.Queued}))
		close(waits)
	})
}

func TestPanicKeepsItsStack(t *testing.T) {
	manage(t, nil, func(g *WithT, m *jobs.Manager, _ *recorder) {
		k := key("a", "backup")
		m.Start(k, backup, long, func(context.Context, func(jobs.Progress)) (any, error) { panic("oops") })
		synctest.Wait()
		var panicked *jobs.PanicError
		g.Expect(errors.As(m.State(k).Err, &panicked)).To(BeTrue())
		g.Expect(string(panicked.Stack)).To(ContainSubstring("TestPanicKeepsItsStack"))
		g.Expect(panicked.Error()).NotTo(ContainSubstring("goroutine"))
	})
}

func TestProgressIsNotifiedNowAndThen(t *testing.T) {
	manage(t, nil, func(g *WithT, m *jobs.Manager, r *recorder) {
		k := key("a", "backup")
		var late func(jobs.Progress)
		m.Start(k, backup, long, func(_ context.Context, report func(jobs.Progress)) (any, error) {
			late = report
			for i := range 100 {
				report(jobs.Progress{FilesDone: int64(i), FilesTotal: 100})
				time.Sleep(jobs.ProgressInterval / 10)
			}
			return "whole", nil
		})
		time.Sleep(jobs.ProgressInterval*5 + 1)
		synctest.Wait()
		g.Expect(r.all()).To(HaveLen(6))
		g.Expect(m.State(k).Progress).To(Equal(jobs.Progress{FilesDone: 50, FilesTotal: 100}))
		time.Sleep(long)
		synctest.Wait()
		g.Expect(r.all()).To(HaveLen(11), "ten of progress, one of the end")
		late(jobs.Progress{})
		g.Expect(m.State(k).Progress).To(Equal(jobs.Progress{FilesDone: 99, FilesTotal: 100}))
		g.Expect(r.all()).To(HaveLen(11))
	})
}

func TestNotifyMayUseTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		var m *jobs.Manager
		m = jobs.New(nil, nil, func(k jobs.Key) {
			if m.State(k).Phase == jobs.Done {
				m.Forget(k)
				m.Start(key(k.UID+"+", k.Op), backup, long, work(nil, nil))
			}
		})
		m.Start(key("a", "x"), backup, long, work(nil, nil))
		time.Sleep(someWork)
		synctest.Wait()
		g.Expect(m.State(key("a+", "x")).Phase).To(Equal(jobs.Running))
		g.Expect(m.Shutdown(t.Context())).To(Succeed())
	})
}

func TestS5_ShutdownLeavesNoFailures(t *testing.T) {
	manage(t, nil, func(g *WithT, m *jobs.Manager, r *recorder) {
		var cause error
		g.Expect(m.Start(key("done", "x"), backup, long, work("kept", nil))).To(BeTrue())
		time.Sleep(someWork)
		synctest.Wait()
		g.Expect(m.Start(key("running", "x"), backup, long, func(ctx context.Context, report func(jobs.Progress)) (any, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			report(jobs.Progress{FilesDone: 1})
			return nil, ctx.Err()
		})).To(BeTrue())
		g.Expect(m.Start(key("queued", "x"), backup, long, work(nil, nil))).To(BeTrue())
		g.Expect(m.Start(key("finishing", "x"), fill, long, func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
			<-ctx.Done()
			return "committed", nil
		})).To(BeTrue())
		synctest.Wait()

		g.Expect(m.Shutdown(context.Background())).To(Succeed())
		g.Expect(cause).To(MatchError(jobs.ErrShuttingDown))
		g.Expect(r.all()).To(Equal([]jobs.Key{key("done", "x")}), "as before")
		g.Expect(m.State(key("running", "x"))).To(Equal(jobs.State{}))
		g.Expect(m.State(key("queued", "x"))).To(Equal(jobs.State{}))
		g.Expect(m.State(key("done", "x")).Result).To(Equal("kept"))
		g.Expect(m.State(key("finishing", "x")).Result).To(Equal("committed"))
		g.Expect(m.Start(key("new", "x"), backup, long, work(nil, nil))).To(BeFalse())
	})
}

func TestShutdownNamesWhatDoesNotEnd(t *testing.T) {
	manage(t, nil, func(g *WithT, m *jobs.Manager, _ *recorder) {
		release := make(chan struct{})
		stuck := func(context.Context, func(jobs.Progress)) (any, error) { <-release; return "late", nil }
		m.Start(key("a", "backup"), backup, long, stuck)
		m.Start(key("b", "initialize"), fill, long, stuck)
		synctest.Wait()

		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- m.Runnable(someWork)(ctx) }()
		synctest.Wait()
		start := time.Now()
		stop()
		err := <-ended
		g.Expect(time.Since(start)).To(Equal(someWork))
		g.Expect(err).To(MatchError("wait for jobs (backup a, initialize b): context deadline exceeded"))
		close(release)
	})
}

type fixedClock time.Time

func (c fixedClock) Now() time.Time { return time.Time(c) }

func TestClockIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		now := time.Unix(1700000000, 0)
		m := jobs.New(nil, fixedClock(now), nil)
		m.Start(key("a", "x"), backup, long, work(nil, nil))
		time.Sleep(someWork)
		synctest.Wait()
		g.Expect(m.State(key("a", "x"))).To(Equal(jobs.State{Phase: jobs.Done, Class: backup, Queued: now, Started: now, Ended: now}))
		g.Expect(m.Shutdown(t.Context())).To(Succeed())
	})
}

func TestManyAtOnce(t *testing.T) {
	g := NewWithT(t)
	var running, most, calls int
	var mu sync.Mutex
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		running += n
		most = max(most, running)
		calls += max(n, 0)
	}
	m := jobs.New(map[jobs.Class]int{backup: 3}, nil, nil)
	var starters sync.WaitGroup
	for i := range 200 {
		starters.Go(func() {
			k := key(fmt.Sprint(i), "backup")
			m.Start(k, backup, long, func(context.Context, func(jobs.Progress)) (any, error) {
				count(1)
				runtime.Gosched()
				count(-1)
				return "whole", nil
			})
			m.State(k)
			m.Running(k.UID)
			m.Forget(k)
		})
	}
	starters.Wait()
	g.Eventually(func() int { mu.Lock(); defer mu.Unlock(); return calls }).Should(Equal(200))
	g.Expect(m.Shutdown(t.Context())).To(Succeed())
	g.Expect(most).To(BeNumerically("<=", 3))
}

func TestLimitsMayChange(t *testing.T) {
	manage(t, map[jobs.Class]int{backup: 1, fill: 1}, func(g *WithT, m *jobs.Manager, _ *recorder) {
		start := time.Now()
		for _, uid := range []string{"a", "b", "c", "d"} {
			g.Expect(m.Start(key(uid, "backup"), backup, long, work(nil, nil))).To(BeTrue())
		}
		g.Expect(m.Loads()).To(Equal(map[jobs.Class]jobs.Load{
			backup: {Limit: 1, Running: 1, Queued: 3, Oldest: start}, fill: {Limit: 1},
		}))
		m.SetLimits(map[jobs.Class]int{backup: 3})
		g.Expect(m.Loads()[backup]).To(Equal(jobs.Load{Limit: 3, Running: 3, Queued: 1, Oldest: start}), "there is room at once")
		m.SetLimits(map[jobs.Class]int{backup: 1})
		g.Expect(m.Loads()[backup].Running).To(Equal(3), "those that run go on")
		time.Sleep(someWork)
		synctest.Wait()
		g.Expect(m.Loads()[backup]).To(Equal(jobs.Load{Limit: 1, Running: 1}))
		time.Sleep(someWork)
		synctest.Wait()
		g.Expect(m.Loads()[backup]).To(Equal(jobs.Load{Limit: 1}))
	})
}

func TestEveryEndIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		m := jobs.New(map[jobs.Class]int{backup: 1}, nil, nil)
		ends := make(chan string, 10)
		m.OnEnd(func(k jobs.Key, s jobs.State) {
			ends <- fmt.Sprintf("%s %s %v %s", k, s.Phase, s.Err, s.Ended.Sub(s.Queued))
		})
		m.Start(key("a", "backup"), backup, long, work(nil, nil))
		m.Start(key("b", "backup"), backup, long, work(nil, errBroken))
		m.Start(key("c", "backup"), backup, long, work(nil, nil))
		m.Cancel(key("c", "backup"))
		time.Sleep(2 * someWork)
		synctest.Wait()
		m.Start(key("d", "backup"), backup, long, work(nil, nil))
		g.Expect(m.Shutdown(t.Context())).To(Succeed())
		close(ends)
		var all []string
		for end := range ends {
			all = append(all, end)
		}
		g.Expect(all).To(Equal([]string{
			"backup c Done job cancelled 0s", "backup a Done <nil> 1m0s", "backup b Done disk is broken 2m0s",
		}), "a shutdown is no end of a job")
	})
}

// What takes very long keeps others waiting for a while only, and not too many run then.
func TestSomeRunBesideThoseThatTakeTooLong(t *testing.T) {
	forever := func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	manage(t, map[jobs.Class]int{fill: 2, backup: 2}, func(g *WithT, m *jobs.Manager, _ *recorder) {
		m.BePatient(fill, someWork)
		load := func(class jobs.Class) []int {
			l := m.Loads()[class]
			return []int{l.Running, l.Queued}
		}
		for i := range 8 {
			g.Expect(m.Start(key(fmt.Sprint(i), "initialize"), fill, long, forever)).To(BeTrue())
			g.Expect(m.Start(key(fmt.Sprint("b", i), "backup"), backup, long, forever)).To(BeTrue())
		}
		time.Sleep(someWork - time.Second)
		synctest.Wait()
		g.Expect(load(fill)).To(Equal([]int{2, 6}))
		g.Expect(m.Start(key("late", "initialize"), fill, long, forever)).To(BeTrue())
		time.Sleep(time.Second)
		synctest.Wait()
		g.Expect(load(fill)).To(Equal([]int{6, 3}))
		g.Expect(load(backup)).To(Equal([]int{2, 6}), "nobody waits for those")
		m.Cancel(key("0", "initialize"))
		synctest.Wait()
		g.Expect(load(fill)).To(Equal([]int{6, 2}), "the next one that is overdue")
		for i := range 6 {
			m.Cancel(key(fmt.Sprint(i+1), "initialize"))
		}
		synctest.Wait()
		g.Expect(load(fill)).To(Equal([]int{2, 0}), "the last of eight, and the late one in his place")
	})
}
