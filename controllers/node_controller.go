package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=workspace.wsdaemon.dev,resources=workspacenodes,verbs=get;create
// +kubebuilder:rbac:groups=workspace.wsdaemon.dev,resources=workspacenodes/status,verbs=patch

const (
	// nodeInterval is how often the state of the node is looked at.
	nodeInterval = 30 * time.Second
	// spareShare is the part of the disk that is never offered: one in this many.
	spareShare = 20
)

// NodeReconciler reports this node as a home of workspaces, and notices when it is cordoned.
type NodeReconciler struct {
	// Workspaces are told of a cordon, and own what is reported.
	Workspaces *WorkspaceReconciler
	// Conditions returns what else the daemon says of its node; nil for nothing.
	Conditions func() []NodeCondition
}

// cordon remembers since when this node takes no new pods. Workspaces without pods are backed up at once then.
type cordon struct {
	mu    sync.Mutex
	since time.Time
}

// set records whether the node is cordoned, and says whether that is news.
func (c *cordon) set(cordoned bool, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cordoned == !c.since.IsZero() {
		return false
	}
	c.since = time.Time{}
	if cordoned {
		c.since = now
	}
	return true
}

// get returns since when the node is cordoned; the zero time if it is not.
func (c *cordon) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since
}

// SetupWithManager registers the reconciler: for its Node, for ended jobs, and for a first pass where there is no Node.
func (r *NodeReconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.Workspaces.Changed <- event.TypedGenericEvent[types.NamespacedName]{Object: types.NamespacedName{Name: r.Workspaces.Node}}
	byName := handler.TypedFuncs[types.NamespacedName, reconcile.Request]{GenericFunc: enqueueName}
	return ctrl.NewControllerManagedBy(mgr).
		Named("node").
		For(&corev1.Node{}).
		WatchesRawSource(source.TypedChannel(r.Workspaces.Changed, byName)).
		WithOptions(controllerOptions(1)).
		Complete(r)
}

// Reconcile looks at the node and reports what changed.
func (r *NodeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	w := r.Workspaces
	if req.Name != w.Node {
		return ctrl.Result{}, nil
	}
	w.settings.RLock()
	defer w.settings.RUnlock()
	var node corev1.Node
	if err := client.IgnoreNotFound(w.Get(ctx, req.NamespacedName, &node)); err != nil {
		return ctrl.Result{}, err
	}
	entries := w.Keeper.Area.Journal().List()
	if w.cordon.set(node.Spec.Unschedulable, w.Clock.Now()) && node.Spec.Unschedulable {
		r.wake(ctx, entries)
	}
	report, err := r.report(ctx, &node)
	if err != nil {
		return ctrl.Result{}, err
	}
	status := report.Status.DeepCopy()
	if err := r.describe(ctx, status, entries); err != nil {
		return ctrl.Result{}, err
	}
	if !equality.Semantic.DeepEqual(status, &report.Status) {
		err = w.applyStatus(ctx, report, status)
	}
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: nodeInterval}, nil
}

// wake has every workspace of a cordoned node looked at: those without pods are backed up at once.
func (r *NodeReconciler) wake(ctx context.Context, entries []state.Entry) {
	for _, e := range entries {
		select {
		case <-ctx.Done():
			return
		case r.Workspaces.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: types.NamespacedName{Namespace: e.Namespace, Name: e.Name}}:
		}
	}
}

// report returns the object that reports this node, making it if there is none. It goes with its Node.
func (r *NodeReconciler) report(ctx context.Context, node *corev1.Node) (*v1.WorkspaceNode, error) {
	w := r.Workspaces
	report := &v1.WorkspaceNode{}
	err := w.Reader.Get(ctx, types.NamespacedName{Name: w.Node}, report)
	if !apierrors.IsNotFound(err) {
		return report, err
	}
	report.Name = w.Node
	if node.UID != "" {
		report.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	}
	if err := w.Create(ctx, report, client.FieldOwner(v1.FieldOwner)); err != nil {
		return nil, fmt.Errorf("make the WorkspaceNode of this node: %w", err)
	}
	return report, nil
}

func (r *NodeReconciler) describe(ctx context.Context, status *v1.WorkspaceNodeStatus, entries []state.Entry) error {
	w := r.Workspaces
	now := w.Clock.Now()
	r.sayOthers(status, now)
	ready := foundOK(v1.ReasonRunning, "the daemon serves this node")
	id, err := w.Keeper.Area.Identity()
	if err == nil {
		err = w.Keeper.Area.Check()
	}
	if err != nil {
		ready = found(v1.ReasonAreaMissing, "%v", err)
	}
	setCondition(&status.Conditions, v1.ConditionReady, ready, 0, now)
	if !ready.ok { // what lies on the node cannot be told: that is no evidence of nothing
		setCondition(&status.Conditions, v1.ConditionSafeToRemove, ready, 0, now)
		return nil
	}
	status.AreaID = id.ID
	safe, err := r.safeToRemove(ctx, entries)
	if err != nil {
		return err
	}
	setCondition(&status.Conditions, v1.ConditionSafeToRemove, safe, 0, now)
	status.Classes = r.classes(ctx, status.Classes, entries)
	return nil
}

