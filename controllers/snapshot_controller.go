package controllers

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// SnapshotReconciler makes the snapshots that name this node.
type SnapshotReconciler struct {
	// Workspaces does the work that touches a workspace, and shares its jobs: there is one at a time for each workspace.
	Workspaces *WorkspaceReconciler
	// Wake reconciles the snapshots it receives, of jobs that ended.
	Wake chan event.TypedGenericEvent[types.NamespacedName]
}

// snapshotJob and dropJob begin the operations of a snapshot's jobs; its namespace, name and UID follow.
const (
	snapshotJob = "Snapshot/"
	dropJob     = "SnapshotDrop/"
)

func opOf(prefix string, s *v1.Snapshot) string {
	return prefix + s.Namespace + "/" + s.Name + "/" + string(s.UID)
}

// picture is what one pass over a snapshot knows and finds out.
type picture struct {
	snapshot *v1.Snapshot
	status   *v1.SnapshotStatus
	ready    *finding
	stalled  bool
	requeue  time.Duration
	finished []jobs.Key
	note     string
}

// SetupWithManager registers the reconciler: for its objects and for ended jobs.
func (r *SnapshotReconciler) SetupWithManager(mgr ctrl.Manager) error {
	byName := handler.TypedFuncs[types.NamespacedName, reconcile.Request]{GenericFunc: enqueueName}
	return ctrl.NewControllerManagedBy(mgr).
		Named("snapshot").
		For(&v1.Snapshot{}).
		WatchesRawSource(source.TypedChannel(r.Wake, byName)).
		WithOptions(controllerOptions(2)).
		Complete(r)
}

// JobEnded wakes the snapshot of a job, if the job was one of a snapshot.
func (r *SnapshotReconciler) JobEnded(key jobs.Key) {
	parts := strings.Split(key.Op, "/")
	if len(parts) != 4 || (parts[0]+"/" != snapshotJob && parts[0]+"/" != dropJob) {
		return
	}
	r.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: types.NamespacedName{Namespace: parts[1], Name: parts[2]}}
}

// Reconcile makes one pass over a snapshot.
func (r *SnapshotReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.Workspaces.settings.RLock()
	defer r.Workspaces.settings.RUnlock()
	var snapshot v1.Snapshot
	if err := r.Workspaces.Get(ctx, req.NamespacedName, &snapshot); err != nil {
		for _, key := range r.Workspaces.Jobs.Find(snapshotJob + req.String() + "/") {
			r.Workspaces.Jobs.Forget(key) // nobody will ask for its result
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	apimeta.RemoveStatusCondition(&snapshot.Status.Conditions, v1.ConditionNodeGone)
	if r.Workspaces.memory.stale(&snapshot) {
		return ctrl.Result{}, nil
	}
	p := &picture{snapshot: &snapshot, status: snapshot.Status.DeepCopy()}
	err := r.pass(ctx, p)
	if err == nil {
		err = r.finish(ctx, p)
	}
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: p.requeue}, nil
}

func (r *SnapshotReconciler) pass(ctx context.Context, p *picture) error {
	s := p.snapshot
	if !s.DeletionTimestamp.IsZero() {
		return r.delete(ctx, p)
	}
	if drop := s.Spec.DeletionPolicy == v1.DeletionDelete; drop != controllerutil.ContainsFinalizer(s, v1.FinalizerContent) {
		return r.Workspaces.patchFinalizer(ctx, s, drop)
	}
	if apimeta.IsStatusConditionTrue(s.Status.Conditions, v1.ConditionReady) {
		return nil
	}
	if p.status.SnapshotID == "" {
		// the id is on record before the first byte is stored, so that no attempt can leave a snapshot that nobody knows of
		p.status.SnapshotID = fmt.Sprintf("%s.%.8s", s.Name, s.UID)
		p.ready = found(v1.ReasonSnapshotting, "the snapshot is being made")
		return nil
	}
	return r.make(ctx, p)
}

// make pins the workspace's content as it is now where this node holds it, else its newest backup.
func (r *SnapshotReconciler) make(ctx context.Context, p *picture) error {
	s := p.snapshot
	var ws v1.Workspace
	err := r.Workspaces.Reader.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: s.Spec.WorkspaceName}, &ws)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	exists := err == nil
	held := exists && ws.Status.NodeName == r.Workspaces.Node
	if held && !apimeta.IsStatusConditionTrue(ws.Status.Conditions, v1.ConditionReady) {
		r.wait(p, &ws)
		return nil
	}
	r.work(p, &ws, exists, held)
	return nil
}

