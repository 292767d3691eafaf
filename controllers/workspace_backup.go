package controllers

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// stepBackup starts a backup when one is due. How it ended is in the journal, which survives the daemon and needs no API
// server: a workspace goes on being backed up while there is none.
func (r *WorkspaceReconciler) stepBackup(ctx context.Context, s *scope) (bool, error) {
	s.reportFenced(r.Node)
	if r.backingUp(s) {
		return false, nil
	}
	evacuate, err := r.evacuates(ctx, s)
	if err != nil {
		return false, err
	}
	s.asked = r.wishes.asked(s.ws.UID)
	due := decideBackup(s, evacuate)
	if due.IsZero() {
		return false, nil
	}
	if s.failing = r.memory.failing(s.ws.UID); s.failing.next.After(due) && !s.edited() && !s.asked {
		due = s.failing.next
	}
	if due.After(s.now) {
		s.at(due)
		return false, nil
	}
	if !r.wishes.begin(s.ws.UID, s.seen.Journal.Backup, func() bool {
		return r.Jobs.Start(s.key(v1.OperationBackup), ClassBackup, r.Settings.Timeouts.Backup.Duration, r.backup(s))
	}) {
		s.after(time.Second)
	}
	return false, nil
}

// reportFenced says what only a person can mend: somebody else writes to the history of content that this node holds.
func (s *scope) reportFenced(node string) {
	b := s.seen.Journal.Backup
	if b.Reason == v1.ReasonFenced && s.held(node) && s.stalled == nil {
		s.stalled = found(v1.ReasonFenced, "%s", clip(b.Failure+wayOut(history.ErrFenced, s.status.Claim, true)))
	}
}

// backingUp takes the end of a backup, or says that one is at work.
func (r *WorkspaceReconciler) backingUp(s *scope) bool {
	key := s.key(v1.OperationBackup)
	job := r.Jobs.State(key)
	switch job.Phase {
	case jobs.Queued, jobs.Running:
		s.progress(v1.OperationBackup, job)
		r.lookAtWait(s, job)
		return true
	case jobs.Done:
		if !errors.Is(job.Err, jobs.ErrCancelled) { // by a stop that was taken back
			r.memory.backupEnded(s.ws.UID, job.Err, s.now, r.Settings.RetryMax)
		}
		s.takeGit(job.Result)
		r.Jobs.Forget(key)
	case jobs.None:
	}
	if o := s.status.Operation; o != nil && !s.pending(o.Type) {
		s.status.Operation = nil
	}
	return false
}

// pending says whether work of this kind is still under way, or waits, while the content is in use.
func (s *scope) pending(op v1.OperationType) bool {
	switch op {
	case v1.OperationFinalBackup, v1.OperationDiscard:
		return !s.wanted()
	case v1.OperationProvision:
		return !s.provisioned()
	default:
		return false
	}
}

// decideBackup returns when the next backup is due: at once for a new trigger or where somebody waits for one, else an interval after
// the last look at the tree; never before the pause after a failure is over, unless somebody waits. The zero time is never.
func decideBackup(s *scope, evacuate bool) time.Time {
	b := s.seen.Journal.Backup
	if s.asked {
		return s.now
	}
	var due time.Time
	interval := intervalOf(s.ws, s.interval)
	if interval > 0 {
		due = lastLook(s).Add(content.Jitter(interval, string(s.ws.UID)))
	}
	if evacuate || s.triggered() {
		due = s.now
	}
	if due.IsZero() || s.edited() {
		return due
	}
	return latest(due, b.NextAttempt, afterFencing(b, interval))
}

// afterFencing returns when a fenced owner's work may be saved again: each time it is all of it.
func afterFencing(b state.Backup, interval time.Duration) time.Time {
	if b.Reason != v1.ReasonFenced {
		return time.Time{}
	}
	return b.LastFailure.Add(interval)
}

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// triggered says whether the spec asks for a backup at once that has not been made. A new owner does not make again what the
// last one has made.
func (s *scope) triggered() bool {
	honoured := s.seen.Journal.Backup.Trigger
	if honoured == "" && s.status.Backup != nil {
		honoured = s.status.Backup.Trigger
	}
	return s.ws.Spec.Backup.Trigger != "" && s.ws.Spec.Backup.Trigger != honoured
}

// evacuates says whether the node is cordoned and the tree, which no pod uses any more, was not looked at since.
func (r *WorkspaceReconciler) evacuates(ctx context.Context, s *scope) (bool, error) {
	since := r.cordon.get()
	if since.IsZero() {
		return false, nil
	}
	pods, err := r.pods(ctx, r.Client, s.subject())
	if err != nil {
		return false, err
	}
	unused := r.memory.unusedSince(string(s.ws.UID), len(pods) > 0, s.now)
	return len(pods) == 0 && s.seen.Journal.Backup.CheckedAt.Before(latest(since, unused)), nil
}

