package cmd

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// reportSandbox publishes which protections the sandbox has.
func reportSandbox(s *sandbox.Sandbox, registry prometheus.Registerer) error {
	protections := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ws_daemon_sandbox_protection",
		Help: "Whether hostile content is read behind this protection: 1 if so, 0 if the kernel or the container denies it.",
	}, []string{"protection"})
	err := registry.Register(protections)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		err = nil
		protections, _ = there.ExistingCollector.(*prometheus.GaugeVec)
	}
	if err != nil {
		return fmt.Errorf("register metrics of the sandbox: %w", err)
	}
	for _, p := range sandbox.All() {
		there := 1.0
		if slices.Contains(s.Missing(), p) {
			there = 0
		}
		protections.WithLabelValues(string(p)).Set(there)
	}
	return nil
}
