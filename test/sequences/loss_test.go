package sequences

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
)

func shortGrace(c *config.Config) { c.Content.OrphanGrace.Duration = 3 * time.Second }

// A pod that starts after the daemon has looked for pods keeps the content, and what it writes is saved.
func TestS1_PodStartsBetweenTheCheckAndTheRemoval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newNode("a")
	// killed when the content has just been withdrawn: at the restart the first check is over, as far as the disk shows
	a.env = []string{"WS_DAEMON_FAULT=release.withdrawn", "WS_DAEMON_FAULT_ONCE=" + filepath.Join(w.dir, "once")}
	a.start()
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", "one")
	w.patch("web", "spec: {state: Stopped}")
	w.Eventually(func() bool {
		select {
		case <-a.ended:
			return true
		default:
			return false
		}
	}).Should(BeTrue(), "the daemon is killed at the fault point")
	pod := w.pod("late", "web", a)
	a.start()
	w.is("web", v1.ConditionFinalBackup, "False/WaitingForPods")
	withdrawn := filepath.Join(filepath.Dir(path), ".ws", "withdrawn")
	for _, dir := range []string{path, withdrawn} {
		if _, err := os.Stat(dir); err == nil {
			w.write(dir, "late", "by the pod") // through the mount that it had
		}
	}
	w.Consistently(func() string { return w.get("web").Status.NodeName }, "2s").Should(Equal(a.name))
	w.end(pod)
	w.stopped("web")
	a.clean()
	w.Expect(w.read(w.newest("web"), "late")).To(Equal("by the pod"))
}

// Pods that stay are named when the deadline has passed. The content is saved as it is, and stays.
func TestS7_PodsRemain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a", func(c *config.Config) { c.Content.Timeouts.Pods.Duration = 2 * time.Second })
	w.workspace("web", a)
	path := w.running("web", a)
	pod := w.pod("stays", "web", a)
	w.write(path, "file", "one")
	w.patch("web", "spec: {state: Stopped}")
	w.is("web", v1.ConditionStalled, "True/PodsRemain")
	w.Eventually(func() []string { return w.names("web") }).Should(ContainElement("1.1"))
	w.Expect(w.get("web").Status.NodeName).To(Equal(a.name))
	w.Expect(w.read(path, "file")).To(Equal("one"))
	w.write(path, "file", "two")
	w.end(pod)
	w.stopped("web")
	w.is("web", v1.ConditionStalled, "absent")
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("two"))
}

// A rule of the bucket deleted the packs of the newest backup. The tree has not changed since, and is saved anew.
func TestS1_BucketRuleDeletedAParentPack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	w.write(w.running("web", a), "file", "one")
	w.backup("web", "first")
	w.Expect(os.RemoveAll(filepath.Join(w.storeDir, "d", w.namespace, "p"))).To(Succeed())
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	a.clean()
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("one"))
}

// A daemon that starts without its disk does nothing but say so. With the disk back it goes on.
func TestS10_WorkingAreaNotMountedAtStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", "unsaved")
	a.kill()
	disk := a.area + ".disk"
	w.Expect(os.Rename(a.area, disk)).To(Succeed())
	w.Expect(os.Mkdir(a.area, 0o755)).To(Succeed())
	a.start()
	w.is("web", v1.ConditionVolumeReady, "False/AreaMissing")
	w.is("web", v1.ConditionStalled, "True/AreaMissing")
	w.patch("web", "spec: {state: Stopped}")
	w.Consistently(func() string { return w.get("web").Status.NodeName }, "1s").Should(Equal(a.name))
	w.Expect(os.RemoveAll(a.area)).To(Succeed())
	w.Expect(os.Rename(disk, a.area)).To(Succeed())
	w.Eventually(a.ended).Should(BeClosed(), "the daemon ends, to start anew with its disk")
	a.start()
	w.stopped("web")
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("unsaved"))
}

// Content that is not where it should be is not taken for "nothing to lose", until a person says so.
func TestS10_ContentLostUntilAPersonAcceptsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", "saved")
	w.backup("web", "first")
	a.kill()
	w.Expect(os.RemoveAll(filepath.Dir(path))).To(Succeed())
	a.start()
	w.is("web", v1.ConditionStalled, "True/ContentLost")
	w.is("web", v1.ConditionReady, "False/ContentLost")
	w.patch("web", "metadata: {annotations: {workspace.wsdaemon.dev/accept-lost: '1'}}")
	w.Expect(w.read(w.running("web", a), "file")).To(Equal("saved"))
	w.Expect(w.get("web").Status.Claim).To(Equal(int64(2)))
	w.is("web", v1.ConditionStalled, "absent")
}

// The store is emptied or swapped behind the daemon's back: content stays, the condition says what is wrong, and all is well
// again by itself when the store is back.
func TestS10_StoreEmptiedOrSwappedBehindUs(t *testing.T) {
	t.Parallel()
	for what, replace := range map[string]func(w *world, dir string){
		"emptied": func(w *world, dir string) { w.Expect(os.Mkdir(dir, 0o700)).To(Succeed()) },
		"swapped": func(w *world, dir string) { w.Expect(os.Rename(w.newStore("other"), dir)).To(Succeed()) },
		"missing": func(*world, string) {},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.node("a")
			w.workspace("web", a)
			path := w.running("web", a)
			w.write(path, "file", "one")
			w.backup("web", "first")
			w.write(path, "file", "two")
			old := w.storeDir + ".old"
			w.Expect(os.Rename(w.storeDir, old)).To(Succeed())
			replace(w, w.storeDir)
			w.patch("web", "spec: {state: Stopped}")
			w.Eventually(func() string { return w.state("web", v1.ConditionFinalBackup) }).Should(
				Or(Equal("False/StoreUnavailable"), Equal("False/UploadFailed")))
			w.Eventually(func() int32 {
				if o := w.get("web").Status.Operation; o != nil {
					return o.Attempts
				}
				return 0
			}).Should(BeNumerically(">=", 2), "attempts are counted")
			w.Expect(w.get("web").Status.NodeName).To(Equal(a.name))
			w.Expect(a.volumes()).To(HaveLen(2))
			w.Expect(os.RemoveAll(w.storeDir)).To(Succeed())
			w.Expect(os.Rename(old, w.storeDir)).To(Succeed())
			w.stopped("web")
			a.clean()
			w.Expect(w.read(w.newest("web"), "file")).To(Equal("two"))
		})
	}
}

