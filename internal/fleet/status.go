package fleet

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/apply"
)

// longest is what fits into a condition's message with room to spare.
const longest = 2048

// say writes the condition NodeGone as a verdict wants it, or removes it. Nothing else of the status is the controller's: a field owner of its
// own, and the version that was read, keep it from getting in the way of daemons.
func (f *Fleet) say(ctx context.Context, o client.Object, conditions []metav1.Condition, v verdict) error {
	before := gone(conditions)
	if v.reason == "" && before == nil {
		return nil
	}
	message := v.message[:min(len(v.message), longest)]
	if before != nil && before.Reason == v.reason && before.Message == message && before.ObservedGeneration == o.GetGeneration() {
		return nil
	}
	status := map[string]any{"conditions": []any{}} // a status of nothing is not valid, and there may be nothing else in it
	if v.reason != "" {
		at := v.since
		if at.IsZero() {
			at = f.Clock.Now()
		}
		status["conditions"] = []any{map[string]any{
			"type": v1.ConditionNodeGone, "status": string(metav1.ConditionTrue), "reason": v.reason, "message": message,
			"observedGeneration": o.GetGeneration(), "lastTransitionTime": at.UTC().Format(time.RFC3339),
		}}
	}
	_, err := apply.Status(ctx, f.Client, o, status, v1.FieldOwnerFleet)
	return err
}
