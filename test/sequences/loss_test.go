package sequences

import (
	"fmt"
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
	"wsdaemon.dev/ws-daemon/test/harness"
)

// A pod that starts after the daemon has looked for pods keeps the content, and what it writes is saved.
func TestS1_PodStartsBetweenTheCheckAndTheRemoval(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a")
	// killed when the content has just been withdrawn: at the restart the first check is over, as far as the disk shows
	a.KillAt("release.withdrawn")
	web := begin(w, a.Start(), "one")
	web.Stop()
	g.Expect(a.Wait()).To(MatchError("signal: killed"))
	pod := w.Pod("late", web, a)
	a.Start()
	web.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonWaitingForPods)
	for _, dir := range []string{web.Content(), web.Withdrawn()} {
		if _, err := os.Stat(dir); err == nil { // through the mount that it had
			g.Expect(os.WriteFile(filepath.Join(dir, "late"), []byte("by the pod"), 0o600)).To(Succeed())
		}
	}
	staysOn(t, web, a, 2*time.Second)
	w.RemovePod(pod)
	hasStopped(t, web, "late", "by the pod")
}

// Pods that stay are named when the deadline has passed. The content is saved as it is, and stays.
func TestS7_PodsRemain(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a", func(c *config.Config) { c.Content.Timeouts.Pods.Duration = 2 * time.Second }).Start()
	web := begin(w, a, "one")
	pod := w.Pod("stays", web, a)
	web.Stop()
	web.AwaitCondition(v1.ConditionStalled, metav1.ConditionTrue, v1.ReasonPodsRemain)
	web.AwaitBackup("1.1")
	g.Expect(web.Object().Status.NodeName).To(Equal(a.Name))
	g.Expect(web.Read("file")).To(Equal("one"))
	web.Write("file", "two")
	w.RemovePod(pod)
	hasStopped(t, web, "file", "two")
	web.AwaitNoCondition(v1.ConditionStalled)
}

// A rule of the bucket deleted the packs of the newest backup. The tree has not changed since, and is saved anew.
func TestS1_BucketRuleDeletedAParentPack(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	web := begin(w, w.Node("a").Start(), "one")
	web.Backup("first")
	g.Expect(os.RemoveAll(w.Packs())).To(Succeed())
	stops(t, web, "one")
}

// A daemon that starts without its disk does nothing but say so. With the disk back it goes on.
func TestS10_WorkingAreaNotMountedAtStart(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	web := begin(w, a, "unsaved")
	a.Kill()
	w.Hide(a.Area)
	g.Expect(os.Mkdir(a.Area, 0o755)).To(Succeed())
	a.Start()
	web.AwaitCondition(v1.ConditionVolumeReady, metav1.ConditionFalse, v1.ReasonAreaMissing)
	web.AwaitCondition(v1.ConditionStalled, metav1.ConditionTrue, v1.ReasonAreaMissing)
	web.Stop()
	staysOn(t, web, a, time.Second)
	w.Show(a.Area)
	g.Expect(a.Wait()).To(MatchError("exit status 1"), "the daemon ends, to start anew with its disk")
	a.Start()
	hasStopped(t, web, "file", "unsaved")
}

// Content that is not where it should be is not taken for "nothing to lose", until a person says so.
func TestS10_ContentLostUntilAPersonAcceptsIt(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	web := begin(w, a, "saved")
	web.Backup("first")
	a.Kill()
	g.Expect(os.RemoveAll(filepath.Dir(web.Content()))).To(Succeed())
	a.Start()
	web.AwaitCondition(v1.ConditionStalled, metav1.ConditionTrue, v1.ReasonContentLost)
	web.AwaitCondition(v1.ConditionReady, metav1.ConditionFalse, v1.ReasonContentLost)
	web.Annotate(v1.AnnotationAcceptLost, "1")
	g.Expect(web.Ready().Status.Claim).To(BeEquivalentTo(2))
	g.Expect(web.Read("file")).To(Equal("saved"))
	web.AwaitNoCondition(v1.ConditionStalled)
}

// The store is emptied or swapped behind the daemon's back: content stays, the condition says what is wrong, and all is well
// again by itself when the store is back.
func TestS10_StoreEmptiedOrSwappedBehindUs(t *testing.T) {
	t.Parallel()
	for what, replace := range map[string]func(*harness.World) error{
		"emptied": func(w *harness.World) error { return os.Mkdir(w.Store, 0o700) },
		"swapped": func(w *harness.World) error { w.InitStore(w.Store); return nil },
		"missing": func(*harness.World) error { return nil },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g, w := NewWithT(t), env.World(t)
			a := w.Node("a").Start()
			web := begin(w, a, "one")
			web.Backup("first")
			web.Write("file", "two")
			w.HideStore()
			g.Expect(replace(w)).To(Succeed())
			web.Stop()
			web.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonStoreUnavailable, v1.ReasonUploadFailed)
			seen := web.Await("has its attempts counted", func(o *v1.Workspace) error {
				if op := o.Status.Operation; op == nil || op.Attempts < 2 {
					return fmt.Errorf("its operation is %+v", op)
				}
				return nil
			})
			g.Expect(seen.Status.NodeName).To(Equal(a.Name))
			g.Expect(a.Volumes()).To(ConsistOf(web.UID))
			g.Expect(a.Journal()).To(ConsistOf(web.UID + ".json"))
			w.ShowStore()
			hasStopped(t, web, "file", "two")
		})
	}
}

