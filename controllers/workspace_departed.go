package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
)

const (
	// departedInterval is how often content is looked at whose object is with another node, or gone.
	departedInterval = 10 * time.Second
	// orphanInterval is how often it is looked at while nothing but time is missing.
	orphanInterval = 10 * time.Minute
	// orphanShare is the part of the volumes that may go as orphans in an hour: one in this many.
	orphanShare = 10
)

// reconcileDeparted looks after volumes of a name whose object this node does not see: it went to another node, was deleted
// by force, or made anew under the same name (then present is the new object's UID).
func (r *WorkspaceReconciler) reconcileDeparted(ctx context.Context, name types.NamespacedName, present types.UID) (ctrl.Result, error) {
	var result ctrl.Result
	for _, e := range r.Keeper.Area.Journal().Find(name.Namespace, name.Name) {
		if e.UID == string(present) {
			continue
		}
		r.memory.name(e.UID, name)
		after, err := r.departed(ctx, e)
		if err != nil {
			return ctrl.Result{}, fmt.Errorf("volume %s of workspace %s: %w", e.UID, name, err)
		}
		if after > 0 && (result.RequeueAfter == 0 || after < result.RequeueAfter) {
			result.RequeueAfter = after
		}
	}
	return result, nil
}

// departed handles one volume. The object is read from the API server: what the cache does not show may only have left
// the selection.
func (r *WorkspaceReconciler) departed(ctx context.Context, e state.Entry) (time.Duration, error) {
	if err := r.Keeper.Area.Check(); err != nil {
		return departedInterval, nil //nolint:nilerr // the objects on this node report it
	}
	var ws v1.Workspace
	err := r.Reader.Get(ctx, types.NamespacedName{Namespace: e.Namespace, Name: e.Name}, &ws)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	if err != nil || string(ws.UID) != e.UID {
		return r.orphan(ctx, e)
	}
	if e.MissingSince != nil {
		e, err = r.Keeper.Area.Journal().Update(e.UID, func(now *state.Entry, exists bool) bool {
			now.MissingSince, now.MissingSeen = nil, time.Time{}
			return exists
		})
		if err != nil || e.UID == "" {
			return departedInterval, err
		}
	}
	switch {
	case ws.Spec.NodeName == r.Node:
		return departedInterval, nil // ours; the cache is behind
	case ws.Status.NodeName == r.Node:
		return r.fenced(ctx, e, &ws)
	default:
		return r.clear(ctx, e, &ws)
	}
}

// fenced waits for the new owner's claim: until it is made, only the content here is known to be good. It goes on being
// saved, in the old owner's name as long as the store lets it.
func (r *WorkspaceReconciler) fenced(ctx context.Context, e state.Entry, ws *v1.Workspace) (time.Duration, error) {
	s := r.newScope(ws)
	if done, err := r.stepObserve(ctx, s); done || err != nil || !s.usable() {
		return departedInterval, err
	}
	if _, err := r.stepBackup(ctx, s); err != nil {
		return 0, err
	}
	log.FromContext(ctx).Info("fenced: waiting for the new owner's claim", "node", ws.Spec.NodeName, "claim", e.Claim)
	return departedInterval, nil
}

// clear removes a volume whose workspace another node, or nobody, holds. What no backup has is kept as a stray snapshot.
func (r *WorkspaceReconciler) clear(ctx context.Context, e state.Entry, ws *v1.Workspace) (time.Duration, error) {
	subject := subjectOf(e)
	pods, err := r.pods(ctx, r.Client, subject)
	if err != nil {
		return 0, err
	}
	if len(pods) > 0 {
		r.saveDeparted(e, ws)
		return departedInterval, nil
	}
	return r.removeEntry(ctx, e, ws)
}

// saveDeparted saves what pods go on writing although another node holds the workspace. The store fences the backup, and
// the keeper makes a stray snapshot of it.
func (r *WorkspaceReconciler) saveDeparted(e state.Entry, ws *v1.Workspace) {
	key := jobKey(subjectOf(e), v1.OperationSave)
	r.Jobs.Forget(key)
	if latest(e.Backup.NextAttempt, afterFencing(e.Backup, intervalOf(ws))).After(r.Clock.Now()) {
		return
	}
	r.Jobs.Start(key, ClassBackup, r.Settings.Timeouts.Backup.Duration, nothing(func(ctx context.Context) error {
		return r.Keeper.Backup(ctx, content.SaveRequest{Subject: subjectOf(e)})
	}))
}

func subjectOf(e state.Entry) content.Subject {
	return content.Subject{UID: e.UID, Namespace: e.Namespace, Name: e.Name, Class: e.Class, Claim: e.Claim}
}

// removeEntry runs the job that saves and removes. There is no status to report to: the object, if there is one, is another
// node's.
func (r *WorkspaceReconciler) removeEntry(ctx context.Context, e state.Entry, ws *v1.Workspace) (time.Duration, error) {
	key := jobKey(subjectOf(e), v1.OperationRemove)
	job := r.Jobs.State(key)
	if job.Phase == jobs.Done {
		r.Jobs.Forget(key)
		return r.stuckEntry(ctx, e, ws, job.Err), nil
	}
	if job.Phase == jobs.None {
		if other, running := r.Jobs.Running(e.UID); running {
			r.Jobs.Cancel(other)
			return time.Second, nil
		}
		r.Jobs.Start(key, ClassMaintain, r.Settings.Timeouts.Backup.Duration, r.remove(subjectOf(e), ws))
	}
	return departedInterval, nil
}

