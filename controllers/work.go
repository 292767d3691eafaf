package controllers

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// Classes of jobs: each has its own limit, so that many periodic backups cannot keep a final one waiting, nor slow clones a restore.
const (
	ClassInitialize = jobs.Class("initialize")
	ClassRestore    = jobs.Class("restore")
	ClassBackup     = jobs.Class("backup")
	ClassFinal      = jobs.Class("final")
	ClassMaintain   = jobs.Class("maintain")
)

// progressInterval is the shortest time between two reports of progress.
const progressInterval = 10 * time.Second

// task is a piece of long work.
type task struct {
	op      v1.OperationType
	class   jobs.Class
	timeout time.Duration
	run     jobs.Func
}

// outcome is how a task stands.
type outcome struct {
	done   bool // it ended well; result is what it returned
	failed bool // it ended badly just now, with err
	result any
	err    error
}

// work starts a task, or looks after the one that runs, and takes its end. Failures are counted in the operation's status and
// pause the next attempt; a changed spec ends the pause.
func (r *WorkspaceReconciler) work(s *scope, t task) outcome {
	key := s.key(t.op)
	state := r.Jobs.State(key)
	tried, ran := state.Result.(attempt)
	if state.Err != nil && ran && tried.generation != s.ws.Generation {
		r.Jobs.Forget(key) // it failed of a spec that has been changed since
		state = jobs.State{}
	}
	switch state.Phase {
	case jobs.Done:
		s.finished = append(s.finished, key)
		if state.Err != nil {
			s.fail(t.op, state.Err, r.Settings.RetryMax)
			return outcome{failed: true, err: state.Err}
		}
		s.status.Operation = nil
		return outcome{done: true, result: tried.result}
	case jobs.Queued, jobs.Running:
		if state.Overdue {
			return outcome{failed: true, err: fmt.Errorf("%w after %s, and does not end: look for a disk that does not answer (dmesg)", jobs.ErrTimeout, t.timeout)}
		}
		s.goesOnFailing(t.op)
		s.progress(t.op, state)
		r.lookAtWait(s, state)
		return outcome{}
	case jobs.None:
	}
	s.goesOnFailing(t.op)
	if pause := s.pause(t.op); pause > 0 {
		s.after(pause)
		return outcome{}
	}
	if !r.Jobs.Start(key, t.class, t.timeout, attempted(s.ws.Generation, t.run)) {
		s.after(time.Second) // another job of this workspace is at work; its end wakes us, too
	}
	return outcome{}
}

// goesOnFailing keeps the report of a stall while the next attempt waits or is at work.
func (s *scope) goesOnFailing(op v1.OperationType) {
	if o := s.status.Operation; s.stalled == nil && o != nil && o.Type == op && o.Attempts > 0 {
		s.stalled = s.stillStalled()
	}
}

// attempt is what a job returns: its result, and the generation of the spec that it went by.
type attempt struct {
	generation int64
	result     any
}

func attempted(generation int64, run jobs.Func) jobs.Func {
	return func(ctx context.Context, report func(jobs.Progress)) (any, error) {
		result, err := run(ctx, report)
		return attempt{generation, result}, err
	}
}

// key names a job of the current claim: what an earlier claim's job returned must never be taken for this one's.
func (s *scope) key(op v1.OperationType) jobs.Key { return jobKey(s.subject(), op) }

func jobKey(s content.Subject, op v1.OperationType) jobs.Key {
	return jobs.Key{UID: s.UID, Op: fmt.Sprintf("%s/%d", op, s.Claim)}
}

// pause returns how long the next attempt of an operation has to wait.
func (s *scope) pause(op v1.OperationType) time.Duration {
	o := s.status.Operation
	if o == nil || o.Type != op || o.NextAttempt == nil || s.edited() {
		return 0
	}
	return o.NextAttempt.Sub(s.now)
}

// fail counts a failure. Errors that only a person can mend are tried again, too, but rarely.
func (s *scope) fail(op v1.OperationType, err error, limit time.Duration) {
	o := s.status.Operation
	if o == nil || o.Type != op {
		o = &v1.OperationStatus{Type: op, StartedAt: timeOf(s.now)}
	}
	if s.edited() {
		o.Attempts = 0
	}
	s.status.Operation = o
	s.after(countFailure(o, err, s.now, limit, s.ws.UID))
}

// countFailure takes a failure into an operation's status and returns the pause before the next attempt.
func countFailure(o *v1.OperationStatus, err error, now time.Time, limit time.Duration, uid types.UID) time.Duration {
	o.Attempts++
	o.LastFailure = clip(err.Error())
	pause := content.Backoff(int(o.Attempts), limit, string(uid))
	if permanent(err) {
		pause = content.Jitter(limit, string(uid))
	}
	o.NextAttempt = notBefore(now.Add(pause))
	o.BytesDone, o.FilesDone = 0, 0
	return pause
}

// progress reports a job that takes long: not before it has run for a while, and not often.
func (s *scope) progress(op v1.OperationType, state jobs.State) {
	waiting := s.status.Operation
	if state.Phase != jobs.Running || (waiting != nil && op == v1.OperationBackup && s.pending(waiting.Type)) {
		return // since when a stop waits, or what a growth fails of, is worth more than the progress of a backup meanwhile
	}
	running := s.now.Sub(state.Started)
	if running < progressInterval {
		s.after(progressInterval - running)
		return
	}
	s.after(progressInterval)
	o := s.status.Operation
	if o == nil || o.Type != op {
		o = &v1.OperationStatus{Type: op, StartedAt: timeOf(state.Started)}
	}
	o.NextAttempt = nil
	o.BytesDone, o.BytesTotal = state.Progress.BytesDone, state.Progress.BytesTotal
	o.FilesDone, o.FilesTotal = state.Progress.FilesDone, state.Progress.FilesTotal
	s.status.Operation = o
}

// began makes sure that the time at which waiting for an operation began is recorded, and returns it.
func (s *scope) began(op v1.OperationType) time.Time {
	o := s.status.Operation
	if o == nil || o.Type != op || o.StartedAt == nil {
		o = &v1.OperationStatus{Type: op, StartedAt: timeOf(s.now)}
		s.status.Operation = o
	}
	return o.StartedAt.Time
}

// nothing adapts a job without a result.
func nothing(f func(ctx context.Context) error) jobs.Func {
	return func(ctx context.Context, _ func(jobs.Progress)) (any, error) { return nil, f(ctx) }
}

func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewTime(t.Truncate(time.Second))
	return &m
}

// notBefore rounds up to whole seconds, the precision of the API: rounded down, a pause could be over before it began.
func notBefore(t time.Time) *metav1.Time { return timeOf(t.Add(time.Second - 1)) }

// clip keeps a message within the limit of its field.
func clip(message string) string {
	const limit = 2048
	if len(message) <= limit {
		return message
	}
	return message[:limit] + "…"
}

// noteOf makes a message fit for an event, of which the API server takes so many bytes and no more.
func noteOf(message string) string {
	const limit = 1024
	return strings.ToValidUTF8(message[:min(len(message), limit)], "")
}
