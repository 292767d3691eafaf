package controllers

import (
	"context"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// BackupRequest is somebody's wish for a backup at once. The next pass that may make one does so, with all the checks that come before
// it: a request is one more reason for a backup to be due, as spec.backup.trigger is, and nothing else.
type BackupRequest struct {
	reconciler *WorkspaceReconciler
	uid        types.UID
	key        jobs.Key
	wish       *wish
	leave      sync.Once
}

// wish is what several requests for one workspace wait for: the first backup that begins after them.
type wish struct {
	callers int
	begun   bool // the job that serves it has been started
	done    chan struct{}
	err     error
	// What the journal said of backups when the job was started, and says now that it is done.
	before, after state.Backup
}

// wishes are those that no job has served yet, and those whose job runs.
type wishes struct {
	mu   sync.Mutex
	open map[types.UID]*wish
	runs map[types.UID]*wish
}

// RequestBackup asks for a backup of a workspace that this node holds. The caller must Leave the request in the end. Of a workspace that
// is not ready none is made: whoever waits should look whether it still is.
func (r *WorkspaceReconciler) RequestBackup(ctx context.Context, ws *v1.Workspace) (*BackupRequest, error) {
	subject := content.Subject{UID: string(ws.UID), Claim: ws.Status.Claim}
	b := &BackupRequest{reconciler: r, uid: ws.UID, key: jobKey(subject, v1.OperationBackup), wish: r.wishes.join(ws.UID)}
	select {
	case r.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: client.ObjectKeyFromObject(ws)}:
		return b, nil
	case <-ctx.Done():
		b.Leave()
		return nil, context.Cause(ctx)
	}
}

// Done is closed when the backup has ended.
func (b *BackupRequest) Done() <-chan struct{} { return b.wish.done }

// Result returns what the journal says after the backup, which has ended, whether that was made before, since the content equals it,
// and what the backup failed of.
func (b *BackupRequest) Result() (newest state.Backup, unchanged bool, err error) {
	before, after := b.wish.before, b.wish.after
	return after, before.Name == after.Name && before.Hash == after.Hash, b.wish.err
}

// Progress returns how far the backup is, and whether it runs yet: another one may have to end before.
func (b *BackupRequest) Progress() (p jobs.Progress, running bool) {
	if !b.reconciler.wishes.hasBegun(b.wish) {
		return p, false
	}
	job := b.reconciler.Jobs.State(b.key)
	return job.Progress, job.Phase != jobs.Queued
}

// Leave gives the request up. A backup that has been started goes on; one that nobody waits for any more is not started.
func (b *BackupRequest) Leave() {
	b.leave.Do(func() { b.reconciler.wishes.leave(b.uid, b.wish) })
}

// JobDone tells those who wait for a backup how it ended. It is called with the last state of every job.
func (r *WorkspaceReconciler) JobDone(key jobs.Key, last jobs.State) {
	if strings.HasPrefix(key.Op, string(v1.OperationBackup)+"/") {
		entry, _ := r.Keeper.Area.Journal().Get(key.UID)
		r.wishes.end(types.UID(key.UID), entry.Backup, last.Err)
	}
}

func (w *wishes) join(uid types.UID) *wish {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open, w.runs = map[types.UID]*wish{}, map[types.UID]*wish{}
	}
	if w.open[uid] == nil {
		w.open[uid] = &wish{done: make(chan struct{})}
	}
	w.open[uid].callers++
	return w.open[uid]
}

func (w *wishes) leave(uid types.UID, of *wish) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if of.callers--; of.callers == 0 && w.open[uid] == of {
		delete(w.open, uid)
	}
}

// asked says whether somebody waits for a backup that has not been started.
func (w *wishes) asked(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[uid] != nil
}

// begin starts the job of a workspace's backup. What was wished for until then is served by it. before is what the journal says now.
func (w *wishes) begin(uid types.UID, before state.Backup, start func() bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !start() {
		return false
	}
	if of := w.open[uid]; of != nil {
		of.begun, of.before = true, before
		w.runs[uid] = of
		delete(w.open, uid)
	}
	return true
}

func (w *wishes) hasBegun(of *wish) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return of.begun
}

func (w *wishes) end(uid types.UID, after state.Backup, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if of := w.runs[uid]; of != nil {
		delete(w.runs, uid)
		of.after, of.err = after, err
		close(of.done)
	}
}
