package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// serviceMetrics are those of the gRPC service.
type serviceMetrics struct {
	calls, refused, panics *prometheus.CounterVec
	duration               *prometheus.HistogramVec
	begin, end             *prometheus.GaugeVec // of certificates
}

func newServiceMetrics() serviceMetrics {
	m := serviceMetrics{
		calls: serviceCalls.counter(), refused: serviceRefused.counter(), panics: servicePanics.counter(),
		duration: serviceDuration.histogram(), begin: serviceBegin.GaugeVec(), end: serviceEnd.GaugeVec(),
	}
	m.refused.WithLabelValues()
	m.panics.WithLabelValues()
	return m
}

func (m serviceMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.refused, m.panics, m.duration, m.begin, m.end}
}

// ServiceCalled counts a call of the service that ended with a code.
func (m *Metrics) ServiceCalled(method, code string, took time.Duration) {
	m.service.calls.WithLabelValues(method, code).Inc()
	m.service.duration.WithLabelValues(method).Observe(took.Seconds())
}

// ServiceRefused counts somebody who could not show that he may call.
func (m *Metrics) ServiceRefused() { m.service.refused.WithLabelValues().Inc() }

// ServicePanicked counts a mistake in the daemon.
func (m *Metrics) ServicePanicked() { m.service.panics.WithLabelValues().Inc() }

// Certificates of the service.
const (
	// CertificateOwn is the daemon's.
	CertificateOwn = "daemon"
	// CertificateCallers is that of the authority of callers; of several, the one that ends last.
	CertificateCallers = "callers"
)

// ServiceCertificate says from when until when one of the service's certificates is valid.
func (m *Metrics) ServiceCertificate(which string, begin, end time.Time) {
	m.service.begin.WithLabelValues(which).Set(float64(begin.Unix()))
	m.service.end.WithLabelValues(which).Set(float64(end.Unix()))
}
