package controllers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// WorkspaceReconciler brings the workspaces of one node to the state that their objects ask for.
type WorkspaceReconciler struct {
	// Client reads from the cache, which holds this node's objects only.
	client.Client
	// Reader reads from the API server. Nothing is destroyed by what the cache says.
	Reader   client.Reader
	Recorder events.EventRecorder
	Keeper   *content.Keeper
	Jobs     *jobs.Manager
	Clock    clock.PassiveClock
	// Waits knows who waits for the store; nil: nobody can tell.
	Waits *store.Waits
	// Node is the name of this node.
	Node string
	// Settings change by Reconfigure once passes are made.
	Settings Settings

	// Wake reconciles the workspaces it receives: of jobs that ended, and of everything that lay on the node at the start.
	Wake chan event.TypedGenericEvent[types.NamespacedName]

	// WentBack gets a message when the API server turns out to have been restored from an older copy. A watch never corrects
	// what the cache holds then; only a new start does.
	WentBack chan struct{}
	// Changed wakes the reconciler of the node: what lies on it may have changed.
	Changed chan event.TypedGenericEvent[types.NamespacedName]

	settings sync.RWMutex // held by passes while they read Settings

	memory    memory
	wishes    wishes
	orphans   orphanage
	cordon    cordon
	guard     guard
	evictions evictions
}

// SetupWithManager registers the reconciler: for its objects, for pods that use them, and for ended jobs.
func (r *WorkspaceReconciler) SetupWithManager(mgr ctrl.Manager) error {
	byName := handler.TypedFuncs[types.NamespacedName, reconcile.Request]{GenericFunc: enqueueName}
	return ctrl.NewControllerManagedBy(mgr).
		Named("workspace").
		For(&v1.Workspace{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(workspaceOfPod)).
		WatchesRawSource(source.TypedChannel(r.Wake, byName)).
		WithOptions(controllerOptions(4)).
		Complete(r)
}

// controllerOptions gives every pass a deadline, and short pauses after failures: while the API server is away, backups of
// what the node holds go on by these passes.
func controllerOptions(workers int) controller.Options {
	const first, longest = 50 * time.Millisecond, 15 * time.Second
	return controller.Options{
		MaxConcurrentReconciles: workers, ReconciliationTimeout: time.Minute,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, longest),
	}
}

// JobEnded wakes the workspace of a job that ended or got on. After a removal nothing may be left that would ask for the
// result.
func (r *WorkspaceReconciler) JobEnded(key jobs.Key) {
	_, exists := r.Keeper.Area.Journal().Get(key.UID)
	if !exists && strings.HasPrefix(key.Op, string(v1.OperationRemove)) {
		r.Jobs.ForgetUID(key.UID)
	}
	if phase := r.Jobs.State(key).Phase; phase == jobs.Done || phase == jobs.None {
		r.LookAtNode()
	}
	if name, ok := r.memory.nameOf(key.UID); ok {
		r.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: name}
	}
}

// LookAtNode has the node reported anew.
func (r *WorkspaceReconciler) LookAtNode() {
	select {
	case r.Changed <- event.TypedGenericEvent[types.NamespacedName]{Object: types.NamespacedName{Name: r.Node}}:
	default: // it is going to be looked at
	}
}

// Reconcile makes one pass over a workspace.
func (r *WorkspaceReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.settings.RLock()
	defer r.settings.RUnlock()
	var ws v1.Workspace
	if err := r.Get(ctx, req.NamespacedName, &ws); err != nil {
		if !apierrors.IsNotFound(err) {
			return ctrl.Result{}, err
		}
		r.forgetGone(req.NamespacedName)
		return r.reconcileDeparted(ctx, req.NamespacedName, "")
	}
	apimeta.RemoveStatusCondition(&ws.Status.Conditions, v1.ConditionNodeGone) // the cluster controller's, which is none of ours to write
	if r.memory.stale(&ws) {
		return ctrl.Result{}, nil // our last write is on its way to the cache and will wake us
	}
	r.memory.name(string(ws.UID), req.NamespacedName)
	s := r.newScope(&ws)
	r.passOthers(ctx, s)
	err := r.pass(ctx, s)
	if err == nil {
		err = r.finish(ctx, s)
	}
	if apierrors.IsConflict(err) {
		// look again; that somebody else wrote is no failure
		r.checkRevision(ctx, &ws)
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: s.requeue}, nil
}

// forgetGone drops what is remembered of objects of a name of which nothing lies on this node any more.
func (r *WorkspaceReconciler) forgetGone(name types.NamespacedName) {
	if len(r.Keeper.Area.Journal().Find(name.Namespace, name.Name)) > 0 {
		return
	}
	for _, uid := range r.memory.named(name) {
		r.memory.forget(uid)
		r.Jobs.ForgetUID(string(uid))
	}
}

