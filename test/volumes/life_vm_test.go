//go:build vm

package volumes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// A workspace is made, written to, kept at its limit, backed up, stopped, and started on another node. That dies with what nobody has
// saved; the first node takes over, and the other cleans up when it is back.
func TestLifeOfAWorkspace(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a"), w.node("b")
	w.workspace("web", a, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	ws := w.await("web", "Running")
	w.write(ws, "hello > greeting")
	w.fill(ws)

	w.backup("web", "now")

	w.patch("web", `{"spec":{"state":"Stopped"}}`)
	w.await("web", "Stopped")
	w.Eventually(a.volumes).Should(BeEmpty())
	w.patch("web", fmt.Sprintf(`{"spec":{"state":"Running","nodeName":%q}}`, b.name))
	ws = w.await("web", "Running")
	w.Expect(ws.Status.NodeName).To(Equal(b.name))
	w.Expect(os.ReadFile(filepath.Join(ws.Status.Volume.Path, "greeting"))).To(BeEquivalentTo("hello\n"))

	w.write(ws, "unsaved > greeting")
	b.kill()
	w.patch("web", fmt.Sprintf(`{"spec":{"nodeName":%q,"fencedNode":%q}}`, a.name, b.name))
	w.Eventually(func() (string, error) {
		err := w.get(ws, "web")
		return ws.Status.NodeName, err
	}).Should(Equal(a.name), func() string { return status(ws) })
	ws = w.await("web", "Running")
	w.Expect(os.ReadFile(filepath.Join(ws.Status.Volume.Path, "greeting"))).To(BeEquivalentTo("hello\n"))
	b.start()
	w.Eventually(b.volumes).Should(BeEmpty())
	w.Eventually(w.events).Should(ContainElement(ContainSubstring("kept as snapshot stray.web.")))

	w.remove("web")
	w.Eventually(a.volumes).Should(BeEmpty())
}

// Two workspaces begin with one snapshot; the second begins with a copy of what the first began with, where volumes can do so.
func TestSnapshotOfTwo(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a"), w.node("b")
	w.workspace("web", a, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	w.write(w.await("web", "Running"), "hello > greeting")
	w.snapshot("first", "web", a)

	for _, name := range []string{"one", "two"} {
		w.workspace(name, b, v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "first"}})
		ws := w.await(name, "Running")
		w.Expect(os.ReadFile(filepath.Join(ws.Status.Volume.Path, "greeting"))).To(BeEquivalentTo("hello\n"))
		w.write(ws, name+" > greeting")
	}
	if onLVM() {
		w.Eventually(w.events).Should(ContainElement(ContainSubstring("was cloned from a template on the node: 1 files")))
	}
	for _, name := range []string{"web", "one", "two"} {
		w.remove(name)
	}
	w.Eventually(b.volumes).Should(BeEmpty())
}

func (w *world) workspace(name string, n *node, init v1.Initializer) {
	w.t.Helper()
	inodes := int64(1000)
	w.create(&v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1.WorkspaceSpec{
			NodeName: n.name, Owner: v1.Owner{UID: 33333, GID: 33333}, Initializer: init, DeletionPolicy: v1.DeletionDelete,
			Volume: v1.VolumeSpec{Size: resource.MustParse("304Mi"), Inodes: &inodes}, Backup: v1.BackupSpec{Interval: &metav1.Duration{}},
		},
	})
	w.say("%s was created on %s", name, n.name)
}

// as runs a shell command in a workspace as its owner.
func (w *world) as(ws *v1.Workspace, script string) (string, error) {
	cmd := exec.CommandContext(w.t.Context(), "sh", "-c", script)
	cmd.Dir = ws.Status.Volume.Path
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 33333, Gid: 33333}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) write(ws *v1.Workspace, what string) {
	w.t.Helper()
	out, err := w.as(ws, "echo "+what)
	w.Expect(err).NotTo(HaveOccurred(), out)
}

// fill writes until the limits of bytes and of inodes, and expects the owner to be stopped there.
func (w *world) fill(ws *v1.Workspace) {
	w.t.Helper()
	limit := Or(ContainSubstring("No space left"), ContainSubstring("quota exceeded"))
	out, err := w.as(ws, "head -c 400M /dev/zero > large")
	w.Expect(err).To(HaveOccurred())
	w.Expect(out).To(limit)
	st, err := os.Stat(filepath.Join(ws.Status.Volume.Path, "large"))
	w.Expect(err).NotTo(HaveOccurred())
	w.say("a writer was stopped after %d bytes", st.Size())
	w.Expect(st.Size()).To(BeNumerically("<", 304<<20))
	out, err = w.as(ws, "rm large; i=0; while : > f$i; do i=$((i+1)); done")
	w.Expect(err).To(HaveOccurred())
	w.Expect(out).To(limit)
	out, err = w.as(ws, "rm f*")
	w.Expect(err).NotTo(HaveOccurred(), out)
}

// events returns what was said of the namespace's objects.
func (w *world) events() ([]string, error) {
	var list eventsv1.EventList
	err := w.client.List(w.t.Context(), &list, client.InNamespace(w.namespace))
	notes := make([]string, 0, len(list.Items))
	for i := range list.Items {
		notes = append(notes, list.Items[i].Note)
	}
	return notes, err
}

// remove deletes a workspace and waits until it is gone.
func (w *world) remove(name string) {
	w.t.Helper()
	ws := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	w.Expect(w.client.Delete(w.t.Context(), ws)).To(Succeed())
	w.Eventually(func() bool { return apierrors.IsNotFound(w.get(ws, name)) }).Should(BeTrue())
	w.say("%s was removed", name)
}
