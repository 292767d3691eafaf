package test

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// A workspace is made on one node, saved, stopped, goes on on another one, and is deleted. Its backups outlive it until it is
// deleted with them; then the name begins anew.
func TestLife(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	w := env.World(t)
	a, b := w.Node("a").Supervise(), w.Node("b").Supervise()

	ws := w.Workspace("one", a, harness.WithGit(w.GitServer()))
	o := ws.Ready()
	g.Expect(o.Status.Content).To(HaveField("Source", v1.SourceGit))
	g.Expect(o.Status.Git).To(HaveField("Branch", "main"))
	g.Expect(o.Status.Volume.Path).To(Equal(ws.Content()))
	g.Expect(ws.Read("README")).To(Equal("hello\n"))
	harness.WriteTree(t, ws.Content(), "first")
	g.Expect(ws.Backup("now").Name).To(BeEquivalentTo("1.1"))
	tree := harness.Snapshot(t, ws.Content())
	ws.Stop()
	c := finalBackup(ws)
	g.Expect(c.Message).To(Equal("backup 1.1"), "nothing had changed")
	a.Leftovers()

	tree = onOtherNode(t, ws, b, tree)
	ws.Delete().Gone()
	b.Leftovers()
	g.Expect(ws.History()).To(HaveLen(2))
	g.Expect(ws.History()[0].Name.String()).To(Equal("2.1"))

	ws = w.Workspace("one", a, harness.WithDeletion(v1.DeletionDelete))
	o = ws.Ready()
	g.Expect(o.Status.Claim).To(BeEquivalentTo(3))
	g.Expect(o.Status.Content.Backup).To(BeEquivalentTo("2.1"), "the name finds its backups again")
	g.Expect(harness.Snapshot(t, ws.Content())).To(Equal(tree))
	ws.Write("unsaved", "given up together with the backups")
	ws.Delete().Gone()
	a.Leftovers()
	g.Expect(ws.History()).To(BeEmpty(), "the tombstone covers all of it")

	ws = w.Workspace("one", b)
	o = ws.Ready()
	g.Expect(o.Status.Claim).To(BeEquivalentTo(4))
	g.Expect(o.Status.Content).To(HaveField("Source", v1.SourceEmpty))
	g.Expect(harness.Snapshot(t, ws.Content())).To(HaveLen(1), "the directory itself")
	g.Expect(a.Deaths() + b.Deaths()).To(BeZero())
}

// finalBackup waits until the workspace is stopped and returns what is said of its last backup.
func finalBackup(ws *harness.Workspace) metav1.Condition {
	ws.Stopped()
	return ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionTrue, v1.ReasonCommitted)
}

// onOtherNode starts a stopped workspace elsewhere, makes sure that nothing got lost, and changes it.
func onOtherNode(t *testing.T, ws *harness.Workspace, b *harness.Node, tree map[string]string) map[string]string {
	t.Helper()
	g := NewWithT(t)
	ws.StartOn(b)
	o := ws.Ready()
	g.Expect(o.Status.Claim).To(BeEquivalentTo(2))
	g.Expect(o.Status.Content).To(HaveField("Source", v1.SourceBackup))
	g.Expect(o.Status.Content.Backup).To(BeEquivalentTo("1.1"))
	g.Expect(o.Status.Conditions).NotTo(ContainElement(HaveField("Type", v1.ConditionFinalBackup)))
	g.Expect(harness.Snapshot(t, ws.Content())).To(Equal(tree))
	ws.Write("later", "more")
	return harness.Snapshot(t, ws.Content())
}
