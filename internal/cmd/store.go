package cmd

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/drivers"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// Reasons of events of the node.
const (
	eventStoreFit         = "StoreFit"
	eventStoreUnfit       = "StoreUnfit"
	eventStoreUnreachable = "StoreUnreachable"
	eventStoreDamaged     = "StoreDamaged"
)

// probeInterval is the pause after which a store that could not be probed is probed again.
const probeInterval = time.Minute

// patience is how long a person waits for the store.
func patience(waits *store.Waits) store.Patience {
	return store.Patience{Attempt: 5 * time.Minute, Total: 5 * time.Minute, Waits: waits}
}

// openStore opens the store of a configuration, which is written to only if it is fit.
func openStore(ctx context.Context, cfg config.Config) (*store.Guard, error) {
	guard, _, err := chainStore(ctx, cfg, metrics.New(buildVersion(), nil))
	return guard, err
}

// storeChain is a store with the deadlines and limits of the configuration around it.
type storeChain struct {
	outer *store.Switch
	waits *store.Waits                    // what its requests wait for
	wrap  func(config.Config) store.Store // puts them around the store
}

// chainStore opens the store of a daemon: from outside to inside, what is written only if it is fit, shares what the node may ask
// of it, is repeated, and is counted.
func chainStore(ctx context.Context, cfg config.Config, m *metrics.Metrics) (*store.Guard, *storeChain, error) {
	s, err := drivers.Open(ctx, cfg.Storage.URL())
	if err != nil {
		return nil, nil, err
	}
	chain := newChain(m.Store(s), m.StoreRetried, cfg)
	return store.NewGuard(chain.outer), chain, nil
}

func newChain(inner store.Store, retried func(request string), cfg config.Config) *storeChain {
	waits := &store.Waits{}
	wrap := func(cfg config.Config) store.Store {
		timeouts := cfg.Content.Timeouts
		return shared(store.WithPatience(inner, store.Patience{
			Attempt: timeouts.Store.Duration, Total: timeouts.StoreTotal.Duration, Retried: retried, Waits: waits,
		}), cfg.Limits.Store, waits)
	}
	return &storeChain{outer: store.NewSwitch(wrap(cfg)), waits: waits, wrap: wrap}
}

// configure takes over deadlines and limits. Requests under way go on under the old ones, beside the new.
func (c *storeChain) configure(cfg config.Config) { c.outer.Set(c.wrap(cfg)) }

// shared has all requests to a store share what the node may ask of it.
func shared(s store.Store, l config.StoreLimits, waits *store.Waits) store.Store {
	return store.WithLimits(s, store.Limits{
		Requests: fair.NewQueue("requests", int64(l.Requests)),
		Upload:   fair.NewPace("bytes of upload", int64(l.UploadBytesPerSecond)),
		Download: fair.NewPace("bytes of download", int64(l.DownloadBytesPerSecond)),
		Waits:    waits,
	})
}

// prober reports what a probe of the store found: as a log line, an event of the node, and a metric.
type prober struct {
	guard   *store.Guard
	events  nodeEvents
	metrics *metrics.Metrics
}

// run probes until the answer is known, or the daemon ends. Until then, and if the store is unfit, nothing is written to it.
func (p *prober) run(ctx context.Context) error {
	logger := log.FromContext(ctx).WithName("store")
	for said := false; ; {
		fitness, err := p.guard.Probe(ctx)
		var unfit *store.UnfitError
		switch {
		case err == nil:
			p.metrics.StoreFit()
			logger.Info("the store is fit", "result", fitness.String())
			p.events.tell(corev1.EventTypeNormal, eventStoreFit, "Probe", fitness.String())
			return nil
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the daemon ends
		case errors.As(err, &unfit):
			logger.Error(err, "nothing will be written to the store")
			p.events.tell(corev1.EventTypeWarning, eventStoreUnfit, "Probe", err.Error())
			return nil
		case !said:
			logger.Error(err, "the store could not be probed; nothing is written to it until then")
			p.events.tell(corev1.EventTypeWarning, eventStoreUnreachable, "Probe", err.Error())
			said = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(probeInterval):
		}
	}
}
