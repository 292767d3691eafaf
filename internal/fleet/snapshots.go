package fleet

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// snapshots gives nodes to snapshots that name none, and says which ones wait for a node that is gone or not ready.
type snapshots struct{ *Fleet }

func (r *snapshots) setup(mgr ctrl.Manager, o controller.Options) error {
	ofNode := handler.EnqueueRequestsFromMapFunc(r.ofNode)
	return ctrl.NewControllerManagedBy(mgr).
		Named("fleet-snapshot").
		For(&v1.Snapshot{}).
		Watches(&corev1.Node{}, ofNode, builder.WithPredicates(turns(up))).
		Watches(&v1.WorkspaceNode{}, ofNode, builder.WithPredicates(turns(serves))).
		WithOptions(o).
		Complete(r)
}

// turns passes over whatever happens to an object but that it comes, goes, or that what is asked of it has another answer.
func turns[T client.Object](ask func(T) bool) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(T)
		after, also := e.ObjectNew.(T)
		return ok && also && ask(before) != ask(after)
	}}
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
	if !deleting && apimeta.IsStatusConditionTrue(s.Status.Conditions, v1.ConditionReady) {
		return 0, r.say(ctx, s, s.Status.Conditions, verdict{}) // nobody has to do anything for it
	}
	has, err := r.presence(ctx, s.Spec.NodeName)
	if err != nil {
		return 0, err
	}
	if has == nodeUnnamed || deleting && has == nodeAbsent || has != nodeReady && given(s) {
		node, err := r.choose(ctx, s)
		if err != nil {
			return 0, err
		}
		if node != "" && node != s.Spec.NodeName {
			return 0, r.assign(ctx, s, node)
		}
	}
	v := decideSnapshot(s, has, r.Clock.Now())
	return v.after, r.say(ctx, s, s.Status.Conditions, v)
}

// presence finds out how the node stands that a snapshot names.
func (r *snapshots) presence(ctx context.Context, name string) (presence, error) {
	if name == "" {
		return nodeUnnamed, nil
	}
	node, err := r.node(ctx, name)
	switch {
	case err != nil:
		return 0, err
	case node == nil:
		return nodeAbsent, nil
	case !up(node):
		return nodeSilent, nil
	default:
		return nodeReady, nil
	}
}

// given says whether the node of a snapshot is this controller's choice, which it may change: another one's it may not. The API server
// records who has set a field.
func given(s *v1.Snapshot) bool {
	for _, m := range s.ManagedFields {
		var set struct {
			Spec map[string]any `json:"f:spec"`
		}
		if m.Manager != v1.FieldOwnerFleet || json.Unmarshal(m.FieldsV1.GetRawBytes(), &set) != nil {
			continue
		}
		if _, ok := set.Spec["f:nodeName"]; ok {
			return true
		}
	}
	return false
}

// assign names the node that is to make a snapshot, or to remove it: what is stored of it any node can remove.
func (r *snapshots) assign(ctx context.Context, s *v1.Snapshot, node string) error {
	changed := s.DeepCopy()
	changed.Spec.NodeName = node
	patch := client.MergeFromWithOptions(s, client.MergeFromWithOptimisticLock{})
	if err := r.Patch(ctx, changed, patch, client.FieldOwner(v1.FieldOwnerFleet)); err != nil {
		return err
	}
	log.FromContext(ctx).Info("gave a snapshot to a node", "node", node, "before", s.Spec.NodeName)
	return nil
}

// choose returns the node that is responsible for the workspace, if that is ready, or holds what is to be kept; else any that serves
// workspaces: it keeps the newest backup. It is "" if there is none.
func (r *snapshots) choose(ctx context.Context, s *v1.Snapshot) (string, error) {
	var ws v1.Workspace
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Spec.WorkspaceName}, &ws)
	if client.IgnoreNotFound(err) != nil {
		return "", err
	}
	if node := responsible(&ws); err == nil && node != "" {
		has, err := r.presence(ctx, node)
		if err != nil || has == nodeReady {
			return node, err
		}
		// What is newest is there, should the node come back, and it may be making the snapshot: people are told.
		if ws.Status.NodeName == node && (s.DeletionTimestamp.IsZero() || has == nodeSilent) {
			return node, nil
		}
	}
	names, err := r.serving(ctx)
	if err != nil || len(names) == 0 {
		return "", err
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(s.UID)) // it never fails
	return names[int(sum.Sum32()>>1)%len(names)], nil
}

// serving returns the names of the nodes that are ready and whose daemons serve workspaces, in order.
func (r *snapshots) serving(ctx context.Context) ([]string, error) {
	var reports v1.WorkspaceNodeList
	if err := r.List(ctx, &reports); err != nil {
		return nil, err
	}
	var names []string
	for i := range reports.Items {
		if !serves(&reports.Items[i]) {
			continue
		}
		node, err := r.node(ctx, reports.Items[i].Name)
		if err != nil {
			return nil, err
		}
		if up(node) {
			names = append(names, node.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// serves says whether the daemon of a node has last said that it serves workspaces.
func serves(report *v1.WorkspaceNode) bool {
	return apimeta.IsStatusConditionTrue(report.Status.Conditions, v1.ConditionReady)
}
