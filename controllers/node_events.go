package controllers

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// event is one of the Node, as `kubectl describe node` shows it. The API server refuses longer ones.
func (r *NodeReconciler) event(kind, reason, action, format string, args ...any) {
	nodeEvent(r.Workspaces, kind, reason, action, fmt.Sprintf(format, args...))
}

func nodeEvent(w *WorkspaceReconciler, kind, reason, action, message string) {
	const longest = 1024
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.Node, UID: types.UID(w.Node)}}
	w.Recorder.Eventf(node, nil, kind, reason, action, "%s", message[:min(len(message), longest)])
}

// tell sends an event for whatever came or went between two reports. What the first report of a node says is no news if all
// is well.
func (r *NodeReconciler) tell(before, now *v1.WorkspaceNodeStatus) {
	for _, n := range news(before, now) {
		r.event(n.kind, n.reason, n.action, "%s", n.message)
	}
}

// news lists what came or went.
func news(before, now *v1.WorkspaceNodeStatus) []note {
	var notes []note
	for _, c := range now.Conditions {
		if was := reasonOf(before.Conditions, c.Type); was == reasonOf(now.Conditions, c.Type) || c.Type == v1.ConditionSafeToRemove {
			continue
		} else if n, ok := newsOf(c, was); ok {
			notes = append(notes, n)
		}
	}
	if was := reasonOf(before.Conditions, v1.ConditionStalled); was != "" && reasonOf(now.Conditions, v1.ConditionStalled) == "" {
		notes = append(notes, note{corev1.EventTypeNormal, v1.ReasonRunning, "Guard", "nobody has to do anything any more"})
	}
	return notes
}

// newsOf turns a condition that was different before into an event.
func newsOf(c metav1.Condition, was string) (note, bool) {
	bad := abnormal(c.Type) == (c.Status == metav1.ConditionTrue)
	reason := c.Reason
	if c.Type == v1.ConditionDiskPressure {
		reason = v1.ConditionDiskPressure
	}
	if bad {
		return note{corev1.EventTypeWarning, reason, "Guard", c.Message}, true
	}
	return note{corev1.EventTypeNormal, reason, "Guard", c.Message}, was != ""
}

// abnormal says whether a condition of a node is bad when it is True. The others are good then.
func abnormal(kind string) bool {
	switch kind {
	case v1.ConditionDiskPressure, v1.ConditionStalled, v1.ConditionConfigReloadPending:
		return true
	default:
		return false
	}
}
