package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// serviceMetrics are those of the gRPC service.
type serviceMetrics struct {
	calls, refused, panics *prometheus.CounterVec
	duration               *prometheus.HistogramVec
	certificate            *prometheus.GaugeVec
}

func newServiceMetrics() serviceMetrics {
	m := serviceMetrics{
		calls: serviceCalls.counter(), refused: serviceRefused.counter(), panics: servicePanics.counter(),
		duration: serviceDuration.histogram(), certificate: serviceEnd.GaugeVec(),
	}
	m.refused.WithLabelValues()
	m.panics.WithLabelValues()
	return m
}

func (m serviceMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.refused, m.panics, m.duration, m.certificate}
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

// ServiceCertificate says when the service's certificate ends; the zero time if there is none.
func (m *Metrics) ServiceCertificate(ends time.Time) {
	if ends.IsZero() {
		m.service.certificate.Reset()
		return
	}
	m.service.certificate.WithLabelValues().Set(float64(ends.Unix()))
}
