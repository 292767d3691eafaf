package fair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
)

// line is a queue with people in front of it, who get in one after the other.
type line struct {
	Gomega
	t     *testing.T
	queue *Queue

	mu       sync.Mutex
	served   []string
	releases map[string]func()
}

func newLine(t *testing.T, size int64) *line {
	t.Helper()
	return &line{Gomega: NewWithT(t), t: t, queue: NewQueue("things", size), releases: map[string]func(){}}
}

func (l *line) waiting() int {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	return len(l.queue.waiting)
}

// take takes what is free.
func (l *line) take(workspace string, p Priority, n int64) (release func()) {
	l.t.Helper()
	release, err := l.queue.Acquire(With(l.t.Context(), workspace, p), n)
	l.Expect(err).NotTo(HaveOccurred())
	return release
}

// come has somebody come who has to wait.
func (l *line) come(name, workspace string, p Priority, n int64) {
	l.t.Helper()
	before := l.waiting()
	go func() {
		release, err := l.queue.Acquire(With(l.t.Context(), workspace, p), n)
		if err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.served = append(l.served, name)
		l.releases[name] = release
	}()
	l.Eventually(l.waiting).Should(Equal(before + 1))
}

// order releases what is held, one after the other as it was served, and returns who was served.
func (l *line) order(release func()) []string {
	for i := 0; l.waiting() > 0; i++ {
		release()
		l.Eventually(l.count).Should(BeNumerically(">", i))
		l.mu.Lock()
		release = l.releases[l.served[i]]
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.served
}

func (l *line) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.served)
}

func TestQueueServesWorkspacesInTurn(t *testing.T) {
	l := newLine(t, 1)
	release := l.take("a", Background, 1)
	for i := range 3 {
		l.come(fmt.Sprintf("a%d", i), "a", Background, 1)
	}
	l.come("b0", "b", Background, 1)
	l.come("b1", "b", Background, 1)
	l.come("c0", "c", Background, 1)
	l.Expect(l.order(release)).To(Equal([]string{"b0", "c0", "a0", "b1", "a1", "a2"}))
}

func TestQueueServesWhoHasLeast(t *testing.T) {
	l := newLine(t, 8)
	l.take("a", Urgent, 4)
	l.take("b", Urgent, 2)
	release := l.take("c", Urgent, 2)
	l.come("a", "a", Urgent, 1)
	l.come("b", "b", Urgent, 1)
	release()
	l.Eventually(l.count).Should(Equal(2))
	l.Expect(l.served).To(ConsistOf("a", "b"))
	l.come("a+", "a", Urgent, 1)
	l.come("b+", "b", Urgent, 1)
	l.releases["a"]()
	l.Eventually(l.count).Should(Equal(3))
	l.Expect(l.served[2]).To(Equal("b+"))
}

func TestQueueServesUrgentJobsFirstAndOthersToo(t *testing.T) {
	l := newLine(t, 1)
	release := l.take("x", Background, 1)
	l.come("late1", "p", Background, 1)
	l.come("late2", "q", Background, 1)
	for i := range 7 {
		l.come(fmt.Sprintf("urgent%d", i), fmt.Sprintf("w%d", i), Urgent, 1)
	}
	l.Expect(l.order(release)).To(Equal([]string{
		"urgent0", "urgent1", "urgent2", "late1", "urgent3", "urgent4", "urgent5", "late2", "urgent6",
	}))
}

func TestQueueKeepsAPartForUrgentJobs(t *testing.T) {
	l := newLine(t, 8)
	for i := range 6 {
		l.take(fmt.Sprint(i), Background, 1) // and never give it back: their store crawls
	}
	l.come("another", "x", Background, 1)
	for i := range 10 { // one after the other: nobody waits
		release := l.take(fmt.Sprintf("fill%d", i), Urgent, 2)
		release()
	}
	l.Expect(l.count()).To(BeZero())
}

func TestQueueLetsNobodyOvertakeALargeWish(t *testing.T) {
	l := newLine(t, 8)
	release := l.take("a", Urgent, 6)
	l.come("large", "b", Urgent, 7)
	l.come("small", "c", Urgent, 2)
	l.Expect(l.count()).To(BeZero()) // small would fit
	l.Expect(l.order(release)).To(Equal([]string{"large", "small"}))
}

func TestQueueLetsOneBackgroundJobHaveMoreThanItsPart(t *testing.T) {
	l := newLine(t, 8)
	l.take("a", Background, 8)
	_, ok := l.queue.TryAcquire(t.Context(), 1)
	l.Expect(ok).To(BeFalse())
}

func TestQueueGivesMoreOnlyWhileNobodyNeedsIt(t *testing.T) {
	l := newLine(t, 16) // 12 for background jobs, of which 3 stay free
	ctx := With(t.Context(), "a", Urgent)
	first, ok := l.queue.TryAcquire(ctx, 9)
	l.Expect(ok).To(BeTrue())
	_, ok = l.queue.TryAcquire(ctx, 1)
	l.Expect(ok).To(BeFalse())
	release := l.take("b", Background, 3)
	l.come("c", "c", Background, 1)
	l.Expect(l.queue.Crowded()).To(BeTrue())
	release()
	l.Eventually(l.count).Should(Equal(1))
	l.Expect(l.queue.Crowded()).To(BeFalse())
	first()
	l.take("d", Urgent, 12)
	_, ok = l.queue.TryAcquire(ctx, 1)
	l.Expect(ok).To(BeFalse(), "what is kept for urgent jobs stays free")
}

func TestQueueRefusesWhatCanNeverBe(t *testing.T) {
	l := newLine(t, 4)
	_, err := l.queue.Acquire(t.Context(), 5)
	l.Expect(err).To(MatchError("5 things are needed at once, and there are 4: raise the limit"))
}

func TestQueueForgetsWhoGaveUp(t *testing.T) {
	l := newLine(t, 4)
	release := l.take("a", Urgent, 4)
	ctx, cancel := context.WithCancelCause(With(t.Context(), "b", Urgent))
	ended := make(chan error, 1)
	go func() {
		_, err := l.queue.Acquire(ctx, 3)
		ended <- err
	}()
	l.Eventually(l.waiting).Should(Equal(1))
	l.come("c", "c", Urgent, 1)
	why := errors.New("no more")
	cancel(why)
	l.Eventually(ended).Should(Receive(MatchError(why)))
	release()
	l.Eventually(l.count).Should(Equal(1))
	l.releases["c"]()
	l.take("d", Urgent, 4)() // all of it is there again
	l.Expect(l.queue.tenants).To(BeEmpty())
	l.Expect(l.queue.usedBy).To(Equal([2]int64{}))
}

// TestQueueNeverHasTooMuchOut has many come and go, and some give up at any moment.
func TestQueueNeverHasTooMuchOut(t *testing.T) {
	l := newLine(t, 10)
	var out, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			for j := range 200 {
				n := int64(1 + (i+j)%5)
				ctx, cancel := context.WithCancel(With(t.Context(), fmt.Sprint(i%7), Priority(i%2)))
				if j%9 == 0 {
					go cancel()
				}
				release, err := l.queue.Acquire(ctx, n)
				if err == nil {
					now := out.Add(n)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					out.Add(-n)
					release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	l.Expect(most.Load()).To(BeNumerically("<=", 10))
	l.Expect(l.queue.tenants).To(BeEmpty())
	l.take("all", Urgent, 10)()
}
