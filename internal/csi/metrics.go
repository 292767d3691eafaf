package csi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/state"
)

var (
	callCount = metrics.Define(metrics.Counter, "csi_calls_total", "Calls of the kubelet, by method and the code of the answer; absent without the driver, and before the first.", "method", "code")
	callTime  = metrics.Define(metrics.Histogram, "csi_call_duration_seconds",
		"How long the kubelet waited for an answer: NodePublishVolume waits until the workspace is ready; absent without the driver, and before the first.", "method")
	published = metrics.Define(metrics.Gauge, "csi_published_volumes", "Workspaces that are mounted for pods by the CSI driver; absent without it.")
	known     = metrics.Define(metrics.Gauge, "csi_registered", "Whether the kubelet has accepted the CSI driver on the sockets that are served now; absent without the driver.")
)

// MetricDefinitions are those of the driver.
func MetricDefinitions() []metrics.Definition {
	return []metrics.Definition{callCount, callTime, published, known}
}

// Metrics of a driver.
type Metrics struct {
	journal *state.Journal
	count   *prometheus.CounterVec
	time    *prometheus.HistogramVec
	known   *prometheus.GaugeVec
}

// NewMetrics returns the metrics of the driver of a node with a journal.
func NewMetrics(journal *state.Journal) *Metrics {
	m := &Metrics{
		journal: journal,
		count:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: callCount.Name, Help: callCount.Help}, callCount.Labels),
		time: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: callTime.Name, Help: callTime.Help, Buckets: []float64{.005, .025, .1, .5, 1, 2.5, 5, 10, 30, 60, 100, 120},
		}, callTime.Labels),
		known: known.GaugeVec(),
	}
	m.registered(false)
	return m
}

func (m *Metrics) called(method string, code codes.Code, took time.Duration) {
	m.count.WithLabelValues(method, code.String()).Inc()
	m.time.WithLabelValues(method).Observe(took.Seconds())
}

func (m *Metrics) registered(yes bool) {
	value := 0.0
	if yes {
		value = 1
	}
	m.known.WithLabelValues().Set(value)
}

// Describe tells which metrics there are.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range MetricDefinitions() {
		to <- d.Desc()
	}
}

// Collect sends them. How many volumes are mounted is what the journal says: no disk is asked.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.count.Collect(to)
	m.time.Collect(to)
	m.known.Collect(to)
	uses := 0
	for _, e := range m.journal.List() {
		uses += len(e.Uses)
	}
	to <- prometheus.MustNewConstMetric(published.Desc(), prometheus.GaugeValue, float64(uses))
}
