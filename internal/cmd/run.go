package cmd

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// shutdownGrace is how long the daemon waits for its jobs to reach a safe point. Whatever is cut off goes on at the next start.
const shutdownGrace = 30 * time.Second

func newRun() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon of a node",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	o.flags(cmd)
	return cmd
}

// run brings the node's disk in order first, which needs nobody else, and then serves the API server's objects.
func run(ctx context.Context, o options) error {
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	ctrl.SetLogger(newLogger(cfg.Log))
	logger := ctrl.Log.WithName("daemon").WithValues("node", o.node)
	rest, err := o.rest()
	if err != nil {
		return err
	}
	area, err := state.Open(cfg.Content.WorkingArea)
	if err != nil {
		return err
	}
	defer area.Close()
	keeper, err := newKeeper(ctx, cfg, area, o.node)
	if err != nil {
		return err
	}
	found := recoverDisk(ctx, logger, keeper)
	reader, err := newReader(rest)
	if err != nil {
		return err
	}
	a := admission{logger: logger, reader: reader, area: area, node: o.node}
	cluster, err := newOutage(logger, cfg, keeper, found).bridge(ctx, a.wait)
	if err != nil {
		return err
	}
	keeper.Cluster = cluster
	mgr, err := newManager(rest, cfg, o.node)
	if err != nil {
		return err
	}
	if err := register(mgr, cfg, keeper, o.node, found); err != nil {
		return err
	}
	logger.Info("started", "version", buildVersion(), "cluster", keeper.Cluster, "area", cfg.Content.WorkingArea, "store", keeper.Store.String())
	return mgr.Start(ctx)
}

// newKeeper opens the store and the volume classes.
func newKeeper(ctx context.Context, cfg config.Config, area *state.Area, node string) (*content.Keeper, error) {
	s, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	keys := keyRing(cfg.Storage.KeyFile)
	if err := keys.check(); err != nil {
		return nil, err
	}
	box, err := sandbox.New(ctx, sandbox.Options{Required: cfg.Content.Sandbox.Required, Visible: visible(cfg.Content.Git.Program)})
	if err != nil {
		return nil, err
	}
	k := &content.Keeper{
		Keys: keys.of,
		Area: area, Store: s, Memory: memory.New(cfg.Limits.Store.Memory), Volumes: map[string]volume.Driver{}, Node: node,
		AdoptCluster: cfg.Content.AdoptCluster, StrayRetention: cfg.Content.StrayRetention.Duration,
		RetryMax: cfg.Content.Timeouts.RetryMax.Duration, Now: time.Now,
		Git: initializer.Git{Sandbox: box, Program: cfg.Content.Git.Program, AllowedSchemes: cfg.Content.Git.AllowedSchemes},
	}
	k.Templates = map[string]int{}
	for name, class := range cfg.Volumes.Classes {
		k.Templates[name] = class.Templates
		if k.Volumes[name], err = newDriver(filepath.Join(cfg.Content.WorkingArea, "volumes", name), class); err != nil {
			return nil, fmt.Errorf("volume class %s: %w", name, err)
		}
	}
	return k, nil
}

// visible is what the sandbox has to show for a program that is named by its path: the directory that it lies in.
func visible(program string) []string {
	if !filepath.IsAbs(program) {
		return nil
	}
	return []string{filepath.Dir(program)}
}

// recoverDisk lets users at their content again after a start, without asking anybody.
func recoverDisk(ctx context.Context, logger logr.Logger, k *content.Keeper) []content.Subject {
	id, err := k.Area.Identity()
	if err != nil {
		logger.Info("the working area has no identity yet", "area", k.Area.Dir())
		return nil
	}
	k.Cluster = id.Cluster
	found, err := k.Recover(ctx)
	if err != nil {
		logger.Error(err, "some volumes could not be brought in order; the others are in use")
	}
	logger.Info("recovered", "volumes", len(found))
	return found
}

