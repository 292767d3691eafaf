package controllers

import (
	"context"
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
)

var errBoom = errors.New("boom")

const longest = 5 * time.Minute

// worker is a reconciler that has only jobs.
func worker(t *testing.T) *WorkspaceReconciler {
	t.Helper()
	r := &WorkspaceReconciler{Jobs: jobs.New(nil, nil, nil), Settings: Settings{RetryMax: longest}}
	t.Cleanup(func() { NewWithT(t).Expect(r.Jobs.Shutdown(context.Background())).To(Succeed()) })
	return r
}

func provision(run jobs.Func) task {
	return task{v1.OperationProvision, ClassMaintain, time.Minute, run}
}

func returning(result any, err error) jobs.Func {
	return func(context.Context, func(jobs.Progress)) (any, error) { return result, err }
}

// ended waits for the end of a job and looks at it in a new pass.
func ended(g *WithT, r *WorkspaceReconciler, s *scope, t task) outcome {
	g.Eventually(func() jobs.Phase { return r.Jobs.State(s.key(t.op)).Phase }).Should(Equal(jobs.Done))
	return r.work(s, t)
}

func TestWorkReturnsTheResultUntilItIsForgotten(t *testing.T) {
	g := NewWithT(t)
	r := worker(t)
	do := provision(returning("result", nil))
	g.Expect(r.work(running(), do)).To(Equal(outcome{}))
	s := running(func(s *scope) { s.status.Operation = &v1.OperationStatus{Type: v1.OperationProvision, Attempts: 2} })
	g.Expect(ended(g, r, s, do)).To(Equal(outcome{done: true, result: "result"}))
	g.Expect(s.status.Operation).To(BeNil())
	g.Expect(s.finished).To(Equal([]jobs.Key{{UID: uid, Op: "Provision/3"}}))
	g.Expect(r.work(running(), do)).To(Equal(outcome{done: true, result: "result"}), "a pass whose write failed finds it again")
}

func TestWorkKeepsTheResultsOfClaimsApart(t *testing.T) {
	g := NewWithT(t)
	r := worker(t)
	ended(g, r, func() *scope { s := running(); r.work(s, provision(returning("old", nil))); return s }(), provision(nil))
	s := running(func(s *scope) { s.status.Claim = 4 })
	do := provision(returning("new", nil))
	g.Expect(r.work(s, do)).To(Equal(outcome{}))
	g.Expect(ended(g, r, s, do)).To(Equal(outcome{done: true, result: "new"}))
}

func TestWorkWaitsForAnotherJobOfTheWorkspace(t *testing.T) {
	g := NewWithT(t)
	r := worker(t)
	block := make(chan struct{})
	defer close(block)
	r.Jobs.Start(jobs.Key{UID: uid, Op: "Backup/3"}, ClassBackup, time.Minute, func(context.Context, func(jobs.Progress)) (any, error) {
		<-block
		return nil, nil
	})
	s := running()
	g.Expect(r.work(s, provision(returning(nil, nil)))).To(Equal(outcome{}))
	g.Expect(s.requeue).To(Equal(time.Second))
	g.Expect(r.Jobs.State(s.key(v1.OperationProvision)).Phase).To(Equal(jobs.None))
}

func TestFailuresAreCountedAndPause(t *testing.T) {
	g := NewWithT(t)
	r := worker(t)
	do := provision(returning(nil, errBoom))
	s := running(func(s *scope) {
		s.status.Operation = &v1.OperationStatus{Type: v1.OperationProvision, StartedAt: timeOf(noon), Attempts: 2}
	})
	r.work(s, do)
	g.Expect(ended(g, r, s, do)).To(Equal(outcome{failed: true, err: errBoom}))
	pause := content.Backoff(3, longest, uid)
	g.Expect(s.status.Operation).To(Equal(&v1.OperationStatus{
		Type: v1.OperationProvision, StartedAt: timeOf(noon), Attempts: 3, LastFailure: "boom", NextAttempt: notBefore(noon.Add(pause)),
	}))
	g.Expect(s.requeue).To(Equal(pause))
	r.Jobs.Forget(s.key(v1.OperationProvision))

	later := running(func(l *scope) { l.status.Operation = s.status.Operation; l.now = noon })
	g.Expect(r.work(later, do)).To(Equal(outcome{}))
	g.Expect(r.Jobs.State(s.key(v1.OperationProvision)).Phase).To(Equal(jobs.None), "nothing starts during the pause")
}

