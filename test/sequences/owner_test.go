package sequences

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// A node that is cut off from the API server, but not from the store, goes on committing until another takes over. The new
// owner is never fenced, and the old one's later work becomes a stray snapshot.
func TestS4_CutOffNodeNeitherFencesNorBuriesTheNewOwner(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a, b := w.Node("a").Start(), w.Node("b").Start()
	web := begin(w, a, "one", harness.WithInterval(time.Second))
	onA := filepath.Join(web.Content(), "file")
	g.Expect(web.Backup("first").Name).To(BeEquivalentTo("1.1"))

	a.Proxy.Cut()
	web.Write("file", "two, without the API server")
	web.AwaitBackup("1.2")
	g.Expect(web.Names()).To(HaveExactElements("1.2", "1.1", "1.0"))

	web.FailOverTo(b).Ready()
	g.Expect(web.Read("file")).To(Equal("two, without the API server"))
	g.Expect(os.WriteFile(onA, []byte("three, after the take-over"), 0o600)).To(Succeed())
	web.Write("new", "by the new owner")
	g.Expect(web.Backup("second").Name).To(BeEquivalentTo("2.1"))
	stray := web.AwaitStray(a)
	g.Expect(web.Backup("third").Name).To(Or(BeEquivalentTo("2.1"), BeEquivalentTo("2.2")))
	g.Expect(web.Names()[0]).To(HavePrefix("2."))

	a.Proxy.Mend()
	a.Leftovers()
	g.Expect(web.Saved("file", "--snapshot", stray)).To(Equal("three, after the take-over"))
	web.Ready()
	web.Stop()
	hasStopped(t, web, "new", "by the new owner")
}

// An old owner that comes back after retention has removed all its numbers finds none of them, and is fenced all the same.
func TestS4_OldNodeReturnsAfterItsNumbersWerePruned(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a, b := w.Node("a").Start(), w.Node("b").Start()
	web := begin(w, a, "one", func(ws *v1.Workspace) {
		none := int32(0)
		ws.Spec.Backup.Keep = v1.Keep{Last: 1, Daily: &none}
	})
	web.Backup("first")
	web.Write("file", "unsaved")
	a.Kill()

	web.FailOverTo(b).Ready()
	for _, trigger := range []string{"second", "third"} {
		web.Write("file", trigger)
		web.Backup(trigger)
	}
	g.Expect(web.Names()).To(HaveExactElements("2.2", "2.0"))

	a.Start().Leftovers()
	g.Expect(web.Saved("file", "--snapshot", web.AwaitStray(a))).To(Equal("unsaved"))
	g.Expect(web.Names()).To(HaveExactElements("2.2", "2.0"))
	w.AwaitEvent(v1.EventStraySnapshot, "node "+a.Name)
}

// A former owner becomes owner again while what it held under its old claim still lies on its disk.
func TestS4_FormerOwnerBecomesOwnerAgain(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		unsaved string // on the former owner's disk, in no backup
		source  v1.ContentSource
	}{
		"equal content is adopted":                        {"", v1.SourceAdopted},
		"other content is saved, and the backup restored": {"unsaved", v1.SourceBackup},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g, w := NewWithT(t), env.World(t)
			a, b := w.Node("a").Start(), w.Node("b").Start()
			web := begin(w, a, "one")
			web.Backup("first")
			if c.unsaved != "" {
				web.Write("file", c.unsaved)
			}
			a.Kill()
			web.FailOverTo(b).Ready()
			b.Kill()
			web.FailOverTo(a)
			a.Start()
			o := web.Ready()

			g.Expect(web.Read("file")).To(Equal("one"))
			g.Expect(o.Status.Content.Source).To(Equal(c.source))
			g.Expect(o.Status.Claim).To(BeEquivalentTo(3))
			if c.unsaved == "" {
				g.Expect(web.Strays(a)).To(BeEmpty())
				return
			}
			g.Expect(web.Saved("file", "--snapshot", web.AwaitStray(a))).To(Equal(c.unsaved))
		})
	}
}

// A status written late by a node that does not know yet that it lost the workspace is refused by the API server.
func TestS4_LateStatusWriteFromAStaleCacheIsRefused(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a, b := w.Node("a").Start(), w.Node("b").Start()
	web := begin(w, a, "one")
	old := web.Object()
	a.Kill()
	before := web.FailOverTo(b).Ready().Status

	apply := func(version string) error {
		data, err := json.Marshal(old.Status)
		g.Expect(err).NotTo(HaveOccurred())
		status := map[string]any{}
		g.Expect(json.Unmarshal(data, &status)).To(Succeed())
		u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
		u.SetGroupVersionKind(v1.GroupVersion.WithKind("Workspace"))
		u.SetNamespace(old.Namespace)
		u.SetName(old.Name)
		u.SetUID(old.UID)
		u.SetResourceVersion(version)
		return w.Client.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(v1.FieldOwner), client.ForceOwnership)
	}
	g.Expect(apply(old.ResourceVersion)).To(MatchError(ContainSubstring("the object has been modified")))
	g.Expect(apply("")).To(MatchError(ContainSubstring("status.nodeName may change only to spec.nodeName or to empty")))
	g.Expect(web.Object().Status).To(Equal(before))
}

// What a daemon misses while it is down does not matter: only what is wanted when it is back does.
func TestS5_StoppedRunningStoppedWhileTheDaemonIsDown(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	web := begin(w, a, "unsaved")
	a.Kill()
	web.Stop()
	web.StartOn(a)
	web.Stop()
	a.Start()
	hasStopped(t, web, "file", "unsaved")
	g.Expect(web.Names()).To(HaveExactElements("1.1", "1.0"))
}

// Deleted and created again under the same name, the workspaces are told apart by their UIDs.
func TestS1_SameNameDeletedAndCreatedAgain(t *testing.T) {
	t.Parallel()
	for policy, want := range map[v1.DeletionPolicy]string{v1.DeletionRetain: "old", v1.DeletionDelete: ""} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			g, w := NewWithT(t), env.World(t)
			a := w.Node("a").Start()
			web := begin(w, a, "old", harness.WithDeletion(policy))
			web.Backup("first")
			web.Delete().Gone()
			a.Leftovers()
			web = w.Workspace("web", a)
			g.Expect(web.Ready().Status.Claim).To(BeEquivalentTo(2))
			found, _ := os.ReadFile(filepath.Join(web.Content(), "file")) // absent after Delete
			g.Expect(string(found)).To(Equal(want))
		})
	}
}

// An object that was deleted by force leaves a volume behind. What was unsaved in it is kept, not handed to its namesake.
func TestS1_ForceDeletedWhileTheDaemonIsDownThenCreatedAgain(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a", shortGrace).Start()
	web := begin(w, a, "saved")
	web.Backup("first")
	web.Write("file", "unsaved")
	a.Kill()
	web.Delete()
	web.Patch(func(o *v1.Workspace) { o.Finalizers = nil })
	web.Gone()
	again := w.Workspace("web", a)
	a.Start()
	again.Ready()
	g.Expect(again.Read("file")).To(Equal("saved"))
	g.Expect(again.Saved("file", "--snapshot", again.AwaitStray(a))).To(Equal("unsaved"))
	a.Leftovers(again)
	again.Delete().Gone()
	a.Leftovers()
}

// The commands of the archive need no cluster: what was saved can be had without one.
func TestS1_ExportWithoutACluster(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	web := begin(w, a, "content")
	web.Backup("first")
	a.Kill()
	g.Expect(web.Saved("file")).To(Equal("content"))
}
