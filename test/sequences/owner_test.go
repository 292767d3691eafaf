package sequences

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// failover moves a workspace to another node while its own is taken for dead.
func (w *world) failover(name string, from, to *node) string {
	w.Helper()
	w.patch(name, "spec: {fencedNode: "+from.name+", nodeName: "+to.name+"}")
	return w.running(name, to)
}

// A node that is cut off from the API server, but not from the store, goes on committing until another takes over. The new
// owner is never fenced, and the old one's later work becomes a stray snapshot.
func TestS4_CutOffNodeNeitherFencesNorBuriesTheNewOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("a"), w.node("b")
	w.workspace("web", a, func(ws *v1.Workspace) { ws.Spec.Backup.Interval.Duration = time.Second })
	onA := w.running("web", a)
	w.write(onA, "file", "one")
	w.Expect(w.backup("web", "first")).To(Equal("1.1"))

	a.link.cut()
	w.write(onA, "file", "two, without the API server")
	w.Eventually(func() []string { return w.names("web") }).Should(HaveExactElements("1.2", "1.1", "1.0"))

	onB := w.failover("web", a, b)
	w.Expect(w.read(onB, "file")).To(Equal("two, without the API server"))
	w.write(onA, "file", "three, after the take-over")
	w.write(onB, "new", "by the new owner")
	w.Expect(w.backup("web", "second")).To(Equal("2.1"))
	w.Eventually(func() []string { return w.pins("stray.web." + a.name) }).Should(HaveLen(1))
	w.Expect(w.backup("web", "third")).To(Or(Equal("2.1"), Equal("2.2")))
	w.Expect(w.names("web")[0]).To(HavePrefix("2."))

	a.link.mend()
	a.clean()
	stray := w.pinned(w.pins("stray.web." + a.name)[0])
	w.Expect(w.read(stray, "file")).To(Equal("three, after the take-over"))
	w.is("web", v1.ConditionReady, "True/Running")
	w.Expect(w.get("web").Status.NodeName).To(Equal(b.name))
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	b.clean()
	w.Expect(w.read(w.newest("web"), "new")).To(Equal("by the new owner"))
}

// An old owner that comes back after retention has removed all its numbers finds none of them, and is fenced all the same.
func TestS4_OldNodeReturnsAfterItsNumbersWerePruned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("a"), w.node("b")
	w.workspace("web", a, func(ws *v1.Workspace) {
		none := int32(0)
		ws.Spec.Backup.Keep = v1.Keep{Last: 1, Daily: &none}
	})
	onA := w.running("web", a)
	w.write(onA, "file", "one")
	w.backup("web", "first")
	w.write(onA, "file", "unsaved")
	a.kill()

	onB := w.failover("web", a, b)
	for _, trigger := range []string{"second", "third"} {
		w.write(onB, "file", trigger)
		w.backup("web", trigger)
	}
	w.Expect(w.names("web")).To(HaveExactElements("2.2", "2.0"))

	a.start()
	a.clean()
	strays := w.pins("stray.web." + a.name)
	w.Expect(strays).To(HaveLen(1))
	w.Expect(w.read(w.pinned(strays[0]), "file")).To(Equal("unsaved"))
	w.Expect(w.names("web")).To(HaveExactElements("2.2", "2.0"))
	w.Eventually(func() []string { return w.events(t.Context()) }).Should(ContainElement(ContainSubstring("StraySnapshot: node " + a.name)))
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
			w := newWorld(t)
			a, b := w.node("a"), w.node("b")
			w.workspace("web", a)
			onA := w.running("web", a)
			w.write(onA, "file", "one")
			w.backup("web", "first")
			if c.unsaved != "" {
				w.write(onA, "file", c.unsaved)
			}
			a.kill()
			w.failover("web", a, b)
			b.kill()
			w.patch("web", "spec: {fencedNode: "+b.name+", nodeName: "+a.name+"}")
			a.start()
			onA = w.running("web", a)

			w.Expect(w.read(onA, "file")).To(Equal("one"))
			w.Expect(w.get("web").Status.Content.Source).To(Equal(c.source))
			w.Expect(w.get("web").Status.Claim).To(Equal(int64(3)))
			strays := w.pins("stray.web." + a.name)
			if c.unsaved == "" {
				w.Expect(strays).To(BeEmpty())
				return
			}
			w.Expect(strays).To(HaveLen(1))
			w.Expect(w.read(w.pinned(strays[0]), "file")).To(Equal(c.unsaved))
		})
	}
}