// safeToRemove says whether the node may go: no content on it is newer than its backup, and nobody can change any.
func (r *NodeReconciler) safeToRemove(ctx context.Context, entries []state.Entry) (*finding, error) {
	if unsafe, err := r.unaccounted(ctx, entries); unsafe != nil || err != nil {
		return unsafe, err
	}
	for _, e := range entries {
		if unsafe, err := r.unsaved(ctx, e); unsafe != nil || err != nil {
			return unsafe, err
		}
	}
	return foundOK(v1.ReasonUpToDate, "every content on the node is backed up or released"), nil
}

// unaccounted finds what the journal does not know: workspaces that say they are here, and volumes that nobody owns.
func (r *NodeReconciler) unaccounted(ctx context.Context, entries []state.Entry) (*finding, error) {
	known := map[string]bool{}
	for _, e := range entries {
		known[e.UID] = true
	}
	var all v1.WorkspaceList
	if err := r.Workspaces.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list the workspaces of this node: %w", err)
	}
	for i := range all.Items {
		ws := &all.Items[i]
		if ws.Status.NodeName == r.Workspaces.Node && !known[string(ws.UID)] {
			return found(v1.ReasonContentLost, "workspace %s/%s is held by this node, and nothing of it was found on its disk", ws.Namespace, ws.Name), nil
		}
	}
	volumes := r.Workspaces.Keeper.Volumes
	for _, class := range slices.Sorted(maps.Keys(volumes)) {
		present, err := volumes[class].List(ctx)
		if err != nil {
			return found(classify(err, v1.ReasonContentLost).reason, "volume class %s: %s", class, clip(err.Error())), nil
		}
		for _, v := range present {
			if _, made := r.Workspaces.Keeper.Area.Journal().Get(v.ID); !known[v.ID] && !made {
				return found(v1.ReasonForeignContent, "volume %s belongs to no workspace that is known: look at it and move it away", v.Dir), nil
			}
		}
	}
	return nil, nil
}

// unsaved says why content must stay on the node; nil if it need not.
func (r *NodeReconciler) unsaved(ctx context.Context, e state.Entry) (*finding, error) {
	subject, since := subjectOf(e), r.Workspaces.cordon.get()
	seen, err := r.Workspaces.Keeper.Observe(ctx, subject)
	if err != nil {
		return found(classify(err, v1.ReasonContentLost).reason, "workspace %s: %s", subject, clip(err.Error())), nil
	}
	if seen.Marker.Released != "" {
		return found(v1.ReasonRemoving, "the volume of workspace %s is released and not removed yet", subject), nil
	}
	if since.IsZero() {
		return found(v1.ReasonInUse, "the node holds workspaces and is not cordoned"), nil
	}
	pods, err := r.Workspaces.pods(ctx, r.Workspaces.Client, subject)
	if err != nil {
		return nil, err
	}
	unused := r.Workspaces.memory.unusedSince(e.UID, len(pods) > 0, r.Workspaces.Clock.Now())
	if len(pods) > 0 {
		return found(v1.ReasonWaitingForPods, "workspace %s is used by pods %s", subject, list(pods)), nil
	}
	if !e.Backup.Complete || e.Backup.CheckedAt.Before(latest(since, unused)) {
		return found(v1.ReasonBackingUp, "workspace %s has not been backed up since the node was cordoned and its pods ended", subject), nil
	}
	return nil, nil
}

// classes reports the space of each volume class. Small changes of what is free are not worth a write.
func (r *NodeReconciler) classes(ctx context.Context, before []v1.ClassCapacity, entries []state.Entry) []v1.ClassCapacity {
	volumes := r.Workspaces.Keeper.Volumes
	out := make([]v1.ClassCapacity, 0, len(volumes))
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		driver := volumes[name]
		capacity, err := r.Workspaces.Keeper.Capacity(ctx, name)
		if err != nil {
			log.FromContext(ctx).Error(err, "a volume class cannot be measured, and is not offered", "class", name)
			continue
		}
		c := v1.ClassCapacity{
			Name: name, Driver: driver.Name(), Size: quantity(capacity.Size), Allocated: quantity(capacity.Allocated),
			Free: quantity(max(0, capacity.Free-capacity.Size/spareShare)), Volumes: volumesOf(name, entries),
		}
		out = append(out, settled(before, c))
	}
	return out
}

// quantity rounds down to whole MiB: more precision would only make more writes.
func quantity(n int64) *resource.Quantity { return resource.NewQuantity(n>>20<<20, resource.BinarySI) }

func volumesOf(class string, entries []state.Entry) int32 {
	n := int32(0)
	for _, e := range entries {
		if e.Class == class {
			n++
		}
	}
	return n
}

// settled returns what was reported before if nothing but a little free space has changed.
func settled(before []v1.ClassCapacity, now v1.ClassCapacity) v1.ClassCapacity {
	for _, b := range before {
		if b.Name != now.Name || b.Free == nil || b.Volumes != now.Volumes || !equality.Semantic.DeepEqual(b.Size, now.Size) {
			continue
		}
		change := b.Free.Value() - now.Free.Value()
		if max(change, -change) <= now.Size.Value()/100 {
			now.Free = b.Free
		}
	}
	return now
}
