package cmd

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	registry "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/fleet"
	"wsdaemon.dev/ws-daemon/internal/health"
	"wsdaemon.dev/ws-daemon/internal/logs"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

const (
	// leaderName is that of the lease which the leading replica has.
	leaderName = "ws-daemon-controller"
	// defaultNodeGrace is longer than a node takes that is made anew under its name.
	defaultNodeGrace = 15 * time.Minute
	// roundInterval is how often the leader asks whether it is time to tend the store: often enough to have the next turn before anybody else.
	roundInterval = fleet.TendInterval / 6
)

// controllerOptions are those of the command line.
type controllerOptions struct {
	options

	namespace string
	grace     time.Duration
}

func newController() *cobra.Command {
	var o controllerOptions
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Run the controller of a cluster, for objects whose nodes are gone and for the store",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.namespace == "":
				return errors.New("where the leader's lease belongs is not known: set POD_NAMESPACE or --namespace")
			case o.grace <= 0:
				return errors.New("--node-grace must be more than 0: a node may be gone for a moment only")
			}
			return runController(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.config, "config", "/etc/ws-daemon/config.json", "the configuration `file` of the daemons")
	cmd.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "a kubeconfig `file`; in a pod the service account is used, else $KUBECONFIG")
	cmd.Flags().StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "the `namespace` of the lease by which one replica leads, $POD_NAMESPACE by default")
	cmd.Flags().DurationVar(&o.grace, "node-grace", defaultNodeGrace, "how `long` a node must be gone before objects that are being deleted are let go without it")
	return cmd
}

// conductor is a replica of the controller.
type conductor struct {
	controllerOptions

	cfg     config.Config
	log     *logs.Log
	health  *health.Server
	metrics *metrics.Metrics
	chain   *storeChain
	tender  *fleet.Tender
	totals  *fleet.Totals

	mu      sync.Mutex
	rules   fleet.Rules
	outcome config.Outcome
	read    time.Time
	round   time.Time // the hour of the last round that was this one's
}

func runController(ctx context.Context, o controllerOptions) error {
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	c := &conductor{controllerOptions: o, cfg: cfg, log: logs.New(cfg.Log.Format, cfg.Log.Level), rules: rulesOf(cfg), read: time.Now()}
	ctrl.SetLogger(c.log.Logger)
	c.health = health.New(c.log.Logger, cfg.Health.Address)
	defer alongside(context.WithoutCancel(ctx), c.health.Run)()
	c.node = leaderName // it acts for no node
	rest, err := c.rest()
	if err != nil {
		return err
	}
	ask, err := apiVersion(rest)
	if err == nil {
		err = modern(ctx, ask, "no object is let go without its node, and the daemons tend the store")
	}
	if err != nil {
		return err
	}
	mgr, err := c.manager(rest)
	if err != nil {
		return err
	}
	if err := c.register(ctx, mgr); err != nil {
		return err
	}
	c.log.WithName("controller").Info("started", "version", buildVersion(), "cluster", c.tender.Cluster, "store", c.tender.Store.String())
	c.health.Started()
	return mgr.Start(ctx)
}

// manager caches the objects of all nodes.
func (c *conductor) manager(rest *rest.Config) (ctrl.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	grace := shutdownGrace
	return ctrl.NewManager(rest, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         caches(),
		Controller:                    ctrlconfig.Controller{SkipNameValidation: new(true)},
		Metrics:                       server.Options{BindAddress: "0"},
		GracefulShutdownTimeout:       &grace,
		LeaderElection:                true,
		LeaderElectionID:              leaderName,
		LeaderElectionNamespace:       c.namespace,
		LeaderElectionReleaseOnCancel: true,
	})
}

// caches keep of all objects what is looked at.
func caches() cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}: {Transform: fleet.TrimNode},
			&v1.Snapshot{}: {Transform: func(o any) (any, error) { return o, nil }}, // who has given one its node stands in the managed fields
		},
	}
}

