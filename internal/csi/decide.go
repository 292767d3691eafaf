package csi

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// waiting is why a pod cannot have a workspace yet.
type waiting struct{ why string }

func (w *waiting) Error() string { return w.why }

func notYet(format string, args ...any) error { return &waiting{why: fmt.Sprintf(format, args...)} }

func refuse(code codes.Code, format string, args ...any) error {
	return status.Errorf(code, format, args...)
}

// decide says whether a pod on a node can have a workspace, by the object alone: nil; a *waiting if it can later, without anybody's
// doing; or a status that says who must do what.
func decide(ws *v1.Workspace, node string) error {
	name := ws.Namespace + "/" + ws.Name
	ready := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionReady)
	stalled := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionStalled)
	switch {
	case !ws.DeletionTimestamp.IsZero():
		return refuse(codes.FailedPrecondition, "workspace %s is being deleted", name)
	case ws.Spec.NodeName != node:
		return refuse(codes.FailedPrecondition, "workspace %s belongs to node %s and this pod is on node %s: let the pod go there (spec.nodeName, or a nodeSelector), "+
			"or move the workspace", name, ws.Spec.NodeName, node)
	case ws.Spec.State == v1.StateStopped:
		return refuse(codes.FailedPrecondition, "workspace %s is stopped: set its spec.state to Running", name)
	case ready != nil && ready.Status == metav1.ConditionTrue && ws.Status.NodeName == node:
		return nil
	case stalled != nil && stalled.Status == metav1.ConditionTrue && stalled.ObservedGeneration == ws.Generation:
		return refuse(codes.FailedPrecondition, "workspace %s cannot be used: %s: %s", name, stalled.Reason, stalled.Message)
	case ready == nil || ready.ObservedGeneration != ws.Generation:
		return notYet("workspace %s: node %s has not begun", name, node)
	default:
		return notYet("workspace %s: %s: %s", name, ready.Reason, ready.Message)
	}
}
