package cmd

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
)

// nodeEvents are events of the node, as kubectl describe node shows them.
type nodeEvents struct {
	recorder events.EventRecorder
	node     string
}

// tell sends an event. The API server refuses longer ones.
func (e nodeEvents) tell(kind, reason, action, message string) {
	if e.recorder == nil { // the controller has no node
		return
	}
	const longest = 1024
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: e.node, UID: types.UID(e.node)}}
	e.recorder.Eventf(node, nil, kind, reason, action, "%s", message[:min(len(message), longest)])
}
