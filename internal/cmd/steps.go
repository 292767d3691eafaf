package cmd

import (
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// countSteps counts what workspaces are filled with.
func countSteps(m *metrics.Metrics) func(volume.Step, error) {
	return func(step volume.Step, err error) {
		m.StepEnded(metrics.Step{Source: step.Source, Files: step.Files, Bytes: step.Bytes, Duration: step.Duration}, err, controllers.Reason(err))
	}
}