// wait says what a snapshot waits for. After the deadline it is called stalled, and goes on all the same if the wait ends.
func (r *SnapshotReconciler) wait(p *picture, ws *v1.Workspace) {
	p.requeue = 2 * time.Second
	p.ready = found(v1.ReasonSnapshotting, "waiting for workspace %s to be running or stopped", ws.Name)
	limit := r.Workspaces.Settings.Timeouts.Initialize.Duration
	if r.Workspaces.Clock.Now().Sub(p.snapshot.CreationTimestamp.Time) > limit {
		p.ready.reason, p.stalled = v1.ReasonTimedOut, true
		p.ready.message += fmt.Sprintf(" for more than %s: see why it is neither", limit)
		p.requeue = nodeInterval
	}
}

// work starts the job, or takes its end.
func (r *SnapshotReconciler) work(p *picture, ws *v1.Workspace, exists, held bool) {
	s := p.snapshot
	key := jobs.Key{UID: string(s.UID), Op: opOf(snapshotJob, s)}
	if held {
		key.UID = string(ws.UID)
	}
	state := r.Workspaces.Jobs.State(key)
	p.ready = found(v1.ReasonSnapshotting, "the snapshot is being made")
	switch state.Phase {
	case jobs.Queued, jobs.Running:
		r.lookAtWait(p, string(ws.UID), state)
	case jobs.Done:
		p.finished = append(p.finished, key)
		r.done(p, state, exists)
	case jobs.None:
		if wait := p.pause(r.Workspaces.Clock.Now()); wait > 0 {
			p.ready, p.requeue = nil, wait
			return
		}
		if !r.Workspaces.Jobs.Start(key, ClassBackup, r.Workspaces.Settings.Timeouts.Backup.Duration, r.job(s, ws, held)) {
			p.requeue = time.Second // the workspace has another job
		}
	}
}

func (r *SnapshotReconciler) job(s *v1.Snapshot, ws *v1.Workspace, held bool) jobs.Func {
	id := s.Status.SnapshotID
	scope := &scope{ws: ws.DeepCopy(), status: ws.Status.DeepCopy()}
	request := saveRequest(scope)
	request.Trigger = ""
	request.Namespace, request.Name = s.Namespace, s.Spec.WorkspaceName
	return func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		return r.Workspaces.Keeper.Snapshot(ctx, request, id, held)
	}
}

// pause returns how long the next attempt has to wait.
func (p *picture) pause(now time.Time) time.Duration {
	o := p.status.Operation
	if o == nil || o.NextAttempt == nil || p.snapshot.Generation != p.snapshot.Status.ObservedGeneration {
		return 0
	}
	return o.NextAttempt.Sub(now)
}

func (r *SnapshotReconciler) done(p *picture, state jobs.State, exists bool) {
	if state.Err == nil {
		c, _ := state.Result.(history.Commit)
		p.status.Backup, p.status.Time = v1.BackupName(c.Name.String()), metav1.NewTime(c.Created.Truncate(time.Second))
		p.status.Files, p.status.Bytes, p.status.Operation = c.Tree.Files, c.Tree.Bytes, nil
		p.ready = foundOK(v1.ReasonSnapshotted, "backup %s of workspace %s", c.Name, p.snapshot.Spec.WorkspaceName)
		p.note = p.ready.message
		return
	}
	kind := classify(state.Err, v1.ReasonUploadFailed)
	if kind.reason == v1.ReasonNoBackup && !exists {
		kind.reason = v1.ReasonWorkspaceNotFound
	}
	p.ready, p.stalled = found(kind.reason, "%s", clip(state.Err.Error())), kind.permanent
	p.fail(state.Err, r.Workspaces.Clock.Now(), r.Workspaces.Settings.RetryMax)
}

