package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// An object for a node that never was says so, until the node joins.
func TestAWorkspaceForANodeThatIsNotThereSaysSo(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	w.Controller("c", harness.NodeGrace).Start().Leads()
	late := w.Node("late")
	web := w.Workspace("web", late)
	c := web.AwaitCondition(v1.ConditionNodeGone, metav1.ConditionTrue, v1.ReasonNodeNotFound)
	g.Expect(c.Message).To(Equal("there is no node " + late.Name + " in the cluster: correct spec.nodeName, or let the node join"))
	late.Join().Start()
	web.AwaitNoCondition(v1.ConditionNodeGone)
	web.Ready()
	other := w.Workspace("other", a)
	other.Ready()
	other.AwaitCondition(v1.ConditionNodeGone, metav1.ConditionTrue, v1.ReasonNodeDeleted)
}

// An API server that has no node at all has lost them: nothing is let go. It is when there is one again.
func TestS10_AClusterWithoutNodesLetsNothingGo(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Join().Start()
	w.Controller("c", harness.NodeGrace).Start().Leads()
	web := begin(w, a, "one")
	web.Backup("first")
	a.Kill()
	a.Leave()
	web.Delete()
	web.Await("is not let go", func(o *v1.Workspace) error {
		gone := apimeta.FindStatusCondition(o.Status.Conditions, v1.ConditionNodeGone)
		if gone == nil {
			return fmt.Errorf("nothing is said")
		}
		if !g.Expect(gone.Message).To(HavePrefix("node " + a.Name)) {
			return fmt.Errorf("it says %s", gone.Message)
		}
		return contains(gone.Message, "It cannot be let go yet: the cluster has no node at all")
	})
	bystander(w)
	web.Gone()
}

func contains(text, part string) error {
	if ok, _ := ContainSubstring(part).Match(text); !ok {
		return fmt.Errorf("it says %q", text)
	}
	return nil
}

// A snapshot gets the node of its workspace; where that is gone, and the snapshot is to be removed, any node does.
func TestSnapshotsGetTheirNode(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	a, b := w.Node("a").Join().Start(), w.Node("b").Join().Start()
	w.Controller("c", harness.NodeGrace).Start().Leads()
	web := begin(w, a, "one")
	s := &v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "shot"},
		Spec:       v1.SnapshotSpec{WorkspaceName: web.Name, DeletionPolicy: v1.DeletionDelete},
	}
	g.Expect(w.Client.Create(t.Context(), s)).To(Succeed())
	look := func() error { return w.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s) }
	w.Eventually("the snapshot is ready", func() error {
		if err := look(); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(s.Status.Conditions, v1.ConditionReady) {
			return fmt.Errorf("its node is %q, its conditions are %+v", s.Spec.NodeName, s.Status.Conditions)
		}
		return nil
	})
	g.Expect(s.Spec.NodeName).To(Equal(a.Name))
	g.Expect(web.Saved("file", "--snapshot", s.Status.SnapshotID)).To(Equal("one"))

	a.Kill()
	a.Leave()
	g.Expect(w.Client.Delete(t.Context(), s)).To(Succeed())
	w.Eventually("the snapshot is gone", func() error {
		if err := look(); err == nil {
			return fmt.Errorf("its node is %q", s.Spec.NodeName)
		} else if client.IgnoreNotFound(err) != nil {
			return err
		}
		return nil
	})
	g.Expect(b.Alive()).To(BeTrue())
	g.Expect(web.Domain().Pins(t.Context(), "")).To(BeEmpty())
}

