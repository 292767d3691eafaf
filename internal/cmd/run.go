package cmd

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	registry "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/csi"
	"wsdaemon.dev/ws-daemon/internal/health"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/logs"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// shutdownGrace is how long the daemon waits for its jobs to reach a safe point. Whatever is cut off goes on at the next start.
const shutdownGrace = 30 * time.Second

// finalPatience is how long a stop waits for other final backups that hold all places: with a store that crawls those could take hours.
const finalPatience = time.Minute

func newRun() *cobra.Command {
	var o options
	var pprof string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon of a node",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pprof != "" && !config.IsLoopback(pprof) {
				return fmt.Errorf("--pprof: profiles show what is in memory: only an address of this machine, as 127.0.0.1:6060, is allowed, not %s", pprof)
			}
			o.pprof = pprof
			return run(cmd.Context(), o)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&pprof, "pprof", "", "serve profiles for go tool pprof at this `address` of this machine, as 127.0.0.1:6060")
	return cmd
}

// daemon is what the parts of a running daemon have in common.
type daemon struct {
	options

	cfg     config.Config
	log     *logs.Log
	health  *health.Server
	metrics *metrics.Metrics
	gauges  *gauges
	keeper  *content.Keeper
	pods    *csi.Driver // nil if it is turned off
	chain   *storeChain
	found   []content.Subject         // what lay on the node at the start
	git     controllers.NodeCondition // what is to be said of git
}

// run answers for its health first, and then brings the node's disk in order, which needs nobody else; with the API server it
// serves its objects.
func run(ctx context.Context, o options) error {
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	d := &daemon{options: o, cfg: cfg, log: logs.New(cfg.Log.Format, cfg.Log.Level), gauges: &gauges{}}
	ctrl.SetLogger(d.log.Logger)
	defer d.log.TakeOver()()
	tellPrograms(d.log.Logger, cfg, programDirs())
	d.health = health.New(d.log.Logger, cfg.Health.Address)
	defer alongside(context.WithoutCancel(ctx), d.health.Run)() // also while jobs reach safe points at the end
	defer alongside(context.WithoutCancel(ctx), profiles{d.log.WithName("profiles"), o.pprof}.run)()
	rest, err := o.rest()
	if err != nil {
		return err
	}
	area, err := state.Open(cfg.Content.WorkingArea)
	if err != nil {
		return err
	}
	defer area.Close()
	d.metrics = metrics.New(buildVersion(), d.gauges.snapshot)
	guard, chain, err := chainStore(ctx, cfg, d.metrics)
	if err != nil {
		return err
	}
	d.chain = chain
	if d.keeper, err = newKeeper(ctx, cfg, area, o.node, guard); err != nil {
		return err
	}
	d.keeper.StepEnded = countSteps(d.metrics)
	d.git = gitCondition(ctx, d.keeper.Git)
	return d.serve(ctx, rest)
}

// serve serves the API server's objects.
func (d *daemon) serve(ctx context.Context, rest *rest.Config) error {
	logger := d.log.WithName("daemon").WithValues("node", d.node)
	d.found = recoverDisk(ctx, logger, d.keeper)
	defer d.servePods(ctx)()
	reader, err := newReader(rest)
	if err != nil {
		return err
	}
	ask, err := apiVersion(rest)
	if err != nil {
		return err
	}
	a := admission{logger: logger, reader: reader, area: d.keeper.Area, node: d.node, version: ask}
	if d.keeper.Cluster, err = newOutage(logger, d.cfg, d.keeper, d.found).bridge(ctx, a.wait); err != nil {
		return err
	}
	mgr, err := newManager(rest, d.options)
	if err != nil {
		return err
	}
	if err := d.register(mgr); err != nil {
		return err
	}
	logger.Info("started", "version", buildVersion(), "cluster", d.keeper.Cluster, "area", d.cfg.Content.WorkingArea, "store", d.keeper.Store.String())
	d.health.Started()
	return mgr.Start(ctx)
}

// newKeeper opens the volume classes.
func newKeeper(ctx context.Context, cfg config.Config, area *state.Area, node string, s store.Store) (*content.Keeper, error) {
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
		Area: area, Store: s, Memory: memory.New(int64(cfg.Limits.Store.Memory)), Volumes: map[string]volume.Driver{}, Node: node,
		AdoptCluster: cfg.Content.AdoptCluster, StrayRetention: cfg.Content.StrayRetention.Duration,
		RetryMax: cfg.Content.Timeouts.RetryMax.Duration, Now: time.Now,
		Git: initializer.Git{Sandbox: box, Program: cfg.Content.Git.Program, AllowedSchemes: cfg.Content.Git.AllowedSchemes, Deny: cfg.Content.Egress.Networks()},
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

// newManager caches this node's objects only. Metrics and health have servers of their own.
func newManager(rest *rest.Config, o options) (ctrl.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	mine := cache.ByObject{Field: fields.OneTermEqualSelector("spec.nodeName", o.node)}
	grace := shutdownGrace + 10*time.Second
	return ctrl.NewManager(rest, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{
			ByObject: map[client.Object]cache.ByObject{
				&v1.Workspace{}: mine,
				&v1.Snapshot{}:  mine,
				&corev1.Pod{}:   {Field: mine.Field, Transform: stripPod},
				&corev1.Node{}:  {Field: fields.OneTermEqualSelector("metadata.name", o.node)},
			},
			DefaultTransform: cache.TransformStripManagedFields(),
		},
		// The names of controllers are different ones; that a process starts one manager after another is all right.
		Controller:              ctrlconfig.Controller{SkipNameValidation: new(true)},
		Metrics:                 server.Options{BindAddress: "0"},
		GracefulShutdownTimeout: &grace,
	})
}