// checkRevision finds out whether the API server has an older version of an object than the cache: then it was restored from
// a copy.
func (r *WorkspaceReconciler) checkRevision(ctx context.Context, cached *v1.Workspace) {
	var ws v1.Workspace
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(cached), &ws); err != nil {
		return // it is asked again after the next conflict
	}
	order, err := resourceversion.CompareResourceVersion(ws.ResourceVersion, cached.ResourceVersion)
	if err == nil && order < 0 {
		select {
		case r.WentBack <- struct{}{}:
		default: // it is known
		}
	}
}

// passOthers looks after volumes of earlier objects of the same name. They never keep the present one waiting.
func (r *WorkspaceReconciler) passOthers(ctx context.Context, s *scope) {
	result, err := r.reconcileDeparted(ctx, client.ObjectKeyFromObject(s.ws), s.ws.UID)
	if err != nil {
		log.FromContext(ctx).Error(err, "the volume of an earlier workspace of this name was not looked after")
		s.after(departedInterval)
	}
	if result.RequeueAfter > 0 {
		s.after(result.RequeueAfter)
	}
}

// pass runs the steps in order until one of them ends the pass.
func (r *WorkspaceReconciler) pass(ctx context.Context, s *scope) error {
	steps := []func(context.Context, *scope) (bool, error){
		r.stepPaused,
		r.stepArea,
		r.stepObserve,
		r.stepSpec,
		r.stepTeardown,
		r.stepRoom,
		r.stepClaim,
		r.stepFinalizer,
		r.stepVolume,
		r.stepContent,
		r.stepUsage,
		r.stepBackup,
	}
	for _, step := range steps {
		if done, err := step(ctx, s); done || err != nil {
			return err
		}
	}
	return nil
}

func (r *WorkspaceReconciler) newScope(ws *v1.Workspace) *scope {
	return &scope{
		ws: ws, status: ws.Status.DeepCopy(), now: r.Clock.Now(),
		limitable: r.Settings.Classes[ws.Spec.Volume.Class].CanLimit(), interval: r.Settings.BackupInterval,
	}
}

// stepPaused ends the pass while a person wants no work done.
func (r *WorkspaceReconciler) stepPaused(_ context.Context, s *scope) (bool, error) {
	if _, paused := s.ws.Annotations[v1.AnnotationPaused]; !paused {
		return false, nil
	}
	s.ready = found(v1.ReasonPaused, "nothing is done while the annotation %s is present", v1.AnnotationPaused)
	return true, nil
}

// stepArea ends the pass if the working area is not the one that the daemon started with.
func (r *WorkspaceReconciler) stepArea(ctx context.Context, s *scope) (bool, error) {
	id, err := r.Keeper.Area.Identity()
	if err == nil {
		err = r.Keeper.CheckArea(ctx)
	}
	if err != nil {
		s.volume = found(classify(err, v1.ReasonAreaMissing).reason, "%v", err)
		s.stalled = s.volume
		s.after(10 * time.Second)
		return true, nil
	}
	s.area = id.ID
	return false, nil
}

// stepObserve looks at what lies on the node.
func (r *WorkspaceReconciler) stepObserve(ctx context.Context, s *scope) (bool, error) {
	seen, err := r.Keeper.Observe(ctx, s.subject())
	if errors.Is(err, content.ErrUnknownClass) && !s.held(r.Node) && seen.Journal.UID == "" {
		return false, nil // this node has never had anything of it
	}
	if err != nil {
		s.volume = s.report(err, v1.ReasonProvisionFailed)
		s.after(r.Settings.RetryMax)
		return true, nil
	}
	s.seen = seen
	s.seen.Journal, err = r.present(seen.Journal) // the object was missed before, and is back
	return false, err
}

func enqueueName(_ context.Context, e event.TypedGenericEvent[types.NamespacedName], q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	q.Add(reconcile.Request{NamespacedName: e.Object})
}

// workspaceOfPod wakes the workspaces that a pod uses.
func workspaceOfPod(_ context.Context, o client.Object) []reconcile.Request {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	names := workspacesOf(pod)
	if len(names) == 0 {
		return nil
	}
	requests := make([]reconcile.Request, 0, len(names))
	for _, name := range names {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: pod.Namespace, Name: name}})
	}
	return requests
}

// Unused wakes a workspace that a pod has stopped using.
func (r *WorkspaceReconciler) Unused(name types.NamespacedName) {
	r.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: name}
}
