package controllers

import (
	"time"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// NodeCondition is something that the daemon says of its node and that is not about what lies on its disks.
type NodeCondition struct {
	Type string
	// True is its status.
	True            bool
	Reason, Message string
}

// sayOthers takes over what the daemon says of its node.
func (r *NodeReconciler) sayOthers(status *v1.WorkspaceNodeStatus, now time.Time) {
	if r.Conditions == nil {
		return
	}
	for _, c := range r.Conditions() {
		setCondition(&status.Conditions, c.Type, &finding{ok: c.True, reason: c.Reason, message: clip(c.Message)}, 0, now)
	}
}
