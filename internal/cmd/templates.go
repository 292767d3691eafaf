package cmd

import (
	"github.com/prometheus/client_golang/prometheus"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

var (
	templateStarts = metrics.Define(metrics.Counter, "template_starts_total",
		"Workspaces whose content is in the store, by how they began: cloned from a template, without one (missed), "+
			"or restored although there was one (failed; also templates that could not be made).", "result")
	templateChanges = metrics.Define(metrics.Counter, "template_changes_total", "Templates that were made and evicted.", "change")
	templatesKept   = metrics.Define(metrics.Gauge, "templates", "Templates that are kept; absent without a class that may keep some.", "class")
)

// templateMetrics tells how templates are used.
type templateMetrics struct {
	stats func() content.TemplateStats
}

// Describe sends what Collect may send.
func (m templateMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []metrics.Definition{templateStarts, templateChanges, templatesKept} {
		to <- d.Desc()
	}
}

// Collect sends what has happened so far.
func (m templateMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.stats()
	for result, n := range map[string]int64{"cloned": s.Cloned, "missed": s.Missed, "failed": s.Failed} {
		to <- prometheus.MustNewConstMetric(templateStarts.Desc(), prometheus.CounterValue, float64(n), result)
	}
	for change, n := range map[string]int64{"made": s.Made, "evicted": s.Evicted} {
		to <- prometheus.MustNewConstMetric(templateChanges.Desc(), prometheus.CounterValue, float64(n), change)
	}
	for class, n := range s.Kept {
		to <- prometheus.MustNewConstMetric(templatesKept.Desc(), prometheus.GaugeValue, float64(n), class)
	}
}
