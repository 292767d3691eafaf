package cmd

import (
	"context"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/tools/events"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// forgetful is a store that overwrites.
type forgetful struct{ store.Store }

func (f forgetful) Put(ctx context.Context, key string, data []byte) error {
	return errors.Join(f.Delete(ctx, key), f.Store.Put(ctx, key, data))
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
			p, err := newProber(store.NewGuard(c.store), recorder, "node-a", prometheus.NewRegistry())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(p.run(t.Context())).To(Succeed())
			g.Expect(<-recorder.Events).To(HavePrefix(c.event))
			g.Expect(testutil.ToFloat64(p.fit)).To(Equal(c.value))
		})
	}
}

// A store that is away is asked again, and said to be away once.
func TestProberAsksAgain(t *testing.T) {
	g := NewWithT(t)
	down := storetest.Faulty(storetest.Filesystem(t), func(string, string) error { return errors.New("no route to host") })
	recorder := events.NewFakeRecorder(2)
	p, err := newProber(store.NewGuard(down), recorder, "node-a", prometheus.NewRegistry())
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	g.Expect(<-recorder.Events).To(And(HavePrefix("Warning StoreUnreachable find out what the store"), HaveSuffix("no route to host")))
	g.Expect(testutil.ToFloat64(p.fit)).To(BeZero())
	cancel()
	g.Expect(<-ended).To(Succeed())
	g.Expect(recorder.Events).To(BeEmpty())
}