// lastLook returns when the tree was last compared with a backup, or made.
func lastLook(s *scope) time.Time {
	last := s.seen.Journal.Backup.CheckedAt
	if m := s.seen.Marker.Content; m != nil && m.Finished.After(last) {
		last = m.Finished
	}
	return last
}

// intervalOf returns the time between periodic backups of a workspace, the node's own if its spec has none; 0 is never.
func intervalOf(ws *v1.Workspace, otherwise time.Duration) time.Duration {
	if ws.Spec.Backup.Interval == nil {
		return otherwise
	}
	return ws.Spec.Backup.Interval.Duration
}

func (r *WorkspaceReconciler) backup(s *scope) jobs.Func {
	request, before, about := saveRequest(s), s.seen.Journal, s.ws.DeepCopy()
	return func(ctx context.Context, report func(jobs.Progress)) (any, error) {
		request.Progress = func(files, bytes int64) { report(jobs.Progress{FilesDone: files, BytesDone: bytes}) }
		look := r.lookAtGit(ctx, about, request.Subject)
		err := r.Keeper.Backup(ctx, request)
		r.tell(about, before)
		return look, err
	}
}

// tell sends events about what a backup came upon. The journal says it; a pass may come too late to see the difference.
func (r *WorkspaceReconciler) tell(about *v1.Workspace, before state.Entry) {
	now, _ := r.Keeper.Area.Journal().Get(before.UID)
	warn := func(reason, format string, args ...any) {
		r.Recorder.Eventf(about, nil, corev1.EventTypeWarning, reason, "Backup", format, args...)
	}
	if now.Fork != before.Fork {
		warn(v1.EventFork, "a former owner committed after the take-over; its backup was kept as snapshot %s", now.Fork)
	}
	if now.Stray.ID != before.Stray.ID {
		warn(v1.EventStraySnapshot, "node %s lost the workspace to another; its work was kept as snapshot %s", r.Node, now.Stray.ID)
	}
	if now.Lost != before.Lost {
		warn(v1.EventBackupLost, "%s is not in the store any more; a new backup was made. Find out who removes objects there", now.Lost)
	}
	if now.Backup.Trigger != before.Backup.Trigger {
		r.Recorder.Eventf(about, nil, corev1.EventTypeNormal, v1.EventBackedUp, "Backup", "backup %s holds the content as of trigger %q", now.Backup.Name, now.Backup.Trigger)
	}
}

func saveRequest(s *scope) content.SaveRequest {
	keep := s.ws.Spec.Backup.Keep
	request := content.SaveRequest{
		Subject: s.subject(),
		Keep:    history.Keep{Last: int(keep.Last), Daily: 7},
		Consent: consent(s.ws),
	}
	if s.triggered() {
		request.Trigger = s.ws.Spec.Backup.Trigger
	}
	if keep.Daily != nil {
		request.Keep.Daily = int(*keep.Daily)
	}
	return request
}

// backupStatus takes the journal into the status. Only a complete backup becomes the latest: it is what a start elsewhere
// must find.
func backupStatus(s *scope) {
	b := s.seen.Journal.Backup
	if s.seen.Journal.Claim != s.status.Claim || !s.seen.Exists() {
		return
	}
	if s.status.Backup == nil {
		s.status.Backup = &v1.BackupStatus{}
	}
	status := s.status.Backup
	if b.Complete && b.Name != "" && (status.Latest == nil || status.Latest.Hash != b.Hash) {
		status.Latest = recordOf(b)
	}
	if b.Trigger != "" {
		status.Trigger = b.Trigger
	}
	if b.Count > 0 {
		status.Count, status.Oldest = int32(min(b.Count, 1<<30)), v1.BackupName(b.Oldest)
	}
	status.CheckedAt = timeOf(b.CheckedAt)
	status.Attempts = int32(min(b.Attempts, 1<<30))
	status.FailingSince, status.NextAttempt = timeOf(b.FailingSince), timeOf(b.NextAttempt)
	if *status == (v1.BackupStatus{}) {
		s.status.Backup = nil
	}
}

func recordOf(b state.Backup) *v1.BackupRecord {
	return &v1.BackupRecord{
		Name: v1.BackupName(b.Name), Hash: b.Hash, Time: metav1.NewTime(b.Time.Truncate(time.Second)),
		Files: b.Files, Bytes: b.Bytes, UploadedBytes: b.Uploaded, Duration: durationOf(b.Duration),
	}
}

// durationOf rounds a duration to what people want to know.
func durationOf(d time.Duration) *metav1.Duration {
	if d <= 0 {
		return nil
	}
	return &metav1.Duration{Duration: d.Round(time.Millisecond)}
}
