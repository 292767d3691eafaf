package controllers

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
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
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/state"
)

const (
	// nodeInterval is how often the state of the node is looked at, and nodePause the shortest time between two looks: on a busy
	// node a job ends every second.
	nodeInterval = 30 * time.Second
	nodePause    = 5 * time.Second
	// reportTimeout is how long the API server may take to answer what the look at the disks waits for.
	reportTimeout = 10 * time.Second
)

// NodeReconciler reports this node as a home of workspaces, guards its disks, and notices when it is cordoned. It makes one pass at
// a time.
type NodeReconciler struct {
	// Workspaces are told of a cordon, and own what is reported.
	Workspaces *WorkspaceReconciler
	// Conditions returns what else the daemon says of its node; nil for nothing.
	Conditions func() []NodeCondition

	pause     time.Duration // between two passes; nodePause if it is zero
	looked    time.Time     // when the last pass began
	published time.Time     // when the report was last written
	known     *v1.WorkspaceNode
	read      time.Time // when known was read; it is nil after anybody is known to have written
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

// Reconcile looks at the node and its disks, and reports what changed. The disks are looked at also while the API server is away:
// what backups need room for must not wait for it.
func (r *NodeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	w, now := r.Workspaces, r.Workspaces.Clock.Now()
	if req.Name != w.Node {
		return ctrl.Result{}, nil
	}
	w.settings.RLock()
	defer w.settings.RUnlock()
	if early := r.early(r.looked, cmp.Or(r.pause, nodePause)); early > 0 {
		return ctrl.Result{RequeueAfter: early}, nil
	}
	r.looked = now
	var node corev1.Node
	if err := client.IgnoreNotFound(w.Get(ctx, req.NamespacedName, &node)); err != nil {
		return ctrl.Result{}, err
	}
	entries := w.Keeper.Area.Journal().List()
	if w.cordon.set(node.Spec.Unschedulable, now) && node.Spec.Unschedulable {
		r.wake(ctx, namesOf(entries))
	}
	report, unread := r.report(ctx, &node)
	d := r.look(ctx, report, unread == nil, now)
	if unread != nil {
		return r.failed(unread)
	}
	later, err := r.publish(ctx, &node, report, entries, d)
	if err != nil {
		return r.failed(err)
	}
	return ctrl.Result{RequeueAfter: later}, nil
}

// early returns how long it is until so much time has passed since a moment, 0 if it has. A clock that went back does not count.
func (r *NodeReconciler) early(since time.Time, pause time.Duration) time.Duration {
	if wait := since.Add(pause).Sub(r.Workspaces.Clock.Now()); wait <= pause {
		return max(0, wait)
	}
	return 0
}

// failed ends a pass. That somebody else wrote is no failure.
func (r *NodeReconciler) failed(err error) (ctrl.Result, error) {
	r.known = nil
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	return ctrl.Result{}, err
}

// look measures the disks, has caches go where there is too little room, and tells those who wait when there is enough again. As
// long as nobody knows what the disks were short of before, nobody is told anything.
func (r *NodeReconciler) look(ctx context.Context, report *v1.WorkspaceNode, readable bool, now time.Time) disks {
	w := r.Workspaces
	before, known := w.guard.last()
	if !known {
		before = remembered(&report.Status)
	}
	d := measure(ctx, w.Keeper, before, w.Settings.Node.Pressure)
	r.evict(ctx, d, now)
	if (known || readable) && w.guard.set(d) {
		r.wake(ctx, append(r.waiting(ctx), namesOf(w.Keeper.Area.Journal().List())...))
	}
	return d
}

// waiting returns the workspaces that shall be on this node and are not yet.
func (r *NodeReconciler) waiting(ctx context.Context) []types.NamespacedName {
	var all v1.WorkspaceList
	if err := r.Workspaces.List(ctx, &all); err != nil {
		log.FromContext(ctx).Error(err, "workspaces that wait for room are not told that there is some; they look by themselves")
	}
	var names []types.NamespacedName
	for i := range all.Items {
		if ws := &all.Items[i]; ws.Status.NodeName != r.Workspaces.Node {
			names = append(names, client.ObjectKeyFromObject(ws))
		}
	}
	return names
}

func namesOf(entries []state.Entry) []types.NamespacedName {
	names := make([]types.NamespacedName, 0, len(entries))
	for _, e := range entries {
		names = append(names, types.NamespacedName{Namespace: e.Namespace, Name: e.Name})
	}
	return names
}

// wake has workspaces looked at.
func (r *NodeReconciler) wake(ctx context.Context, names []types.NamespacedName) {
	for _, name := range names {
		select {
		case <-ctx.Done():
			return
		case r.Workspaces.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: name}:
		}
	}
}