// A snapshot is not given to a node that is dead, whatever its daemon has said last. It waits and says so, and where it was the controller who has
// chosen, another node gets it.
func TestSnapshotsGetANodeThatIsReady(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	a, b := w.Node("a").Join().Start(), w.Node("b").Join().Start()
	w.Controller("c", harness.NodeGrace).Start().Leads()
	web := begin(w, a, "one")
	web.Stop().Stopped()
	a.Kill()
	a.Report(corev1.ConditionUnknown)
	b.Report(corev1.ConditionFalse)
	take := func(name, node string) *v1.Snapshot {
		s := &v1.Snapshot{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name}, Spec: v1.SnapshotSpec{WorkspaceName: web.Name, NodeName: node}}
		g.Expect(w.Client.Create(t.Context(), s)).To(Succeed())
		return s
	}
	await := func(s *v1.Snapshot, node, kind, reason string) {
		t.Helper()
		w.Eventually(s.Name+" says "+reason, func() error {
			if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
				return err
			}
			if c := apimeta.FindStatusCondition(s.Status.Conditions, kind); s.Spec.NodeName != node || c == nil || c.Reason != reason {
				return fmt.Errorf("its node is %q, its conditions are %+v", s.Spec.NodeName, s.Status.Conditions)
			}
			return nil
		})
	}
	free, named := take("free", ""), take("named", a.Name)
	await(free, "", v1.ConditionNodeGone, v1.ReasonNoNodeReady)
	await(named, a.Name, v1.ConditionNodeGone, v1.ReasonNodeNotReady)
	a.Report(corev1.ConditionTrue) // for a moment
	w.Eventually("it is given to the workspace's node, and says nothing any more", func() error {
		if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(free), free); err != nil {
			return err
		}
		if free.Spec.NodeName != a.Name || len(free.Status.Conditions) > 0 {
			return fmt.Errorf("its node is %q, its conditions are %+v", free.Spec.NodeName, free.Status.Conditions)
		}
		return nil
	})
	b.Report(corev1.ConditionTrue)
	a.Report(corev1.ConditionUnknown)
	await(free, b.Name, v1.ConditionReady, v1.ReasonSnapshotted)
	g.Expect(web.Saved("file", "--snapshot", free.Status.SnapshotID)).To(Equal("one"))
	await(named, a.Name, v1.ConditionNodeGone, v1.ReasonNodeNotReady)
}

// Of two replicas one leads. Killed at any step of letting an object go, it is made up for by the other one, and people are told once.
func TestS5_AnotherReplicaGoesOn(t *testing.T) {
	for point, left := range map[string]bool{"fleet.buried": true, "fleet.told": true, "fleet.released": false} {
		t.Run(point, func(t *testing.T) { anotherGoesOn(t, point, left) })
	}
}

// anotherGoesOn kills the leader at a point, where it may have left the object to be let go by the next.
func anotherGoesOn(t *testing.T, point string, left bool) {
	t.Helper()
	g, w := NewWithT(t), env.World(t)
	bystander(w)
	a := w.Node("a").Join().Start()
	first := w.Controller("first", harness.NodeGrace)
	first.KillAt(point)
	first.Start().Leads()
	second := w.Controller("second", harness.NodeGrace).Start()
	web := begin(w, a, "one", harness.WithDeletion(v1.DeletionDelete))
	web.Backup("first")
	a.Kill()
	a.Leave()
	web.Delete()
	w.Eventually("the first one is dead", func() error {
		if first.Alive() {
			return fmt.Errorf("it lives")
		}
		return nil
	})
	g.Expect(web.Exists()).To(Equal(left))
	web.Gone()
	if left {
		g.Expect(second.Log()).To(ContainSubstring("let a workspace go"))
	}
	var list eventsv1.EventList
	g.Expect(w.Client.List(t.Context(), &list, client.InNamespace(w.Namespace))).To(Succeed())
	told := 0
	for i := range list.Items {
		if list.Items[i].Reason == v1.EventNodeGone {
			told++
		}
	}
	g.Expect(told).To(Equal(1))
	g.Expect(web.Names()).To(BeEmpty())

	// By SIGTERM the lease is given up at once.
	second.Leads()
	third := w.Controller("third", harness.NodeGrace).Start()
	second.Stop()
	third.Leads()
}

// Where there is a controller, the store is tended by it, and daemons have no turn.
func TestTheControllerTendsTheStore(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	bystander(w)
	w.Controller("c", harness.NodeGrace).Start().Leads()
	turns := func() (texts []string) {
		files, err := filepath.Glob(filepath.Join(w.Store, "tend", "*", "*"))
		g.Expect(err).NotTo(HaveOccurred())
		for _, file := range files {
			if filepath.Ext(filepath.Dir(file)) == ".collect" {
				continue
			}
			text, err := os.ReadFile(file)
			g.Expect(err).NotTo(HaveOccurred())
			texts = append(texts, string(text))
		}
		return texts
	}
	g.Eventually(turns, harness.Patience, 100*time.Millisecond).Should(Equal([]string{"controller\n", "controller\n"}), "this hour's and the next one's")
	a := w.Node("a").Join().Start()
	web := begin(w, a, "one")
	web.Backup("first")
	g.Expect(turns()).To(Equal([]string{"controller\n", "controller\n"}))
}
