package cmd

import (
	"github.com/prometheus/client_golang/prometheus"

	"wsdaemon.dev/ws-daemon/internal/content"
)

// templateMetrics tells how templates are used.
type templateMetrics struct {
	stats        func() content.TemplateStats
	starts, kept *prometheus.Desc
	changes      *prometheus.Desc
}

// registerTemplates puts the metrics of a keeper into a registry, in place of those of an earlier one.
func registerTemplates(k *content.Keeper, registry prometheus.Registerer) error {
	m := templateMetrics{
		stats: k.TemplateStats,
		starts: prometheus.NewDesc("ws_daemon_template_starts_total",
			"Workspaces whose content is in the store, by how they began: cloned from a template, without one (missed), "+
				"or restored although there was one (failed; also templates that could not be made).", []string{"result"}, nil),
		changes: prometheus.NewDesc("ws_daemon_template_changes_total", "Templates that were made and evicted.", []string{"change"}, nil),
		kept:    prometheus.NewDesc("ws_daemon_templates", "Templates that are kept.", []string{"class"}, nil),
	}
	registry.Unregister(m)
	return registry.Register(m)
}

// Describe sends what Collect may send.
func (m templateMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.starts
	to <- m.changes
	to <- m.kept
}

// Collect sends what has happened so far.
func (m templateMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.stats()
	for result, n := range map[string]int64{"cloned": s.Cloned, "missed": s.Missed, "failed": s.Failed} {
		to <- prometheus.MustNewConstMetric(m.starts, prometheus.CounterValue, float64(n), result)
	}
	for change, n := range map[string]int64{"made": s.Made, "evicted": s.Evicted} {
		to <- prometheus.MustNewConstMetric(m.changes, prometheus.CounterValue, float64(n), change)
	}
	for class, n := range s.Kept {
		to <- prometheus.MustNewConstMetric(m.kept, prometheus.GaugeValue, float64(n), class)
	}
}