// Somebody removed the backups of a workspace in use from the store: a new one is made, and an event tells.
func TestS10_BackupsRemovedBehindUs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a, func(ws *v1.Workspace) { ws.Spec.Backup.Interval.Duration = time.Second })
	w.write(w.running("web", a), "file", "one")
	w.backup("web", "first")
	w.Expect(os.RemoveAll(filepath.Join(w.storeDir, "d", w.namespace, "w"))).To(Succeed())
	w.Eventually(func() []string { return w.names("web") }).Should(ContainElement("1.2"))
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("one"))
	w.Eventually(func() []string { return w.events(t.Context()) }).Should(ContainElement(HavePrefix("BackupLost: 1.1")))
}

// A workspace that has been backed up never starts from its initializer because the store has no backup.
func TestS10_StoppedWorkspaceWhoseBackupsAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	w.write(w.running("web", a), "file", "one")
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	backups := filepath.Join(w.storeDir, "d", w.namespace, "w")
	w.Expect(os.Rename(backups, backups+".away")).To(Succeed())
	w.patch("web", "spec: {state: Running}")
	w.is("web", v1.ConditionStalled, "True/NoBackup")
	w.is("web", v1.ConditionReady, "False/NoBackup")
	w.Expect(os.RemoveAll(backups)).To(Succeed())
	w.Expect(os.Rename(backups+".away", backups)).To(Succeed())
	w.Expect(w.read(w.running("web", a), "file")).To(Equal("one"))
}

// A restore that fails half-way and is then stopped leaves nothing behind, and the backup as it was.
func TestS1_FailedRestoreIsStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	w.write(w.running("web", a), "file", "one")
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	a.clean()
	packs := filepath.Join(w.storeDir, "d", w.namespace, "p")
	w.Expect(os.Rename(packs, packs+".away")).To(Succeed())
	w.patch("web", "spec: {state: Running}")
	w.is("web", v1.ConditionReady, "False/RestoreFailed")
	w.patch("web", "spec: {state: Stopped}")
	w.is("web", v1.ConditionFinalBackup, "False/NothingToBackUp")
	w.stopped("web")
	a.clean()
	w.Expect(os.Rename(packs+".away", packs)).To(Succeed())
	w.patch("web", "spec: {state: Running}")
	w.Expect(w.read(w.running("web", a), "file")).To(Equal("one"))
}

// A tree that does not change makes no backups, and is known to be backed up all the same.
func TestS1_TreeThatDoesNotChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a, func(ws *v1.Workspace) { ws.Spec.Backup.Interval.Duration = time.Second })
	w.write(w.running("web", a), "file", "one")
	w.backup("web", "first")
	seen := map[time.Time]bool{}
	w.Eventually(func() int {
		seen[w.get("web").Status.Backup.CheckedAt.Time] = true
		w.Expect(w.state("web", v1.ConditionBackedUp)).To(Equal("True/UpToDate"))
		return len(seen)
	}).Should(BeNumerically(">=", 6), "the tree is looked at again and again")
	w.Expect(w.names("web")).To(HaveExactElements("1.1", "1.0"))
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("one"))
}

// A program writes through a mapping of a file: while the page is dirty, no time of the file changes any more.
func TestS1_WritesThroughAMappingAreSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	file, err := os.Create(filepath.Join(w.running("web", a), "db"))
	w.Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	w.Expect(file.Truncate(4096)).To(Succeed())
	memory, err := syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	w.Expect(err).NotTo(HaveOccurred())
	defer func() { w.Expect(syscall.Munmap(memory)).To(Succeed()) }()
	for _, text := range []string{"first", "second", "third"} {
		copy(memory, text)
		w.backup("web", text)
		w.Expect(w.read(w.newest("web"), "db")).To(HavePrefix(text))
	}
}

// A namespace is deleted with everything in it: the content is saved first.
func TestS1_NamespaceDeletedWithEverythingInIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	for _, name := range []string{"one", "two"} {
		w.workspace(name, a)
		w.write(w.running(name, a), "file", name)
	}
	w.Expect(w.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
	w.gone("one")
	w.gone("two")
	a.clean()
	w.Expect(w.read(w.newest("one"), "file")).To(Equal("one"))
	w.Expect(w.read(w.newest("two"), "file")).To(Equal("two"))
}

// The daemon stops by SIGTERM in the middle of its work and writes nothing that says "failed".
func TestS5_SIGTERMLosesNothingAndReportsNoFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("a")
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", strings.Repeat("content ", 1<<20))
	w.patch("web", "spec: {state: Stopped}")
	a.signal(syscall.SIGTERM)
	w.Eventually(a.ended).Should(BeClosed())
	w.Expect(w.state("web", v1.ConditionFinalBackup)).NotTo(ContainSubstring("Failed"))
	a.start()
	w.stopped("web")
	a.clean()
	w.Expect(w.read(w.newest("web"), "file")).To(HaveLen(8 << 20))
}
