package fleet

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
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
)

// snapshots gives nodes to snapshots that name none, and says which ones wait for a node that is gone.
type snapshots struct{ *Fleet }

func (r *snapshots) setup(mgr ctrl.Manager, o controller.Options) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("fleet-snapshot").
		For(&v1.Snapshot{}).
		WatchesMetadata(nodeMeta(), handler.EnqueueRequestsFromMapFunc(r.ofNode), builder.WithPredicates(comesAndGoes())).
		WithOptions(o).
		Complete(r)
}

// ofNode are the snapshots that a node makes, and those that wait for one.
func (r *snapshots) ofNode(ctx context.Context, node client.Object) []reconcile.Request {
	var all v1.SnapshotList
	if err := r.List(ctx, &all); err != nil {
		log.FromContext(ctx).Error(err, "snapshots are not told of a node that came or went; they are looked at in some minutes")
		return nil
	}
	var requests []reconcile.Request
	for i := range all.Items {
		if name := all.Items[i].Spec.NodeName; name == node.GetName() || name == "" {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
		}
	}
	return requests
}

// Reconcile makes one pass over a snapshot.
func (r *snapshots) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var s v1.Snapshot
	if err := r.Get(ctx, req.NamespacedName, &s); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	after, err := r.pass(ctx, &s)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

func (r *snapshots) pass(ctx context.Context, s *v1.Snapshot) (time.Duration, error) {
	deleting := !s.DeletionTimestamp.IsZero()
	if deleting && !controllerutil.ContainsFinalizer(s, v1.FinalizerContent) {
		return 0, nil
	}
	present := false
	if s.Spec.NodeName != "" {
		node, err := r.node(ctx, s.Spec.NodeName)
		if err != nil {
			return 0, err
		}
		present = node != nil
	}
	if s.Spec.NodeName == "" || deleting && !present {
		return r.assign(ctx, s)
	}
	ready := apimeta.IsStatusConditionTrue(s.Status.Conditions, v1.ConditionReady)
	v := decideSnapshot(s, ready, present, r.Clock.Now())
	return v.after, r.say(ctx, s, s.Status.Conditions, v)
}

// assign names the node that is to make a snapshot, or to remove it: what is stored of it any node can remove.
func (r *snapshots) assign(ctx context.Context, s *v1.Snapshot) (time.Duration, error) {
	node, err := r.choose(ctx, s)
	if err != nil || node == "" {
		return lookAgain / 10, err
	}
	changed := s.DeepCopy()
	changed.Spec.NodeName = node
	patch := client.MergeFromWithOptions(s, client.MergeFromWithOptimisticLock{})
	if err := r.Patch(ctx, changed, patch, client.FieldOwner(v1.FieldOwnerFleet)); err != nil {
		return 0, err
	}
	log.FromContext(ctx).Info("gave a snapshot to a node", "node", node)
	return 0, nil
}

// choose returns the node that is responsible for the workspace, if that is there; else any that serves workspaces: it keeps the newest backup.
// It is "" if there is none.
func (r *snapshots) choose(ctx context.Context, s *v1.Snapshot) (string, error) {
	var ws v1.Workspace
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Spec.WorkspaceName}, &ws)
	if client.IgnoreNotFound(err) != nil {
		return "", err
	}
	if node := responsible(&ws); err == nil && node != "" {
		found, err := r.node(ctx, node)
		if err != nil || found != nil {
			return node, err
		}
		if ws.Status.NodeName == node && s.DeletionTimestamp.IsZero() {
			return node, nil // what is newest is there, should it come back; people are told
		}
	}
	var reports v1.WorkspaceNodeList
	if err := r.List(ctx, &reports); err != nil {
		return "", err
	}
	for _, name := range serving(reports.Items) {
		found, err := r.node(ctx, name)
		if err != nil || found != nil {
			return name, err
		}
	}
	return "", nil
}

// serving returns the names of nodes whose daemons serve workspaces, in order.
func serving(reports []v1.WorkspaceNode) []string {
	var names []string
	for i := range reports {
		if apimeta.IsStatusConditionPresentAndEqual(reports[i].Status.Conditions, v1.ConditionReady, metav1.ConditionTrue) {
			names = append(names, reports[i].Name)
		}
	}
	slices.Sort(names)
	return names
}