// newManager caches this node's objects only.
func newManager(rest *rest.Config, cfg config.Config, node string) (ctrl.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	mine := cache.ByObject{Field: fields.OneTermEqualSelector("spec.nodeName", node)}
	address := cfg.Metrics.Address
	if address == "" {
		address = "0"
	}
	grace := shutdownGrace + 10*time.Second
	return ctrl.NewManager(rest, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{
			ByObject: map[client.Object]cache.ByObject{
				&v1.Workspace{}: mine,
				&v1.Snapshot{}:  mine,
				&corev1.Pod{}:   {Field: mine.Field, Transform: stripPod},
				&corev1.Node{}:  {Field: fields.OneTermEqualSelector("metadata.name", node)},
			},
			DefaultTransform: cache.TransformStripManagedFields(),
		},
		Metrics:                 server.Options{BindAddress: address},
		HealthProbeBindAddress:  cfg.Health.Address,
		GracefulShutdownTimeout: &grace,
	})
}

// reconcile puts the reconcilers and their jobs into the manager, and returns that of workspaces.
func reconcile(mgr ctrl.Manager, cfg config.Config, keeper *content.Keeper, node string) (*controllers.WorkspaceReconciler, error) {
	const wakeBuffer = 1024
	workspaces := &controllers.WorkspaceReconciler{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder("ws-daemon"),
		Keeper: keeper, Clock: clock.RealClock{}, Node: node,
		Wake:     make(chan event.TypedGenericEvent[types.NamespacedName], wakeBuffer),
		WentBack: make(chan struct{}, 1),
		Changed:  make(chan event.TypedGenericEvent[types.NamespacedName], 1),
		Settings: controllers.Settings{
			Timeouts: cfg.Content.Timeouts, RetryMax: cfg.Content.Timeouts.RetryMax.Duration,
			OrphanGrace: cfg.Content.OrphanGrace.Duration, Classes: cfg.Volumes.Classes, Node: cfg.Node,
		},
	}
	snapshots := &controllers.SnapshotReconciler{
		Workspaces: workspaces, Wake: make(chan event.TypedGenericEvent[types.NamespacedName], wakeBuffer),
	}
	workspaces.Jobs = jobs.New(limits(cfg.Limits), nil, func(key jobs.Key) {
		snapshots.JobEnded(key)
		workspaces.JobEnded(key) // a snapshot makes a backup, too
	})
	for _, r := range []interface{ SetupWithManager(mgr ctrl.Manager) error }{
		workspaces, snapshots, &controllers.NodeReconciler{Workspaces: workspaces},
	} {
		if err := r.SetupWithManager(mgr); err != nil {
			return nil, err
		}
	}
	return workspaces, nil
}

// register puts the reconcilers and the regular chores into the manager.
func register(mgr ctrl.Manager, cfg config.Config, keeper *content.Keeper, node string, found []content.Subject) error {
	workspaces, err := reconcile(mgr, cfg, keeper, node)
	if err != nil {
		return err
	}
	disks := controllers.NewMetrics(workspaces)
	metrics.Registry.Unregister(disks) // those of an earlier daemon in this process
	if err := metrics.Registry.Register(disks); err != nil {
		return err
	}
	prober, err := newProber(keeper.Store, workspaces.Recorder, node, metrics.Registry)
	if err != nil {
		return err
	}
	if err := registerTemplates(keeper, metrics.Registry); err != nil {
		return err
	}
	if err := reportSandbox(keeper.Git.Sandbox, metrics.Registry); err != nil {
		return err
	}
	chores := &chores{
		workspaces: workspaces, found: found, grace: cfg.Content.TombstoneGrace.Duration,
		collection: history.CollectOptions{Delete: cfg.Content.Collect.Delete, Wait: cfg.Content.Collect.Wait.Duration},
	}
	for _, r := range []manager.Runnable{
		manager.RunnableFunc(workspaces.Jobs.Runnable(shutdownGrace)),
		manager.RunnableFunc(prober.run),
		manager.RunnableFunc(chores.wake),
		manager.RunnableFunc(chores.tend),
		manager.RunnableFunc(chores.watchArea),
		manager.RunnableFunc(chores.watchRevision),
	} {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	return mgr.AddReadyzCheck("cache", chores.ready(mgr))
}

func limits(l config.Limits) map[jobs.Class]int {
	return map[jobs.Class]int{
		controllers.ClassInitialize: l.Initialize, controllers.ClassBackup: l.Backup,
		controllers.ClassFinal: l.FinalBackup, controllers.ClassMaintain: l.Maintain,
	}
}

// stripPod keeps of a pod what the reconcilers look at.
func stripPod(o any) (any, error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	pod.ManagedFields, pod.Annotations = nil, nil
	pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName}
	pod.Status = corev1.PodStatus{Phase: pod.Status.Phase}
	return pod, nil
}
