package metrics

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// storeMetrics are about the object store.
type storeMetrics struct {
	requests, retries  *prometheus.CounterVec
	duration           *prometheus.HistogramVec
	sent, received     *prometheus.CounterVec
	fit, up, successAt *prometheus.GaugeVec
	outage             *outage
}

// outage remembers since when the store does not answer.
type outage struct {
	mu    sync.Mutex
	since time.Time
	err   error
}

func newStoreMetrics() storeMetrics {
	s := storeMetrics{
		requests: storeRequests.counter(), retries: storeRetries.counter(), duration: storeDuration.histogram(),
		sent: storeSent.counter(), received: storeReceived.counter(),
		fit: storeFit.GaugeVec(), up: storeUp.GaugeVec(), successAt: storeLastSuccess.GaugeVec(), outage: &outage{},
	}
	s.fit.WithLabelValues().Set(0)
	s.up.WithLabelValues().Set(1)
	return s
}

func (s storeMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{s.requests, s.retries, s.duration, s.sent, s.received, s.fit, s.up, s.successAt}
}

// StoreFit records that a probe found the store fit.
func (m *Metrics) StoreFit() { m.store.fit.WithLabelValues().Set(1) }

// StoreRetried counts a request that is made again.
func (m *Metrics) StoreRetried(request string) { m.store.retries.WithLabelValues(request).Inc() }

// StoreOutage returns since when the store has answered no request, and the error of the first one; the zero time if it answers.
func (m *Metrics) StoreOutage() (time.Time, error) {
	o := m.store.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since, o.err
}

// Store counts the requests of a store. It goes below whatever repeats them.
func (m *Metrics) Store(s store.Store) store.Store { return &counted{Store: s, m: m.store} }

// counted hands on what makes no request.
type counted struct {
	store.Store
	m storeMetrics
}

func (c *counted) Put(ctx context.Context, key string, data []byte) error {
	err := c.m.count(ctx, "put", func() error { return c.Store.Put(ctx, key, data) })
	c.m.sent.WithLabelValues().Add(float64(len(data)))
	return err
}

func (c *counted) Get(ctx context.Context, key string, limit int64) (data []byte, err error) {
	err = c.m.count(ctx, "get", func() (err error) {
		data, err = c.Store.Get(ctx, key, limit)
		return err
	})
	c.m.received.WithLabelValues().Add(float64(len(data)))
	return data, err
}

func (c *counted) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	err := c.m.count(ctx, "read", func() error { return c.Store.Read(ctx, key, offset, buf) })
	if err == nil {
		c.m.received.WithLabelValues().Add(float64(len(buf)))
	}
	return err
}

func (c *counted) Stat(ctx context.Context, key string) (o store.Object, err error) {
	err = c.m.count(ctx, "stat", func() (err error) {
		o, err = c.Store.Stat(ctx, key)
		return err
	})
	return o, err
}

func (c *counted) List(ctx context.Context, prefix, after string, limit int) (objects []store.Object, err error) {
	err = c.m.count(ctx, "list", func() (err error) {
		objects, err = c.Store.List(ctx, prefix, after, limit)
		return err
	})
	return objects, err
}

func (c *counted) Delete(ctx context.Context, keys ...string) error {
	return c.m.count(ctx, "delete", func() error { return c.Store.Delete(ctx, keys...) })
}

func (c *counted) Now(ctx context.Context) (now time.Time, err error) {
	err = c.m.count(ctx, "clock", func() (err error) {
		now, err = c.Store.Now(ctx)
		return err
	})
	return now, err
}

func (c *counted) Sweep(ctx context.Context) error {
	return c.m.count(ctx, "sweep", func() error { return store.Sweep(ctx, c.Store) })
}

func (s storeMetrics) count(ctx context.Context, request string, call func() error) error {
	began := time.Now()
	err := call()
	result := resultOf(ctx, err)
	s.requests.WithLabelValues(request, result).Inc()
	s.duration.WithLabelValues(request).Observe(time.Since(began).Seconds())
	s.note(result, err)
	return err
}

// note keeps whether the store answers. That it has not what was asked for is an answer, and a caller that gave up says nothing.
func (s storeMetrics) note(result string, err error) {
	o := s.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	switch result {
	case "ok", "absent", "exists", "damaged":
		o.since, o.err = time.Time{}, nil
		s.up.WithLabelValues().Set(1)
		s.successAt.WithLabelValues().Set(float64(time.Now().Unix()))
	case "cancelled":
	default:
		if o.since.IsZero() {
			o.since, o.err = time.Now(), err // the first error is kept, so that what is said of the outage stays the same
		}
		s.up.WithLabelValues().Set(0)
	}
}

func resultOf(ctx context.Context, err error) string {
	_, busy := errors.AsType[*store.BusyError](err)
	_, refused := errors.AsType[*store.RefusedError](err)
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, store.ErrNotFound):
		return "absent"
	case errors.Is(err, store.ErrExists):
		return "exists"
	case errors.Is(err, store.ErrTooLarge), errors.Is(err, store.ErrTooShort):
		return "damaged"
	case refused:
		return "refused"
	case busy:
		return "busy"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled), ctx.Err() != nil:
		return "cancelled"
	default:
		return "error"
	}
}