// stuckEntry tells why a volume is still there, and returns when to try again.
func (r *WorkspaceReconciler) stuckEntry(ctx context.Context, e state.Entry, ws *v1.Workspace, err error) time.Duration {
	if err == nil || errors.Is(err, content.ErrInUse) {
		return departedInterval
	}
	log.FromContext(ctx).Error(err, "content whose owner moved on stays on the node", "uid", e.UID, "claim", e.Claim)
	r.Recorder.Eventf(ws, nil, corev1.EventTypeWarning, v1.ReasonFailed, "Remove",
		"content on node %s whose owner moved on cannot be saved and stays: %s", r.Node, clip(err.Error()+wayOut(err, e.Claim, false)))
	return r.Settings.RetryMax
}

// orphan handles a volume without an object. It goes only after the object was seen to be missing, by name and by a list of
// its namespace in the right cluster, for the whole grace, and never many at once.
func (r *WorkspaceReconciler) orphan(ctx context.Context, e state.Entry) (time.Duration, error) {
	if err := r.confirmMissing(ctx, e); err != nil {
		return 0, err
	}
	now := r.Clock.Now()
	watched, err := r.Keeper.Area.Journal().Update(e.UID, func(entry *state.Entry, exists bool) (changed bool) {
		if exists {
			*entry, changed = r.orphans.observe(*entry, now, r.Settings.OrphanGrace)
		}
		return changed
	})
	if err != nil || watched.MissingSince == nil || watched.Claim != e.Claim {
		return departedInterval, err // it went, or came back to life, meanwhile
	}
	if wait := watched.MissingSince.Add(r.Settings.OrphanGrace).Sub(now); wait > 0 {
		return min(wait, orphanInterval), nil
	}
	if !r.orphans.allow(e.UID, len(r.Keeper.Area.Journal().List()), now) {
		log.FromContext(ctx).Error(nil, "more volumes without an object are due for removal than may go in an hour: are these the right API server and namespace?",
			"uid", e.UID, "namespace", e.Namespace, "name", e.Name)
		return orphanInterval, nil
	}
	return r.removeEntry(ctx, watched, reference(e))
}

// confirmMissing makes sure that the object is really not there: absence of an answer is no answer.
func (r *WorkspaceReconciler) confirmMissing(ctx context.Context, e state.Entry) error {
	var kubeSystem corev1.Namespace
	if err := r.Reader.Get(ctx, types.NamespacedName{Name: "kube-system"}, &kubeSystem); err != nil {
		return fmt.Errorf("make sure that this is the right cluster: %w", err)
	}
	if string(kubeSystem.UID) != r.Keeper.Cluster {
		return fmt.Errorf("the API server is of cluster %s, this node's content of %s", kubeSystem.UID, r.Keeper.Cluster)
	}
	var all v1.WorkspaceList
	if err := r.Reader.List(ctx, &all, client.InNamespace(e.Namespace)); err != nil {
		return fmt.Errorf("make sure that the object is gone: %w", err)
	}
	for i := range all.Items {
		if string(all.Items[i].UID) == e.UID {
			return fmt.Errorf("the API server finds the object in a list but not by name")
		}
	}
	return nil
}

// reference stands for an object that is gone, so that an event can name it.
func reference(e state.Entry) *v1.Workspace {
	ws := &v1.Workspace{}
	ws.SetGroupVersionKind(v1.GroupVersion.WithKind("Workspace"))
	ws.Namespace, ws.Name, ws.UID = e.Namespace, e.Name, types.UID(e.UID)
	return ws
}

// orphanage limits how many volumes without an object go in an hour.
type orphanage struct {
	mu      sync.Mutex
	removed map[string]time.Time
}

// observe records that an object is missing. Observations that lie far apart do not add up: nobody looked in between.
func (o *orphanage) observe(e state.Entry, now time.Time, grace time.Duration) (state.Entry, bool) {
	gap := max(2*orphanInterval, grace/10)
	if e.MissingSince == nil || now.Sub(e.MissingSeen) > gap || now.Before(e.MissingSeen) {
		e.MissingSince, e.MissingSeen = &now, now
		return e, true
	}
	if now.Sub(e.MissingSeen) < orphanInterval/2 {
		return e, false
	}
	e.MissingSeen = now
	return e, true
}

// allow says whether one more may go now. One that was allowed before stays allowed.
func (o *orphanage) allow(uid string, volumes int, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.removed == nil {
		o.removed = map[string]time.Time{}
	}
	if _, ok := o.removed[uid]; ok {
		return true
	}
	recent := 0
	for other, at := range o.removed {
		if now.Sub(at) < time.Hour {
			recent++
		} else {
			delete(o.removed, other)
		}
	}
	if recent >= max(1, volumes/orphanShare) {
		return false
	}
	o.removed[uid] = now
	return true
}