// register puts everything into the manager.
func (c *conductor) register(ctx context.Context, mgr ctrl.Manager) error {
	c.metrics = metrics.New(buildVersion(), c.snapshot)
	guard, chain, err := chainStore(ctx, c.cfg, c.metrics)
	if err != nil {
		return err
	}
	cluster, err := clusterUID(ctx, mgr.GetAPIReader())
	if err != nil {
		return err
	}
	domains := &fleet.Domains{Store: guard, Cluster: cluster, Adopt: c.cfg.Content.AdoptCluster}
	c.chain, c.totals = chain, &fleet.Totals{Reader: mgr.GetClient(), Elected: mgr.Elected()}
	c.tender = &fleet.Tender{Store: guard, Cluster: cluster, Who: fleet.Controller, Domains: domains, Missing: tellMissing(c.damaged)}
	f := &fleet.Fleet{Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Store: domains, Clock: clock.RealClock{}, Grace: c.grace}
	if err := errors.Join(f.SetupWithManager(ctx, mgr), c.metrics.Register(registry.Registry, c.totals)); err != nil {
		return err
	}
	c.health.Require("cache", cacheSynced(mgr))
	for _, r := range []manager.Runnable{
		everywhere((&prober{guard: guard, metrics: c.metrics}).run),
		everywhere((&metricsServer{config: c.cfg.Metrics, mgr: mgr}).run),
		everywhere(config.NewWatcher(c.config, c.cfg, c.apply, c.report).Run),
		manager.RunnableFunc(c.tend),
	} {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	return nil
}

// everywhere runs on each replica, not only on the leader.
type everywhere func(context.Context) error

// Start runs it.
func (e everywhere) Start(ctx context.Context) error { return e(ctx) }

// NeedLeaderElection says that it does not wait until its replica leads.
func (everywhere) NeedLeaderElection() bool { return false }

// apply takes over what may change.
func (c *conductor) apply(cfg config.Config) {
	c.log.SetLevel(cfg.Log.Level)
	c.chain.configure(cfg)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = rulesOf(cfg)
}

func (c *conductor) report(o config.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcome = o
	logger := c.log.WithName("config")
	switch {
	case o.Err != nil:
		logger.Error(o.Err, "the configuration file is refused; the controller runs on with what it had")
		return
	case len(o.Changed) > 0:
		logger.Info("the configuration has changed", "changed", o.Changed)
	}
	c.read = time.Now()
}

// snapshot is what a replica says of itself. What the daemons' keys wait for is theirs to say.
func (c *conductor) snapshot() metrics.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return metrics.Snapshot{Now: time.Now(), Config: metrics.Config{Valid: c.outcome.Err == nil, Read: c.read}}
}

func (c *conductor) damaged(found content.Damage) {
	c.log.WithName("store").Error(found.Err, "the store is damaged", "domain", found.Domain, "needs", found.Needs)
}

// tend looks after the store as long as this replica leads.
func (c *conductor) tend(ctx context.Context) error {
	logger := log.FromContext(ctx).WithName("tend")
	tick := time.NewTicker(roundInterval)
	defer tick.Stop()
	for {
		if err := c.tendOnce(ctx, logger); err != nil && ctx.Err() == nil {
			logger.Error(err, "the store could not be tended; what has had its time stays until the next hour")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tendOnce makes a round if there was none in this hour; in any case it has the next turn taken.
func (c *conductor) tendOnce(ctx context.Context, logger logr.Logger) error {
	c.mu.Lock()
	rules := c.rules
	c.mu.Unlock()
	hour := time.Now().Truncate(fleet.TendInterval)
	if c.round.Equal(hour) {
		return c.tender.Hold(ctx)
	}
	tended, err := c.tender.Tend(ctx, logger, rules)
	if tended.Mine {
		c.round = hour
		c.totals.Tended(tended, err, time.Now())
	}
	return err
}
