package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// departedInterval is how often content is looked at whose object is with another node, or gone.
const departedInterval = 10 * time.Second

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
	if err := r.Keeper.CheckArea(ctx); err != nil {
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
	if e, err = r.present(e); err != nil || e.UID == "" {
		return departedInterval, err
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
	if latest(e.Backup.NextAttempt, afterFencing(e.Backup, intervalOf(ws, r.Settings.BackupInterval))).After(r.Clock.Now()) {
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