func TestFailureOfAnOlderSpecIsNone(t *testing.T) {
	g := NewWithT(t)
	r := worker(t)
	s := running()
	do := provision(returning(nil, &specError{v1.ReasonNoBackup, "permanent"}))
	r.work(s, do)
	g.Eventually(func() jobs.Phase { return r.Jobs.State(s.key(do.op)).Phase }).Should(Equal(jobs.Done))
	s.ws.Generation++ // mended while the job ran; the status says so already
	s.ws.Status.ObservedGeneration = s.ws.Generation
	mended := provision(returning("fine", nil))
	g.Expect(r.work(s, mended)).To(Equal(outcome{}))
	g.Expect(s.status.Operation).To(BeNil())
	g.Expect(ended(g, r, s, mended)).To(Equal(outcome{done: true, result: "fine"}))
}

func TestPauseEndsByTimeOrByAChangedSpec(t *testing.T) {
	waiting := func(s *scope) {
		s.status.Operation = &v1.OperationStatus{Type: v1.OperationRestore, Attempts: 3, NextAttempt: timeOf(noon.Add(time.Minute))}
	}
	tests := map[string]struct {
		scope *scope
		op    v1.OperationType
		want  time.Duration
	}{
		"no failure":        {running(), v1.OperationRestore, 0},
		"too early":         {running(waiting), v1.OperationRestore, time.Minute},
		"another operation": {running(waiting), v1.OperationBackup, 0},
		"the spec changed":  {running(waiting, edited), v1.OperationRestore, 0},
		"time is over":      {running(waiting, func(s *scope) { s.now = noon.Add(2 * time.Minute) }), v1.OperationRestore, -time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(tt.scope.pause(tt.op)).To(Equal(tt.want))
		})
	}
}

func TestFailBacksOff(t *testing.T) {
	before := func(op v1.OperationType, attempts int32) func(*scope) {
		return func(s *scope) {
			s.status.Operation = &v1.OperationStatus{Type: op, Attempts: attempts, StartedAt: timeOf(noon.Add(-time.Hour)), BytesDone: 7, FilesDone: 1}
		}
	}
	began, now := timeOf(noon.Add(-time.Hour)), timeOf(noon)
	tests := map[string]struct {
		scope    *scope
		err      error
		attempts int32
		began    *metav1.Time
		pause    time.Duration
	}{
		"first":             {running(), errBoom, 1, now, content.Backoff(1, longest, uid)},
		"third":             {running(before(v1.OperationRestore, 2)), errBoom, 3, began, content.Backoff(3, longest, uid)},
		"many":              {running(before(v1.OperationRestore, 99)), errBoom, 100, began, content.Jitter(longest, uid)},
		"another operation": {running(before(v1.OperationProvision, 2)), errBoom, 1, now, content.Backoff(1, longest, uid)},
		"after an edit":     {running(before(v1.OperationRestore, 9), edited), errBoom, 1, began, content.Backoff(1, longest, uid)},
		"for a person":      {running(), &secretError{"boom"}, 1, now, content.Jitter(longest, uid)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			tt.scope.fail(v1.OperationRestore, tt.err, longest)
			g.Expect(tt.scope.status.Operation).To(Equal(&v1.OperationStatus{
				Type: v1.OperationRestore, Attempts: tt.attempts, StartedAt: tt.began, LastFailure: "boom", NextAttempt: notBefore(noon.Add(tt.pause)),
			}))
			g.Expect(tt.scope.requeue).To(Equal(tt.pause))
		})
	}
}

func TestProgressIsReportedRarely(t *testing.T) {
	state := func(ago time.Duration) jobs.State {
		return jobs.State{Phase: jobs.Running, Started: noon.Add(-ago), Progress: jobs.Progress{FilesDone: 1, FilesTotal: 2, BytesDone: 3, BytesTotal: 4}}
	}
	stopping := &v1.OperationStatus{Type: v1.OperationFinalBackup, StartedAt: timeOf(noon)}
	reported := &v1.OperationStatus{Type: v1.OperationBackup, StartedAt: timeOf(noon.Add(-10 * time.Second)), FilesDone: 1, FilesTotal: 2, BytesDone: 3, BytesTotal: 4}
	tests := map[string]struct {
		state   jobs.State
		before  *v1.OperationStatus
		want    *v1.OperationStatus
		requeue time.Duration
	}{
		"queued":          {jobs.State{Phase: jobs.Queued}, nil, nil, 0},
		"just begun":      {state(3 * time.Second), nil, nil, 7 * time.Second},
		"ten seconds":     {state(10 * time.Second), nil, reported, 10 * time.Second},
		"while stopping":  {state(time.Minute), stopping, stopping, 0},
		"another attempt": {state(10 * time.Second), &v1.OperationStatus{Type: v1.OperationBackup, StartedAt: reported.StartedAt, NextAttempt: timeOf(noon)}, reported, 10 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := running(func(s *scope) {
				s.status.Operation = tt.before
				if tt.before == stopping {
					s.ws.Spec.State = v1.StateStopped
				}
			})
			s.progress(v1.OperationBackup, tt.state)
			g.Expect(s.status.Operation).To(Equal(tt.want))
			g.Expect(s.requeue).To(Equal(tt.requeue))
		})
	}
}

