package cmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/drivers"
)

// Reasons of events of the node.
const (
	eventStoreFit         = "StoreFit"
	eventStoreUnfit       = "StoreUnfit"
	eventStoreUnreachable = "StoreUnreachable"
)

// probeInterval is the pause after which a store that could not be probed is probed again.
const probeInterval = time.Minute

// patience is how long a person waits for the store.
func patience() store.Patience {
	return store.Patience{Attempt: 5 * time.Minute, Total: 5 * time.Minute}
}

// openStore opens the store of a configuration, which is written to only if it is fit.
func openStore(ctx context.Context, cfg config.Config) (*store.Guard, error) {
	s, err := drivers.Open(ctx, cfg.Storage.URL())
	if err != nil {
		return nil, err
	}
	timeouts := cfg.Content.Timeouts
	s = store.WithPatience(s, store.Patience{Attempt: timeouts.Store.Duration, Total: timeouts.StoreTotal.Duration})
	return store.NewGuard(shared(s, cfg.Limits.Store)), nil
}

// shared has all requests to a store share what the node may ask of it.
func shared(s store.Store, l config.StoreLimits) store.Store {
	return store.WithLimits(s, store.Limits{
		Requests: fair.NewQueue("requests", int64(l.Requests)),
		Upload:   fair.NewPace("bytes of upload", l.UploadBytesPerSecond),
		Download: fair.NewPace("bytes of download", l.DownloadBytesPerSecond),
	})
}

// prober reports what a probe of the store found: as a log line, an event of the node, and a metric.
type prober struct {
	guard    *store.Guard
	recorder events.EventRecorder
	node     string
	fit      prometheus.Gauge
}

func newProber(s store.Store, recorder events.EventRecorder, node string, registry prometheus.Registerer) (*prober, error) {
	guard, ok := s.(*store.Guard)
	if !ok {
		return nil, fmt.Errorf("the store %s is not guarded", s)
	}
	fit := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ws_daemon_store_fit",
		Help: "Whether a probe found that the object store does what backups rely on: 1 if so, 0 if not or not known yet.",
	})
	err := registry.Register(fit)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		err = nil
		fit, _ = there.ExistingCollector.(prometheus.Gauge)
	}
	if err != nil {
		return nil, fmt.Errorf("register metrics of the store: %w", err)
	}
	return &prober{guard: guard, recorder: recorder, node: node, fit: fit}, nil
}

// run probes until the answer is known, or the daemon ends. Until then, and if the store is unfit, nothing is written to it.
func (p *prober) run(ctx context.Context) error {
	logger := log.FromContext(ctx).WithName("store")
	for said := false; ; {
		fitness, err := p.guard.Probe(ctx)
		var unfit *store.UnfitError
		switch {
		case err == nil:
			p.fit.Set(1)
			logger.Info("the store is fit", "result", fitness.String())
			p.event(corev1.EventTypeNormal, eventStoreFit, fitness.String())
			return nil
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the daemon ends
		case errors.As(err, &unfit):
			logger.Error(err, "nothing will be written to the store")
			p.event(corev1.EventTypeWarning, eventStoreUnfit, err.Error())
			return nil
		case !said:
			logger.Error(err, "the store could not be probed; nothing is written to it until then")
			p.event(corev1.EventTypeWarning, eventStoreUnreachable, err.Error())
			said = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(probeInterval):
		}
	}
}

// event is one of the node, as kubectl describe node shows it. The API server refuses longer ones.
func (p *prober) event(kind, reason, message string) {
	const longest = 1024
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: p.node, UID: types.UID(p.node)}}
	p.recorder.Eventf(node, nil, kind, reason, "Probe", "%s", message[:min(len(message), longest)])
}
