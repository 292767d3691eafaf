package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

// workspaces says which workspaces have no node, and lets those go that are being deleted.
type workspaces struct{ *Fleet }

// nodeIndex finds workspaces by the node that is responsible for them.
const nodeIndex = "responsible"

func (r *workspaces) setup(ctx context.Context, mgr ctrl.Manager, o controller.Options) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, &v1.Workspace{}, nodeIndex, func(o client.Object) []string {
		ws, ok := o.(*v1.Workspace)
		if !ok {
			return nil
		}
		return []string{responsible(ws)}
	})
	if err != nil {
		return err
	}
	ofNode := handler.EnqueueRequestsFromMapFunc(r.ofNode)
	return ctrl.NewControllerManagedBy(mgr).
		Named("fleet-workspace").
		For(&v1.Workspace{}).
		Watches(&corev1.Node{}, ofNode, builder.WithPredicates(comesAndGoes())).
		Watches(&v1.WorkspaceNode{}, ofNode, builder.WithPredicates(changesHands())).
		WithOptions(o).
		Complete(r)
}

// ofNode are the workspaces that a node is responsible for.
func (r *workspaces) ofNode(ctx context.Context, node client.Object) []reconcile.Request {
	var all v1.WorkspaceList
	if err := r.List(ctx, &all, client.MatchingFields{nodeIndex: node.GetName()}); err != nil {
		log.FromContext(ctx).Error(err, "workspaces are not told of a node that came or went; they are looked at in some minutes")
		return nil
	}
	requests := make([]reconcile.Request, len(all.Items))
	for i := range all.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&all.Items[i])
	}
	return requests
}

// Reconcile makes one pass over a workspace.
func (r *workspaces) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var ws v1.Workspace
	if err := r.Get(ctx, req.NamespacedName, &ws); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	after, err := r.pass(ctx, &ws)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil // somebody else wrote: look again
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

func (r *workspaces) pass(ctx context.Context, ws *v1.Workspace) (time.Duration, error) {
	v, err := r.judge(ctx, ws)
	if err != nil {
		return 0, err
	}
	if v.release {
		err := r.release(ctx, ws)
		if err == nil {
			return 0, nil
		}
		if early, ok := errors.AsType[*earlyError](err); ok {
			return early.left, r.say(ctx, ws, ws.Status.Conditions, v)
		}
		if apierrors.IsConflict(err) {
			return 0, err
		}
		log.FromContext(ctx).Error(err, "a workspace whose node is gone cannot be let go", "node", responsible(ws))
		if v.reason == "" {
			v.reason, v.message = v1.ReasonNodeNotFound, "spec.nodeName names no node"
		}
		v.after, v.message = lookAgain/10, v.message+". It cannot be let go yet: "+err.Error()
	}
	return v.after, r.say(ctx, ws, ws.Status.Conditions, v)
}

func (r *workspaces) judge(ctx context.Context, ws *v1.Workspace) (verdict, error) {
	node, err := r.find(ctx, ws)
	if err != nil {
		return verdict{}, err
	}
	return decideWorkspace(ws, node, r.Clock.Now(), r.Grace), nil
}

// release lets a workspace go that nobody else can. Every step may be done again: the store is told, then people, then the object goes.
func (r *workspaces) release(ctx context.Context, cached *v1.Workspace) error {
	var ws v1.Workspace
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(cached), &ws); err != nil {
		return err
	}
	if v, err := r.judge(ctx, &ws); err != nil || !v.release || ws.UID != cached.UID {
		return err // not any more, or by somebody else
	}
	if node := responsible(&ws); node != "" {
		if left := lastSign(&ws).Add(r.Grace).Sub(r.Clock.Now()); left > 0 {
			return &earlyError{left}
		}
		if err := r.confirmGone(ctx, node, holderUID(&ws)); err != nil {
			return err
		}
	}
	if ws.Spec.DeletionPolicy == v1.DeletionDelete && ws.Status.Claim > 0 {
		limited, cancel := context.WithTimeout(ctx, burial)
		defer cancel()
		if err := r.Store.Bury(limited, ws.Namespace, ws.Name, ws.Status.Claim); err != nil {
			return fmt.Errorf("mark its backups for removal: %w; set spec.deletionPolicy to Retain to let the object go and keep them", err)
		}
		faults.Point("fleet.buried")
	}
	kind := corev1.EventTypeWarning
	if ws.Status.NodeName == "" || responsible(&ws) != ws.Status.NodeName {
		kind = corev1.EventTypeNormal // nobody held anything
	}
	if err := r.tell(ctx, &ws, kind, farewell(&ws)); err != nil {
		return err
	}
	faults.Point("fleet.told")
	changed := ws.DeepCopy()
	controllerutil.RemoveFinalizer(changed, v1.FinalizerContent)
	patch := client.MergeFromWithOptions(&ws, client.MergeFromWithOptimisticLock{})
	if err := r.Patch(ctx, changed, patch, client.FieldOwner(v1.FieldOwnerFleet)); err != nil {
		return client.IgnoreNotFound(err)
	}
	log.FromContext(ctx).Info("let a workspace go whose node is gone", "node", responsible(&ws))
	faults.Point("fleet.released")
	return nil
}

// earlyError says that the daemon of a node that is gone has been heard of: its Node was deleted, and it lives. Maybe it is at work.
type earlyError struct{ left time.Duration }

func (e *earlyError) Error() string { return "the daemon of the node was heard of lately" }

// tell writes the event itself, under a name that tells whether it was written: what a recorder has queued is lost with its process, and this one
// is the last that is heard of the object.
func (f *Fleet) tell(ctx context.Context, o client.Object, kind, message string) error {
	const longestNote = 1024
	gvk, err := f.GroupVersionKindFor(o)
	if err != nil {
		return err
	}
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: fmt.Sprintf("%s.%s", o.GetName(), o.GetUID())},
		EventTime:  metav1.NewMicroTime(f.Clock.Now()), Type: kind, Reason: v1.EventNodeGone, Action: "Release",
		ReportingController: v1.FieldOwnerFleet, ReportingInstance: v1.FieldOwnerFleet, Note: message[:min(len(message), longestNote)],
		Regarding: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
			ResourceVersion: o.GetResourceVersion(),
		},
	}
	if err := f.Create(ctx, event); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("tell why it is let go: %w", err)
	}
	return nil
}