// Somebody removed the backups of a workspace in use from the store: a new one is made, and an event tells.
func TestS10_BackupsRemovedBehindUs(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	web := begin(w, w.Node("a").Start(), "one", harness.WithInterval(time.Second))
	web.Backup("first")
	g.Expect(os.RemoveAll(w.Backups())).To(Succeed())
	web.AwaitBackup("1.2")
	g.Expect(web.Saved("file")).To(Equal("one"))
	w.AwaitEvent(v1.EventBackupLost, "1.1")
}

// A workspace that has been backed up never starts from its initializer because the store has no backup.
func TestS10_StoppedWorkspaceWhoseBackupsAreGone(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	web := begin(w, a, "one")
	web.Stop().Stopped()
	w.Hide(w.Backups())
	web.StartOn(a)
	web.AwaitCondition(v1.ConditionStalled, metav1.ConditionTrue, v1.ReasonNoBackup)
	web.AwaitCondition(v1.ConditionReady, metav1.ConditionFalse, v1.ReasonNoBackup)
	w.Show(w.Backups())
	web.Ready()
	g.Expect(web.Read("file")).To(Equal("one"))
}

// A restore that fails half-way and is then stopped leaves nothing behind, and the backup as it was.
func TestS1_FailedRestoreIsStopped(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	web := begin(w, a, "one")
	stops(t, web, "one")
	w.Hide(w.Packs())
	web.StartOn(a)
	web.AwaitCondition(v1.ConditionReady, metav1.ConditionFalse, v1.ReasonRestoreFailed)
	web.Stop()
	web.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonNothingToBackUp)
	web.Stopped()
	a.Leftovers()
	w.Show(w.Packs())
	web.StartOn(a).Ready()
	g.Expect(web.Read("file")).To(Equal("one"))
}

// A tree that does not change makes no backups, and is known to be backed up all the same.
func TestS1_TreeThatDoesNotChange(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	web := begin(w, w.Node("a").Start(), "one", harness.WithInterval(time.Second))
	web.Backup("first")
	seen := map[time.Time]bool{}
	web.Await("has been looked at again and again", func(o *v1.Workspace) error {
		seen[o.Status.Backup.CheckedAt.Time] = true
		g.Expect(o.Status.Conditions).To(ContainElement(And(
			HaveField("Type", v1.ConditionBackedUp), HaveField("Status", metav1.ConditionTrue), HaveField("Reason", v1.ReasonUpToDate))))
		if len(seen) < 6 {
			return fmt.Errorf("only %d times", len(seen))
		}
		return nil
	})
	g.Expect(web.Names()).To(HaveExactElements("1.1", "1.0"))
	g.Expect(web.Saved("file")).To(Equal("one"))
}

// A program writes through a mapping of a file: while the page is dirty, no time of the file changes any more.
func TestS1_WritesThroughAMappingAreSeen(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	web := begin(w, w.Node("a").Start(), "one")
	file, err := os.Create(filepath.Join(web.Content(), "db"))
	g.Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	g.Expect(file.Truncate(4096)).To(Succeed())
	memory, err := syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(syscall.Munmap(memory)).To(Succeed()) }()
	for _, text := range []string{"first", "second", "third"} {
		copy(memory, text)
		web.Backup(text)
		g.Expect(web.Saved("db")).To(HavePrefix(text))
	}
}

// A namespace is deleted with everything in it: the content is saved first.
func TestS1_NamespaceDeletedWithEverythingInIt(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	var all []*harness.Workspace
	for _, name := range []string{"one", "two"} {
		ws := w.Workspace(name, a)
		ws.Ready()
		ws.Write("file", name)
		all = append(all, ws)
	}
	g.Expect(w.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}})).To(Succeed())
	for _, ws := range all {
		ws.Gone()
		g.Expect(ws.Saved("file")).To(Equal(ws.Name))
	}
	a.Leftovers()
}

// The daemon stops by SIGTERM in the middle of its work and writes nothing that says "failed".
func TestS5_SIGTERMLosesNothingAndReportsNoFailure(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a").Start()
	text := strings.Repeat("content ", 1<<20)
	web := begin(w, a, text)
	web.Stop()
	a.Stop()
	g.Expect(web.Condition(v1.ConditionFinalBackup).Reason).NotTo(ContainSubstring("Failed"))
	a.Start()
	hasStopped(t, web, "file", text)
}
