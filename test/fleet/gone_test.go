package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// begin makes a workspace on a node that has joined, with a file.
func begin(w *harness.World, n *harness.Node, text string, opts ...func(*v1.Workspace)) *harness.Workspace {
	ws := w.Workspace("web", n, opts...)
	ws.Ready()
	ws.Write("file", text)
	return ws
}

// bystander is a node that stays: a cluster without any would not be believed.
func bystander(w *harness.World) *harness.Node { return w.Node("bystander").Join() }

// A node whose Node was deleted is said to be gone, and nothing else happens: the daemon, if it lives, goes on, and neither undoes
// what the other writes. When there is a Node of that name again, by another UID, nothing is said any more.
func TestS4_AWorkspaceWhoseNodeIsGoneIsLeftAlone(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	bystander(w)
	a := w.Node("a").Join().Start()
	w.Controller("c", harness.NodeGrace).Start().Leads()
	web := begin(w, a, "one")
	g.Expect(web.Backup("first").Name).To(BeEquivalentTo("1.1"))
	g.Expect(web.Condition(v1.ConditionNodeGone)).To(BeZero())

	a.Leave()
	c := web.AwaitCondition(v1.ConditionNodeGone, metav1.ConditionTrue, v1.ReasonNodeDeleted)
	g.Expect(c.Message).To(MatchRegexp("^node %s holds the content and is not in the cluster any more: the last backup is 1.1 of .*name it in spec.fencedNode", a.Name))
	web.Write("file", "two")
	g.Expect(web.Backup("second").Name).To(BeEquivalentTo("1.2"), "the daemon goes on")
	o := web.Ready()
	g.Expect(o.Status.NodeName).To(Equal(a.Name))
	web.Await("is still said to have no node", func(o *v1.Workspace) error {
		gone := apimeta.FindStatusCondition(o.Status.Conditions, v1.ConditionNodeGone)
		if gone == nil || !strings.Contains(gone.Message, "is 1.2 of") {
			return fmt.Errorf("it says %+v", gone)
		}
		if !gone.LastTransitionTime.Equal(&c.LastTransitionTime) {
			return errors.New("it says so since another time")
		}
		return nil
	})
	g.Expect(owners(t, w, "web")).To(Equal("ws-daemon: BackedUp ContentReady Ready VolumeReady; ws-daemon-controller: NodeGone"))

	a.Join()
	web.AwaitNoCondition(v1.ConditionNodeGone)
	web.Stop().Stopped()
	g.Expect(web.Saved("file")).To(Equal("two"))
}

// owners says who owns which conditions of a workspace.
func owners(t *testing.T, w *harness.World, name string) string {
	t.Helper()
	g := NewWithT(t)
	var ws v1.Workspace
	g.Expect(w.Client.Get(t.Context(), client.ObjectKey{Namespace: w.Namespace, Name: name}, &ws)).To(Succeed())
	var parts []string
	for _, m := range ws.ManagedFields {
		if m.Subresource != "status" {
			continue
		}
		var kinds []string
		for _, kind := range []string{v1.ConditionBackedUp, v1.ConditionContentReady, v1.ConditionNodeGone, v1.ConditionReady, v1.ConditionVolumeReady} {
			if strings.Contains(m.FieldsV1.GetRawString(), `k:{\"type\":\"`+kind+`\"}`) {
				kinds = append(kinds, kind)
			}
		}
		parts = append(parts, m.Manager+": "+strings.Join(kinds, " "))
	}
	return strings.Join(parts, "; ")
}

// An object that is being deleted while its node is dead goes when the grace is over, and an event says what is lost. Its backups stay, or
// are marked for removal, as it says.
func TestADeletedWorkspaceIsLetGoWithTheTruth(t *testing.T) {
	for _, policy := range []v1.DeletionPolicy{v1.DeletionRetain, v1.DeletionDelete} {
		t.Run(string(policy), func(t *testing.T) {
			g, w := NewWithT(t), env.World(t)
			bystander(w)
			a := w.Node("a", func(c *config.Config) { c.Content.OrphanGrace.Duration = 2 * time.Second }).Join().Start()
			w.Controller("c", harness.NodeGrace).Start().Leads()
			web := begin(w, a, "one", harness.WithDeletion(policy))
			web.Backup("first")
			web.Write("file", "two, which is lost")
			a.Kill()
			a.Leave()
			gone := web.AwaitCondition(v1.ConditionNodeGone, metav1.ConditionTrue, v1.ReasonNodeDeleted)
			web.Delete().Gone()
			w.AwaitEvent(v1.EventNodeGone, "node "+a.Name+" is gone with the content: the object is let go without a final backup. The last backup is 1.1 of ")
			w.AwaitEvent(v1.EventNodeGone, "What was changed since is lost, unless the node comes back: then it keeps that as a stray snapshot.")
			g.Expect(metav1.Now().Sub(gone.LastTransitionTime.Time)).To(BeNumerically(">=", harness.NodeGrace))
			if policy == v1.DeletionDelete {
				g.Expect(web.Names()).To(BeEmpty(), "a tombstone covers them")
			} else {
				g.Expect(web.Names()).To(Equal([]string{"1.1", "1.0"}))
			}
			a.Join().Start() // after all
			g.Expect(web.Saved("file", "--snapshot", web.AwaitStray(a))).To(Equal("two, which is lost"))
			a.Leftovers()
		})
	}
}

// A node that comes back before the grace is over, the same one, saves what it has.
func TestS1_ANodeThatComesBackInTimeSavesItsContent(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	bystander(w)
	a := w.Node("a").Join().Start()
	c := w.Controller("c", time.Hour).Start().Leads()
	web := begin(w, a, "one")
	web.Backup("first")
	web.Write("file", "two")
	a.Kill()
	a.Leave()
	web.Delete()
	gone := web.AwaitCondition(v1.ConditionNodeGone, metav1.ConditionTrue, v1.ReasonNodeDeleted)
	g.Expect(gone.Message).NotTo(BeEmpty())
	a.Join()
	web.AwaitNoCondition(v1.ConditionNodeGone)
	a.Start()
	web.Gone()
	g.Expect(web.Saved("file")).To(Equal("two"))
	g.Expect(c.Log()).NotTo(ContainSubstring("let a workspace go"))
	a.Leftovers()
}

// A daemon that lives although its Node was deleted does what is asked for: the controller leaves it the time.
func TestS1_ADaemonThatLivesReleasesItsContent(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	bystander(w)
	a := w.Node("a").Join().Start()
	c := w.Controller("c", harness.NodeGrace).Start().Leads()
	web := begin(w, a, "one")
	web.Backup("first")
	a.Leave()
	web.AwaitCondition(v1.ConditionNodeGone, metav1.ConditionTrue, v1.ReasonNodeDeleted)
	web.Write("file", "two")
	web.Delete().Gone()
	g.Expect(web.Saved("file")).To(Equal("two"))
	g.Expect(c.Log()).NotTo(ContainSubstring("let a workspace go"))
	a.Leftovers()
}