// reconcile puts the reconcilers and their jobs into the manager, and returns that of workspaces. conditions are what else is said of
// the node.
func (d *daemon) reconcile(mgr ctrl.Manager, conditions func() []controllers.NodeCondition) (*controllers.WorkspaceReconciler, error) {
	const wakeBuffer = 1024
	workspaces := &controllers.WorkspaceReconciler{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder("ws-daemon"),
		Keeper: d.keeper, Clock: clock.RealClock{}, Node: d.node,
		Wake:     make(chan event.TypedGenericEvent[types.NamespacedName], wakeBuffer),
		WentBack: make(chan struct{}, 1),
		Changed:  make(chan event.TypedGenericEvent[types.NamespacedName], 1),
		Settings: settingsOf(d.cfg), Waits: d.chain.waits,
	}
	snapshots := &controllers.SnapshotReconciler{
		Workspaces: workspaces, Wake: make(chan event.TypedGenericEvent[types.NamespacedName], wakeBuffer),
	}
	workspaces.Jobs = jobs.New(limits(d.cfg.Limits), nil, func(key jobs.Key) {
		snapshots.JobEnded(key)
		workspaces.JobEnded(key) // a snapshot makes a backup, too
	})
	workspaces.Jobs.BePatient(controllers.ClassFinal, finalPatience)
	workspaces.Jobs.OnEnd(func(key jobs.Key, s jobs.State) {
		d.metrics.JobEnded(key, s, controllers.Reason(s.Err))
		workspaces.JobDone(key, s)
	})
	for _, r := range []interface{ SetupWithManager(mgr ctrl.Manager) error }{
		workspaces, snapshots, &controllers.NodeReconciler{Workspaces: workspaces, Conditions: conditions},
	} {
		if err := r.SetupWithManager(mgr); err != nil {
			return nil, err
		}
	}
	return workspaces, nil
}

func settingsOf(cfg config.Config) controllers.Settings {
	return controllers.Settings{
		Timeouts: cfg.Content.Timeouts, RetryMax: cfg.Content.Timeouts.RetryMax.Duration,
		OrphanGrace: cfg.Content.OrphanGrace.Duration, BackupInterval: cfg.Content.Backup.Interval.Duration, Classes: cfg.Volumes.Classes, Node: cfg.Node,
	}
}

// register puts the reconcilers and the regular chores into the manager.
func (d *daemon) register(mgr ctrl.Manager) error {
	guard, ok := d.keeper.Store.(*store.Guard)
	if !ok {
		return fmt.Errorf("the store %s is not guarded", d.keeper.Store)
	}
	reloads := &reloader{log: d.log, store: d.chain, metrics: d.metrics}
	workspaces, err := d.reconcile(mgr, func() []controllers.NodeCondition { return append(reloads.conditions(), d.git) })
	if err != nil {
		return err
	}
	events := nodeEvents{recorder: workspaces.Recorder, node: d.node}
	d.keeper.Damaged = func(found content.Damage) {
		d.log.WithName("store").Error(found.Err, "the store is damaged", "domain", found.Domain, "needs", found.Needs)
		events.tell(corev1.EventTypeWarning, eventStoreDamaged, "Read", found.String())
	}
	chores := newChores(d.cfg, workspaces, d.found)
	reloads.workspaces, reloads.chores, reloads.events, reloads.changed = workspaces, chores, events, workspaces.LookAtNode
	service := d.newService(mgr, workspaces, events)
	reloads.service = service
	d.gauges.workspaces, d.gauges.reloader = workspaces, reloads
	if err := d.registerMetrics(workspaces); err != nil {
		return err
	}
	d.health.Require("cache", cacheSynced(mgr))
	d.health.Require("disks", func(context.Context) error { return workspaces.Usable() })
	for _, r := range []manager.RunnableFunc{
		workspaces.Jobs.Runnable(shutdownGrace),
		(&prober{guard: guard, events: events, metrics: d.metrics}).run,
		(&metricsServer{config: d.cfg.Metrics, mgr: mgr, events: events}).run,
		service.Run,
		reloads.run(d.config, d.cfg),
		d.gauges.synced,
		chores.wake,
		chores.tend,
		chores.watchArea,
		chores.watchRevision,
		d.connectPods(mgr, workspaces, events),
	} {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	return nil
}

// registerMetrics puts all that is counted into the registry that is served.
func (d *daemon) registerMetrics(workspaces *controllers.WorkspaceReconciler) error {
	others := []prometheus.Collector{controllers.NewMetrics(workspaces), templateMetrics{d.keeper.TemplateStats}, protections(d.keeper.Git.Sandbox)}
	if d.pods != nil {
		others = append(others, d.pods.Metrics)
	}
	return d.metrics.Register(registry.Registry, others...)
}

func limits(l config.Limits) map[jobs.Class]int {
	return map[jobs.Class]int{
		controllers.ClassInitialize: l.Initialize, controllers.ClassRestore: l.Initialize, controllers.ClassBackup: l.Backup,
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
	pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName, Volumes: controllers.WorkspaceVolumes(pod)}
	pod.Status = corev1.PodStatus{Phase: pod.Status.Phase}
	return pod, nil
}
