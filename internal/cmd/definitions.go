package cmd

import (
	"slices"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/csi"
	"wsdaemon.dev/ws-daemon/internal/fleet"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// MetricDefinitions are all metrics of the daemon, in the order in which they are documented.
func MetricDefinitions() []metrics.Definition {
	return slices.Concat(metrics.Definitions(), controllers.MetricDefinitions(), csi.MetricDefinitions(), fleet.MetricDefinitions(),
		[]metrics.Definition{templateStarts, templateChanges, templatesKept, sandboxProtection})
}

// Commands is the whole command line, for whoever documents it.
func Commands() *cobra.Command { return newRoot() }