// report returns the object that reports this node, making it if there is none. It goes with its Node.
func (r *NodeReconciler) report(ctx context.Context, node *corev1.Node) (*v1.WorkspaceNode, error) {
	w, owners := r.Workspaces, ownedBy(node)
	if r.known != nil && r.early(r.read, 6*cmp.Or(r.pause, nodePause)) > 0 {
		err := r.own(ctx, r.known, owners)
		return r.known.DeepCopy(), err
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	report := &v1.WorkspaceNode{}
	err := w.Reader.Get(ctx, types.NamespacedName{Name: w.Node}, report)
	switch {
	case apierrors.IsNotFound(err):
		report.Name, report.OwnerReferences = w.Node, owners
		if err = w.Create(ctx, report, client.FieldOwner(v1.FieldOwner)); err != nil {
			err = fmt.Errorf("make the WorkspaceNode of this node: %w", err)
		}
	case err != nil:
		err = fmt.Errorf("read the WorkspaceNode of this node: %w", err)
	default:
		err = r.own(ctx, report, owners)
	}
	if err == nil {
		r.known, r.read = report.DeepCopy(), w.Clock.Now()
	}
	return report, err
}

// own gives the report to its Node: it was made before the Node was, or the Node was made anew.
func (r *NodeReconciler) own(ctx context.Context, report *v1.WorkspaceNode, owners []metav1.OwnerReference) error {
	if len(owners) == 0 || equality.Semantic.DeepEqual(report.OwnerReferences, owners) {
		return nil
	}
	patch := client.MergeFromWithOptions(report.DeepCopy(), client.MergeFromWithOptimisticLock{})
	report.OwnerReferences = owners
	return r.Workspaces.Patch(ctx, report, patch, client.FieldOwner(v1.FieldOwner))
}

func ownedBy(node *corev1.Node) []metav1.OwnerReference {
	if node.UID == "" {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
}

// publish marks the Node and writes the report, and returns when to look again.
func (r *NodeReconciler) publish(
	ctx context.Context, node *corev1.Node, report *v1.WorkspaceNode, entries []state.Entry, d disks,
) (time.Duration, error) {
	w := r.Workspaces
	f, err := r.find(ctx, report, entries, d)
	if err != nil {
		return 0, err
	}
	problem, markErr := r.mark(ctx, node, marks{
		taint: f.pressure.ok && w.Settings.Node.TaintUnderPressure, protect: !f.safe.ok && w.Settings.Node.ProtectFromScaleDown,
	})
	if problem != "" {
		f.safe.message = clip(f.safe.message + "; " + problem)
	}
	status := report.Status.DeepCopy()
	r.describe(status, f, entries, d)
	w.guard.report(f)
	if equality.Semantic.DeepEqual(status, &report.Status) {
		return nodeInterval, markErr
	}
	if early := r.early(r.published, figuresInterval); early > 0 && !urgent(&report.Status, status) {
		return early, markErr
	}
	if err := w.applyStatus(ctx, report, status); err != nil {
		return 0, err
	}
	r.published, r.known = w.Clock.Now(), nil
	r.tell(&report.Status, status)
	return nodeInterval, markErr
}

// findings are what there is to say about the node.
type findings struct {
	ready, pressure, safe *finding
	stalled               *finding // nil if nobody has to do anything
}

// find looks at everything that the conditions of the node are about.
func (r *NodeReconciler) find(ctx context.Context, report *v1.WorkspaceNode, entries []state.Entry, d disks) (f findings, err error) {
	w := r.Workspaces
	f.ready = foundOK(v1.ReasonRunning, "the daemon serves this node")
	if unusable := decideUsable(d); unusable != nil {
		f.ready = unusable
	}
	f.pressure = decideDiskPressure(d, w.Settings.Node.Pressure)
	if d.area.err != nil { // what lies on the node cannot be told: that is no evidence of nothing
		f.ready = found(classify(d.area.err, v1.ReasonAreaMissing).reason, "%s", clip(d.area.err.Error()))
		f.safe = f.ready
		return f, nil //nolint:nilerr // it is what is reported
	}
	if w.orphans.consent(report.Annotations[v1.AnnotationRemoveOrphans], w.Clock.Now()) {
		r.wake(ctx, namesOf(entries))
	}
	f.stalled = w.orphans.alarm(entries, w.Clock.Now(), w.Settings.OrphanGrace, w.Node)
	f.safe, err = r.safeToRemove(ctx, entries, d)
	return f, err
}

// sandboxed says whether hostile content is read behind all walls that there could be.
func sandboxed(s *sandbox.Sandbox) *finding {
	if len(s.Missing()) == 0 {
		return foundOK(v1.ReasonProtected, "hostile content is read with all protections")
	}
	return found(v1.ReasonProtectionsMissing, "%s", clip("hostile content is read without "+s.Explain()))
}

// describe takes what was found into the status.
func (r *NodeReconciler) describe(status *v1.WorkspaceNodeStatus, f findings, entries []state.Entry, d disks) {
	now := r.Workspaces.Clock.Now()
	r.sayOthers(status, now)
	setCondition(&status.Conditions, v1.ConditionReady, f.ready, 0, now)
	setCondition(&status.Conditions, v1.ConditionDiskPressure, f.pressure, 0, now)
	setCondition(&status.Conditions, v1.ConditionSafeToRemove, f.safe, 0, now)
	setCondition(&status.Conditions, v1.ConditionSandboxed, sandboxed(r.Workspaces.Keeper.Git.Sandbox), 0, now)
	switch {
	case d.area.err != nil: // it cannot be told
	case f.stalled == nil:
		apimeta.RemoveStatusCondition(&status.Conditions, v1.ConditionStalled)
	default:
		setCondition(&status.Conditions, v1.ConditionStalled, &finding{true, f.stalled.reason, f.stalled.message}, 0, now)
	}
	if id, err := r.Workspaces.Keeper.Area.Identity(); err == nil && d.area.err == nil {
		status.AreaID = id.ID
	}
	r.figures(status, d, entries)
}
