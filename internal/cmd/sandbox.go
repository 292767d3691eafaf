package cmd

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

var sandboxProtection = metrics.Define(metrics.Gauge, "sandbox_protection",
	"Whether hostile content is read behind this protection: 1 if so, 0 if the kernel or the container denies it.", "protection")

// protections tells which ones the sandbox has.
func protections(s *sandbox.Sandbox) prometheus.Collector {
	gauge := sandboxProtection.GaugeVec()
	for _, p := range sandbox.All() {
		there := 1.0
		if slices.Contains(s.Missing(), p) {
			there = 0
		}
		gauge.WithLabelValues(string(p)).Set(there)
	}
	return gauge
}
