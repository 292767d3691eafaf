package cmd

import (
	"context"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/events"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// forgetful is a store that overwrites.
type forgetful struct{ store.Store }

func (f forgetful) Put(ctx context.Context, key string, data []byte) error {
	return errors.Join(f.Delete(ctx, key), f.Store.Put(ctx, key, data))
}

// proberOf makes the prober of a store whose metrics are in a registry.
func proberOf(t *testing.T, s store.Store, recorder events.EventRecorder, registry prometheus.Registerer) *prober {
	t.Helper()
	m := metrics.New("test", func() metrics.Snapshot { return metrics.Snapshot{} })
	NewWithT(t).Expect(m.Register(registry)).To(Succeed())
	return &prober{guard: store.NewGuard(s), events: nodeEvents{recorder: recorder, node: "node-a"}, metrics: m}
}

// valueOf returns the value of a metric without labels.
func valueOf(t *testing.T, registry prometheus.Gatherer, name string) float64 {
	t.Helper()
	g := NewWithT(t)
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	for _, f := range families {
		if f.GetName() == name {
			g.Expect(f.GetMetric()).To(HaveLen(1))
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// What the probe found is an event of the node and a metric.
func TestProberReports(t *testing.T) {
	fit := storetest.Filesystem(t)
	for name, c := range map[string]struct {
		store store.Store
		event string
		value float64
	}{
		"fit":   {fit, "Normal StoreFit store " + fit.String() + ": ok (", 1},
		"unfit": {forgetful{fit}, "Warning StoreUnfit the store " + fit.String() + " cannot be used: it overwrites an object", 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			recorder := events.NewFakeRecorder(1)
			registry := prometheus.NewRegistry()
			p := proberOf(t, c.store, recorder, registry)
			g.Expect(p.run(t.Context())).To(Succeed())
			g.Expect(<-recorder.Events).To(HavePrefix(c.event))
			g.Expect(valueOf(t, registry, "ws_daemon_store_fit")).To(Equal(c.value))
		})
	}
}

// A store that is away is asked again, and said to be away once.
func TestProberAsksAgain(t *testing.T) {
	g := NewWithT(t)
	down := storetest.Faulty(storetest.Filesystem(t), func(string, string) error { return errors.New("no route to host") })
	recorder := events.NewFakeRecorder(2)
	registry := prometheus.NewRegistry()
	p := proberOf(t, down, recorder, registry)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	g.Expect(<-recorder.Events).To(And(HavePrefix("Warning StoreUnreachable find out what the store"), HaveSuffix("no route to host")))
	g.Expect(valueOf(t, registry, "ws_daemon_store_fit")).To(BeZero())
	cancel()
	g.Expect(<-ended).To(Succeed())
	g.Expect(recorder.Events).To(BeEmpty())
}