func TestTheEarliestWishWins(t *testing.T) {
	g := NewWithT(t)
	s := running()
	s.after(time.Minute)
	s.at(noon.Add(10 * time.Second))
	s.after(time.Hour)
	g.Expect(s.requeue).To(Equal(10 * time.Second))
	s.at(noon.Add(-time.Hour))
	g.Expect(s.requeue).To(Equal(10*time.Millisecond), "at once, but not in a tight loop")
}

func object(version string) *v1.Workspace {
	return &v1.Workspace{ObjectMeta: metav1.ObjectMeta{UID: uid, ResourceVersion: version}}
}

func TestMemoryOfWrites(t *testing.T) {
	g := NewWithT(t)
	var m memory
	g.Expect(m.stale(object("7"))).To(BeFalse())
	m.wrote(object("7"), "8")
	g.Expect(m.stale(object("7"))).To(BeTrue())
	g.Expect(m.stale(object("8"))).To(BeFalse())
	g.Expect(m.stale(object("9"))).To(BeFalse(), "somebody else wrote, too")
	m.wrote(object("9"), "9")
	g.Expect(m.stale(object("9"))).To(BeFalse(), "a write that changed nothing wakes nobody")
	m.wrote(object("9"), "10")
	m.forget(uid)
	g.Expect(m.stale(object("9"))).To(BeFalse())
}

func TestMemoryOfUsage(t *testing.T) {
	g := NewWithT(t)
	var m memory
	g.Expect(m.usageDue(uid, noon)).To(BeTrue())
	m.usageTold(uid, noon)
	g.Expect(m.usageDue(uid, noon.Add(usageInterval-time.Second))).To(BeFalse())
	g.Expect(m.usageDue("other", noon)).To(BeTrue())
	g.Expect(m.usageDue(uid, noon.Add(usageInterval))).To(BeTrue())
}

func TestMemoryOfNames(t *testing.T) {
	g := NewWithT(t)
	var m memory
	_, ok := m.nameOf(uid)
	g.Expect(ok).To(BeFalse())
	m.name(uid, types.NamespacedName{Namespace: "team", Name: "web"})
	name, ok := m.nameOf(uid)
	g.Expect(ok).To(BeTrue())
	g.Expect(name.String()).To(Equal("team/web"))
	m.forget(uid)
	_, ok = m.nameOf(uid)
	g.Expect(ok).To(BeFalse())
}

func TestS10_AnObjectIsMissingOnlyIfItWasLookedForAllTheTime(t *testing.T) {
	const grace = 24 * time.Hour
	gap := grace / 10
	seen := func(since, last time.Duration) state.Entry {
		at := noon.Add(-since)
		return state.Entry{UID: uid, MissingSince: &at, MissingSeen: noon.Add(-last)}
	}
	anew := state.Entry{UID: uid, MissingSince: &noon, MissingSeen: noon}
	tests := map[string]struct {
		entry   state.Entry
		want    state.Entry
		changed bool
	}{
		"first":                 {state.Entry{UID: uid}, anew, true},
		"again":                 {seen(3*time.Hour, 10*time.Minute), seen(3*time.Hour, 0), true},
		"again so soon":         {seen(3*time.Hour, time.Minute), seen(3*time.Hour, time.Minute), false},
		"after the longest":     {seen(3*time.Hour, gap), seen(3*time.Hour, 0), true},
		"nobody looked":         {seen(48*time.Hour, gap+time.Second), anew, true},
		"the clock went back":   {seen(-time.Hour, -time.Hour), anew, true},
		"down over the weekend": {seen(72*time.Hour, 48*time.Hour), anew, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var o orphanage
			got, changed := o.observe(tt.entry, noon, grace)
			g.Expect(got).To(Equal(tt.want))
			g.Expect(changed).To(Equal(tt.changed))
		})
	}
}

func TestCordonIsNewsOnce(t *testing.T) {
	g := NewWithT(t)
	var c cordon
	g.Expect(c.set(false, noon)).To(BeFalse())
	g.Expect(c.set(true, noon)).To(BeTrue())
	g.Expect(c.set(true, noon.Add(time.Hour))).To(BeFalse())
	g.Expect(c.get()).To(Equal(noon))
	g.Expect(c.set(false, noon)).To(BeTrue())
	g.Expect(c.get().IsZero()).To(BeTrue())
}
