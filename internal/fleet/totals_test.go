package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// listing is a cache that has what it is given.
type listing struct {
	client.Reader
	workspaces []v1.Workspace
	snapshots  []v1.Snapshot
	reports    []v1.WorkspaceNode
	nodes      []corev1.Node
}

func (l listing) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	switch list := into.(type) {
	case *v1.WorkspaceList:
		list.Items = l.workspaces
	case *v1.SnapshotList:
		list.Items = l.snapshots
	case *v1.WorkspaceNodeList:
		list.Items = l.reports
	case *corev1.NodeList:
		list.Items = l.nodes
	default:
		return errors.New("there is no such list")
	}
	return nil
}

func TestTotals(t *testing.T) {
	g := NewWithT(t)
	ready := func(status metav1.ConditionStatus, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1.ConditionReady, Status: status, Reason: reason}}
	}
	workspace := func(state v1.WorkspaceState, conditions []metav1.Condition, changes ...func(*v1.Workspace)) v1.Workspace {
		return *object(append(changes, func(ws *v1.Workspace) {
			ws.Spec.State = state
			ws.Status.Conditions = append(ws.Status.Conditions, conditions...)
		})...)
	}
	lost := func(ws *v1.Workspace) {
		ws.Status.Conditions = []metav1.Condition{{Type: v1.ConditionNodeGone, Status: metav1.ConditionTrue, Reason: v1.ReasonNodeDeleted}}
	}
	class := func(node string, free, volumes int64) v1.WorkspaceNode {
		size, rest := resource.MustParse("10Gi"), *resource.NewQuantity(free<<30, resource.BinarySI)
		c := v1.ClassCapacity{Name: "default", Space: v1.Space{Size: &size, Free: &rest}, Volumes: int32(volumes)}
		return v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: node}, Status: v1.WorkspaceNodeStatus{Classes: []v1.ClassCapacity{c}, Conditions: ready(metav1.ConditionTrue, "Running")}}
	}
	elected := make(chan struct{})
	totals := &Totals{Elected: elected, Reader: listing{
		workspaces: []v1.Workspace{
			workspace(v1.StateRunning, ready(metav1.ConditionTrue, "Running")), workspace(v1.StateRunning, ready(metav1.ConditionTrue, "Running"), lost),
			workspace(v1.StateStopped, ready(metav1.ConditionFalse, "Stopped")), workspace(v1.StateRunning, nil, deleted, lost),
		},
		snapshots: []v1.Snapshot{{}, {Status: v1.SnapshotStatus{Conditions: ready(metav1.ConditionTrue, "Snapshotted")}}},
		reports:   []v1.WorkspaceNode{class("a", 4, 2), class("b", 5, 1), class("dead", 0, 0), class("gone", 0, 0), {ObjectMeta: metav1.ObjectMeta{Name: "c"}}},
		nodes:     []corev1.Node{*node("a", true), *node("b", true), *node("dead", false), *node("c", true)},
	}}
	values := func() string {
		t.Helper()
		registry := prometheus.NewPedanticRegistry()
		g.Expect(registry.Register(totals)).To(Succeed())
		families, err := registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		var text strings.Builder
		for _, family := range families {
			for _, m := range family.GetMetric() {
				text.WriteString(strings.TrimPrefix(family.GetName(), "ws_daemon_fleet_"))
				for _, label := range m.GetLabel() {
					fmt.Fprintf(&text, " %s=%s", label.GetName(), label.GetValue())
				}
				fmt.Fprintf(&text, " %.0f\n", m.GetGauge().GetValue())
			}
		}
		return text.String()
	}
	g.Expect(values()).To(Equal("leader 0\n"))
	close(elected)
	totals.Tended(Tended{Mine: true, Counted: true, Packs: 3, Bytes: 300, Idle: 1, IdleBytes: 100}, nil, time.Unix(1000, 0))
	totals.Tended(Tended{Mine: true}, errors.New("no answer"), time.Unix(5000, 0))
	g.Expect(values()).To(Equal(`class_allocated_bytes class=default 0
class_free_bytes class=default 9663676416
class_size_bytes class=default 42949672960
leader 1
node_gone deleting=false reason=NodeDeleted 1
node_gone deleting=true reason=NodeDeleted 1
nodes ready=True 2
nodes ready=Unknown 3
snapshots ready=True 1
snapshots ready=Unknown 1
store_bytes 300
store_idle_bytes 100
store_missing_packs 0
store_packs 3
store_tended_timestamp_seconds 1000
volumes class=default 3
workspaces reason=Pending state=Deleting 1
workspaces reason=Running state=Running 2
workspaces reason=Stopped state=Stopped 1
`))
}