func (p *picture) fail(err error, now time.Time, limit time.Duration) {
	if p.status.Operation == nil {
		p.status.Operation = &v1.OperationStatus{Type: v1.OperationBackup, StartedAt: timeOf(now)}
	}
	p.requeue = countFailure(p.status.Operation, err, now, limit, p.snapshot.UID)
}

// delete removes the stored snapshot if the object says so, and lets the object go.
func (r *SnapshotReconciler) delete(ctx context.Context, p *picture) error {
	s := p.snapshot
	if !controllerutil.ContainsFinalizer(s, v1.FinalizerContent) {
		return nil
	}
	if s.Spec.DeletionPolicy != v1.DeletionDelete || s.Status.SnapshotID == "" {
		return r.Workspaces.patchFinalizer(ctx, s, false)
	}
	p.ready = found(v1.ReasonDeleting, "the stored snapshot is being removed")
	if r.stillMade(s) {
		p.requeue = time.Second
		return nil
	}
	key := jobs.Key{UID: string(s.UID), Op: opOf(dropJob, s)}
	state := r.Workspaces.Jobs.State(key)
	switch {
	case state.Phase == jobs.None:
		if wait := p.pause(r.Workspaces.Clock.Now()); wait > 0 {
			p.ready, p.requeue = nil, wait
			return nil
		}
		r.Workspaces.Jobs.Start(key, ClassMaintain, r.Workspaces.Settings.Timeouts.Store.Duration, nothing(func(ctx context.Context) error {
			return r.Workspaces.Keeper.DropSnapshot(ctx, s.Namespace, s.Status.SnapshotID)
		}))
	case state.Phase == jobs.Done && state.Err != nil:
		p.finished = append(p.finished, key)
		p.ready.message = clip(state.Err.Error())
		p.fail(state.Err, r.Workspaces.Clock.Now(), r.Workspaces.Settings.RetryMax)
	case state.Phase == jobs.Done:
		r.Workspaces.Jobs.Forget(key)
		return r.Workspaces.patchFinalizer(ctx, s, false)
	default:
		r.lookAtWait(p, "", state)
	}
	return nil
}

// lookAtWait says so if the store keeps a job of a snapshot waiting. The UID is that of the workspace whose requests the job makes.
func (r *SnapshotReconciler) lookAtWait(p *picture, uid string, job jobs.State) {
	p.requeue = lookInterval(job)
	p.ready = keptWaiting(p.ready, r.Workspaces.waitOf(uid, job))
}

// stillMade ends the job that makes the snapshot and says whether it is still at work: it would pin what has just been removed.
func (r *SnapshotReconciler) stillMade(s *v1.Snapshot) bool {
	for _, key := range r.Workspaces.Jobs.Find(opOf(snapshotJob, s)) {
		r.Workspaces.Jobs.Cancel(key)
		r.Workspaces.Jobs.Forget(key)
	}
	return len(r.Workspaces.Jobs.Find(opOf(snapshotJob, s))) > 0
}

// finish writes the status once if it changed.
func (r *SnapshotReconciler) finish(ctx context.Context, p *picture) error {
	s := p.snapshot
	if r.Workspaces.memory.stale(s) {
		return nil // the object was let go, or its finalizer written: the next pass goes on
	}
	p.status.ObservedGeneration = s.Generation
	if p.ready != nil {
		p.set(v1.ConditionReady, p.ready, r.Workspaces.Clock.Now())
		if p.stalled {
			p.set(v1.ConditionStalled, foundOK(p.ready.reason, "%s", p.ready.message), r.Workspaces.Clock.Now())
		} else {
			apimeta.RemoveStatusCondition(&p.status.Conditions, v1.ConditionStalled)
		}
	}
	if !equality.Semantic.DeepEqual(p.status, &s.Status) {
		if err := r.Workspaces.applyStatus(ctx, s, p.status); err != nil {
			return err
		}
	}
	for _, key := range p.finished {
		r.Workspaces.Jobs.Forget(key)
	}
	if p.note != "" {
		r.Workspaces.Recorder.Eventf(s, nil, corev1.EventTypeNormal, v1.ReasonSnapshotted, "Snapshot", "%s", p.note)
	}
	return nil
}

func (p *picture) set(kind string, f *finding, now time.Time) {
	setCondition(&p.status.Conditions, kind, f, p.snapshot.Generation, now)
}
