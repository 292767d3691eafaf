package fleet

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// node makes a Node, whose kubelet reports or does not.
func node(name string, ready bool) *corev1.Node {
	status := corev1.ConditionUnknown
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name)},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: status},
		}},
	}
}

// report is what the daemon of a node has said last.
func report(name string, status metav1.ConditionStatus) *v1.WorkspaceNode {
	return &v1.WorkspaceNode{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     v1.WorkspaceNodeStatus{Conditions: []metav1.Condition{{Type: v1.ConditionReady, Status: status}}},
	}
}

// shot makes an old snapshot of web that names a node, if any.
func shot(node string, changes ...func(*v1.Snapshot)) *v1.Snapshot {
	s := &v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "team", Name: "shot", UID: "1", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)), Finalizers: []string{v1.FinalizerContent},
		},
		Spec: v1.SnapshotSpec{WorkspaceName: "web", NodeName: node},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func leaving(s *v1.Snapshot) { s.DeletionTimestamp = &metav1.Time{Time: now} }

func made(s *v1.Snapshot) {
	s.Status.Conditions = []metav1.Condition{{Type: v1.ConditionReady, Status: metav1.ConditionTrue}}
}

// chosen is that a field of the spec was set by somebody.
func chosen(by, field string) func(*v1.Snapshot) {
	return func(s *v1.Snapshot) {
		s.ManagedFields = append(s.ManagedFields, metav1.ManagedFieldsEntry{
			Manager: by, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: v1.GroupVersion.String(), FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:` + field + `":{}}}`),
		})
	}
}

// things are what the API server has beside the snapshot.
func things(objects ...client.Object) []client.Object { return objects }

// Of the nodes that are ready one makes a snapshot; what a person has chosen, or what lies on a node, stays there, and is told.
func TestASnapshotGetsANodeThatCanServeIt(t *testing.T) {
	yes := metav1.ConditionTrue
	pair := func(a, b bool) []client.Object {
		return things(node("a", a), node("b", b), report("a", yes), report("b", yes))
	}
	held := func(by string) client.Object {
		return object(func(ws *v1.Workspace) { ws.Namespace, ws.Spec.NodeName, ws.Status.NodeName = "team", by, by })
	}
	waiting := object(free, func(ws *v1.Workspace) { ws.Namespace = "team" }) // for node a
	ours := chosen(v1.FieldOwnerFleet, "nodeName")
	for name, c := range map[string]struct {
		s      *v1.Snapshot
		world  []client.Object
		node   string
		reason string
	}{
		"the only one that is ready":                 {shot(""), pair(false, true), "b", ""},
		"whose daemon serves":                        {shot(""), things(node("a", true), node("b", true), report("a", metav1.ConditionFalse), report("b", yes)), "b", ""},
		"that is there":                              {shot(""), things(node("b", true), report("a", yes), report("b", yes)), "b", ""},
		"none is ready":                              {shot(""), pair(false, false), "", v1.ReasonNoNodeReady},
		"there is none at all":                       {shot(""), nil, "", v1.ReasonNoNodeReady},
		"that of the workspace":                      {shot(""), append(pair(true, true), held("b")), "b", ""},
		"that shall have the workspace":              {shot(""), append(pair(true, true), waiting), "a", ""},
		"that shall have the workspace is not ready": {shot(""), append(pair(false, true), waiting), "b", ""},
		"that holds the workspace is not ready":      {shot(""), append(pair(false, true), held("a")), "a", ""},
		"chosen here, not ready any more":            {shot("a", ours), append(pair(false, true), waiting), "b", ""},
		"chosen here, gone":                          {shot("a", ours), things(node("b", true), report("b", yes)), "b", ""},
		"chosen here, none is ready":                 {shot("a", ours), pair(false, false), "a", v1.ReasonNodeNotReady},
		"chosen here, holds the workspace":           {shot("a", ours), append(pair(false, true), held("a")), "a", v1.ReasonNodeNotReady},
		"chosen here, ready":                         {shot("a", ours), append(pair(true, true), held("b")), "a", ""},
		"chosen by a person, not ready":              {shot("a", chosen("kubectl", "nodeName"), chosen(v1.FieldOwnerFleet, "other")), pair(false, true), "a", v1.ReasonNodeNotReady},
		"chosen by a person, gone":                   {shot("a"), things(node("b", true), report("b", yes)), "a", v1.ReasonNodeNotFound},
		"made":                                       {shot("a", ours, made), pair(false, true), "a", ""},
		"to be removed, gone":                        {shot("a", leaving), things(node("b", true), report("b", yes)), "b", ""},
		"to be removed, gone with the workspace":     {shot("a", leaving), things(node("b", true), report("b", yes), held("a")), "b", ""},
		"to be removed, not ready":                   {shot("a", leaving), pair(false, true), "a", v1.ReasonNodeNotReady},
		"to be removed, may be made":                 {shot("a", leaving, ours), append(pair(false, true), held("a")), "a", v1.ReasonNodeNotReady},
		"to be removed, made, not ready, ours":       {shot("a", leaving, ours, made), pair(false, true), "b", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := passOver(t, c.s, c.world)
			reason := ""
			if said := gone(got.Status.Conditions); said != nil {
				reason = said.Reason
			}
			g.Expect([]string{got.Spec.NodeName, reason}).To(Equal([]string{c.node, c.reason}))
		})
	}
}

// passOver makes one pass over a snapshot, and returns what it is then.
func passOver(t *testing.T, s *v1.Snapshot, world []client.Object) v1.Snapshot {
	t.Helper()
	g := NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	g.Expect(v1.AddToScheme(scheme)).To(Succeed())
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(world, s)...).WithStatusSubresource(s).WithReturnManagedFields().Build()
	r := &snapshots{&Fleet{Client: c, Reader: c, Clock: testclock.NewFakePassiveClock(now)}}
	var got v1.Snapshot
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(s), &got)).To(Succeed())
	got.ManagedFields = s.ManagedFields // the fake one makes its own
	after, err := r.pass(t.Context(), &got)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(after).To(BeNumerically("<=", lookAgain/10))
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(s), &got)).To(Succeed())
	return got
}

// Snapshots are spread over the nodes, and each gets the same one at every look.
func TestSnapshotsAreSpread(t *testing.T) {
	g := NewWithT(t)
	all := things(node("a", true), node("b", true), report("a", metav1.ConditionTrue), report("b", metav1.ConditionTrue))
	names := map[string]int{}
	for _, uid := range []types.UID{"1", "2", "3", "4", "5", "6"} {
		s := shot("", func(s *v1.Snapshot) { s.UID = uid })
		names[passOver(t, s, all).Spec.NodeName]++
		g.Expect(passOver(t, s, all).Spec.NodeName).To(Equal(passOver(t, s, all).Spec.NodeName))
	}
	g.Expect(names).To(Equal(map[string]int{"a": 4, "b": 2}))
}

func TestTrimNode(t *testing.T) {
	g := NewWithT(t)
	whole := node("a", true)
	whole.Labels = map[string]string{"a": "b"}
	g.Expect(TrimNode(whole)).To(Equal(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "uid-of-a"},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}))
	g.Expect(TrimNode("a tombstone")).To(Equal("a tombstone"))
}
