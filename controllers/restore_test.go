package controllers

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// hidePacks takes the content of all backups out of the store until the returned function is called.
func (w *world) hidePacks() (back func()) {
	w.Helper()
	packs := filepath.Join(w.storeDir(), "d", w.namespace, "p")
	w.Expect(os.Rename(packs, packs+".away")).To(Succeed())
	return func() { w.Expect(os.Rename(packs+".away", packs)).To(Succeed()) }
}

// damageNewest cuts the newest commit of a workspace short.
func (w *world) damageNewest(name string) {
	w.Helper()
	var newest string
	w.Expect(filepath.WalkDir(filepath.Join(w.storeDir(), "d", w.namespace, "w", name), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && newest == "" {
			newest = path // names are inverted: the newest comes first
		}
		return err
	})).To(Succeed())
	w.Expect(os.Truncate(newest, 20)).To(Succeed())
}

// twoBackups makes a stopped workspace with the backups 1.1 ("one") and 1.2 ("two").
func (w *world) twoBackups() *v1.Workspace {
	w.Helper()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "one")
	w.backup(ws, "a")
	w.write(ws, "file", "two")
	w.stopped(ws)
	return ws
}

func TestSnapshotInitializerIsAskedOnlyForANewWorkspace(t *testing.T) {
	w := newWorld(t)
	w.start()
	source := w.create("src")
	w.running(source)
	w.write(source, "file", "of the snapshot")
	s, _ := w.taken(w.picture("base", "src", v1.DeletionRetain), "True/Snapshotted")
	ws := w.create("web", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "base"}}
	})
	w.running(ws)
	w.Expect(w.read(ws, "file")).To(Equal("of the snapshot"))
	w.write(ws, "own", "work")
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "Ready", "False/Stopped")
	w.gone(s)
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.read(ws, "own")).To(Equal("work"))
}

// A restore that failed half-way and was then stopped is made by the next start.
func TestRestoreThatFailedAndWasStoppedGoesOn(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.twoBackups()
	w.patch(ws, "spec: {restore: {backup: '1.1', request: r1}}")
	w.Eventually(func() *v1.RestoreStatus { return w.now(ws).Status.Restore }).ShouldNot(BeNil())
	back := w.hidePacks()
	w.patch(ws, "spec: {state: Running}")
	w.Expect(w.becomes(ws, "Stalled", "True/RestoreFailed")).To(ContainSubstring("set spec.restore to another backup"))
	w.stopped(ws)
	w.Expect(w.now(ws).Status.Claim).To(Equal(int64(2)))
	w.Expect(w.becomes(ws, "Ready", "False/Stopped")).To(Equal("the next start restores backup 1.1"))
	back()
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.read(ws, "file")).To(Equal("one"))
	w.Expect(w.now(ws).Status.Claim).To(Equal(int64(3)))

	w.write(ws, "file", "one, and more")
	w.stopped(ws)
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.read(ws, "file")).To(Equal("one, and more"), "a request is honoured once")
}

func TestDamagedNewestBackupDoesNotBarTheWayBack(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.twoBackups()
	w.damageNewest("web")
	w.patch(ws, "spec: {state: Running}")
	w.Expect(w.becomes(ws, "Stalled", "True/RestoreFailed")).To(ContainSubstring("set spec.restore to another backup"))
	w.stopped(ws)
	w.patch(ws, "spec: {restore: {backup: '1.1', request: r1}}")
	w.Eventually(func() *v1.RestoreStatus { return w.now(ws).Status.Restore }).ShouldNot(BeNil())
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.read(ws, "file")).To(Equal("one"))
	w.becomes(ws, "Stalled", "absent")
	w.Expect(w.events()).To(ContainSubstring("could not be pinned before going back"))
}

// imported stores an empty tree as the newest backup of a workspace, as `ws-daemon archive import` does.
func (w *world) imported(name string) {
	w.Helper()
	keeper := w.workspaces.Keeper
	domain, err := history.OpenDomain(w.Context(), keeper.Store, w.namespace, keeper.Cluster, false)
	w.Expect(err).NotTo(HaveOccurred())
	var empty bytes.Buffer
	tarball := tar.NewWriter(&empty)
	w.Expect(tarball.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755})).To(Succeed())
	w.Expect(tarball.Close()).To(Succeed())
	_, err = content.Standalone{Domain: domain, Namespace: w.namespace, Workspace: name}.Import(w.Context(), &empty)
	w.Expect(err).NotTo(HaveOccurred())
}

// Somebody else wrote to the history of a workspace that this node holds: nothing more is committed, a person is asked, and
// told the way out, which loses nothing.
func TestForeignHistoryStallsAndHasAWayOut(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.Backup.Interval.Duration = 0 })
	w.running(ws)
	w.write(ws, "file", "here")
	w.imported("web")
	w.patch(ws, "spec: {backup: {trigger: now}}")
	says := w.becomes(ws, "Stalled", "True/Fenced")
	w.Expect(says).To(ContainSubstring("unsaved work was kept as snapshot stray.web."))
	w.Expect(says).To(ContainSubstring("set the annotation workspace.wsdaemon.dev/discard=1"))
	w.becomes(ws, "Ready", "True/Running")
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "FinalBackup", "False/Fenced")
	w.becomes(ws, "Stalled", "True/Fenced")
	w.patch(ws, "metadata: {annotations: {workspace.wsdaemon.dev/discard: '1'}}")
	w.becomes(ws, "Ready", "False/Stopped")
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.path(ws, "file")).NotTo(BeAnExistingFile())
}

func TestFencedBurialStallsAndHasAWayOut(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.DeletionPolicy = v1.DeletionDelete })
	w.running(ws)
	w.write(ws, "file", "one")
	w.stopped(ws)
	w.imported("web")
	w.Expect(w.Delete(t.Context(), ws)).To(Succeed())
	w.Expect(w.becomes(ws, "Stalled", "True/Fenced")).To(HaveSuffix("set spec.deletionPolicy to Retain to let the object go and keep its backups"))
	w.becomes(ws, "Ready", "False/Deleting")
	w.patch(ws, "spec: {deletionPolicy: Retain}")
	w.gone(ws)
}

// A stop that is taken back leaves no trace in the next one.
func TestStopTakenBack(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	pod := w.pod("web")
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "FinalBackup", "False/WaitingForPods")
	w.Expect(w.now(ws).Status.Operation.Type).To(Equal(v1.OperationFinalBackup))
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.becomes(ws, "FinalBackup", "absent")
	w.Expect(w.now(ws).Status.Operation).To(BeNil())
	w.Expect(w.Delete(t.Context(), pod, client.GracePeriodSeconds(0))).To(Succeed())
}
