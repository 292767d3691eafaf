package controllers

import (
	"time"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// Settings are the parts of the configuration that decisions depend on.
type Settings struct {
	Timeouts    config.Timeouts
	RetryMax    time.Duration
	OrphanGrace time.Duration
	// BackupInterval is that of workspaces whose spec has none.
	BackupInterval time.Duration
	Classes        map[string]config.Class
	Node           config.Node
}

// Reconfigure changes the settings between two passes: one that is under way ends with those it began with.
func (r *WorkspaceReconciler) Reconfigure(s Settings) {
	r.settings.Lock()
	defer r.settings.Unlock()
	r.Settings = s
}

// Reason is the one word of conditions for an error of a job; Failed if there is no better one.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	return classify(err, v1.ReasonFailed).reason
}