// A status written late by a node that does not know yet that it lost the workspace is refused by the API server.
func TestS4_LateStatusWriteFromAStaleCacheIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("a"), w.node("b")
	w.workspace("web", a)
	w.running("web", a)
	old := w.get("web")
	a.kill()
	w.failover("web", a, b)
	before := w.get("web").Status

	apply := func(version string) error {
		data, err := json.Marshal(old.Status)
		w.Expect(err).NotTo(HaveOccurred())
		status := map[string]any{}
		w.Expect(json.Unmarshal(data, &status)).To(Succeed())
		u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
		u.SetGroupVersionKind(v1.GroupVersion.WithKind("Workspace"))
		u.SetNamespace(old.Namespace)
		u.SetName(old.Name)
		u.SetUID(old.UID)
		u.SetResourceVersion(version)
		return w.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(v1.FieldOwner), client.ForceOwnership)
	}
	w.Expect(apply(old.ResourceVersion)).To(MatchError(ContainSubstring("the object has been modified")))
	w.Expect(apply("")).To(MatchError(ContainSubstring("status.nodeName may change only to spec.nodeName or to empty")))
	w.Expect(w.get("web").Status).To(Equal(before))
}

// What a daemon misses while it is down does not matter: only what is wanted when it is back does.
func TestS5_StoppedRunningStoppedWhileTheDaemonIsDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", "unsaved")
	a.kill()
	for _, state := range []string{"Stopped", "Running", "Stopped"} {
		w.patch("web", "spec: {state: "+state+"}")
	}
	a.start()
	w.stopped("web")
	a.clean()
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("unsaved"))
	w.Expect(w.names("web")).To(HaveExactElements("1.1", "1.0"))
}

// Deleted and created again under the same name, the workspaces are told apart by their UIDs.
func TestS1_SameNameDeletedAndCreatedAgain(t *testing.T) {
	t.Parallel()
	for policy, want := range map[v1.DeletionPolicy]string{v1.DeletionRetain: "old", v1.DeletionDelete: ""} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.node("a")
			w.workspace("web", a, func(ws *v1.Workspace) { ws.Spec.DeletionPolicy = policy })
			w.write(w.running("web", a), "file", "old")
			w.backup("web", "first")
			w.delete("web")
			w.gone("web")
			a.clean()
			w.workspace("web", a)
			found, _ := os.ReadFile(filepath.Join(w.running("web", a), "file")) // absent after Delete
			w.Expect(string(found)).To(Equal(want))
			w.Expect(w.get("web").Status.Claim).To(Equal(int64(2)))
		})
	}
}

// An object that was deleted by force leaves a volume behind. What was unsaved in it is kept, not handed to its namesake.
func TestS1_ForceDeletedWhileTheDaemonIsDownThenCreatedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newNode("a", shortGrace)
	a.start()
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", "saved")
	w.backup("web", "first")
	w.write(path, "file", "unsaved")
	a.kill()
	w.delete("web")
	w.patch("web", "metadata: {finalizers: null}")
	w.gone("web")
	w.workspace("web", a)
	a.start()
	path = w.running("web", a)
	w.Expect(w.read(path, "file")).To(Equal("saved"))
	w.Eventually(func() []string { return w.pins("stray.web.") }).Should(HaveLen(1))
	w.Expect(w.read(w.pinned(w.pins("stray.web.")[0]), "file")).To(Equal("unsaved"))
	w.Eventually(a.volumes).Should(HaveLen(2), "one volume and its journal entry")
	w.delete("web")
	w.gone("web")
	a.clean()
}

// The commands of the archive need no cluster: what was saved can be had without one.
func TestS1_ExportWithoutACluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	w.write(w.running("web", a), "file", "content")
	w.backup("web", "first")
	out := filepath.Join(w.dir, "web.tar")
	cmd := exec.CommandContext(t.Context(), binary, "archive", "export", "--store", "file://"+w.storeDir, "--domain", w.namespace, "--workspace", "web", out)
	text, err := cmd.CombinedOutput()
	w.Expect(err).NotTo(HaveOccurred(), string(text))
	tar := exec.CommandContext(t.Context(), "tar", "-xOf", out, "./file")
	text, err = tar.CombinedOutput()
	if err != nil {
		tar = exec.CommandContext(t.Context(), "tar", "-xOf", out, "file")
		text, err = tar.CombinedOutput()
	}
	w.Expect(err).NotTo(HaveOccurred(), string(text))
	w.Expect(string(text)).To(Equal("content"))
}
