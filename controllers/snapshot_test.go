package controllers

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// picture asks for a snapshot of a workspace.
func (w *world) picture(name, workspace string, policy v1.DeletionPolicy) *v1.Snapshot {
	w.Helper()
	s := &v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       v1.SnapshotSpec{WorkspaceName: workspace, NodeName: w.node, DeletionPolicy: policy},
	}
	w.Expect(w.Create(w.Context(), s)).To(Succeed())
	return s
}

// taken waits until a snapshot's Ready condition is as wanted, and returns the object and the message.
func (w *world) taken(s *v1.Snapshot, want string) (*v1.Snapshot, string) {
	w.Helper()
	var got v1.Snapshot
	var message string
	w.Eventually(func(g Gomega) {
		g.Expect(w.Get(w.Context(), client.ObjectKeyFromObject(s), &got)).To(Succeed())
		var summary string
		summary, message = condition(got.Status.Conditions, "Ready")
		g.Expect(summary).To(Equal(want), message)
	}).Should(Succeed())
	return &got, message
}

// pinned says whether the store has a snapshot.
func (w *world) pinned(id string) error {
	keeper := w.workspaces.Keeper
	domain, err := history.OpenDomain(w.Context(), keeper.Store, w.namespace, keeper.Cluster, false)
	w.Expect(err).NotTo(HaveOccurred())
	_, err = domain.Pinned(w.Context(), id)
	return err
}

// ids are all snapshot ids that the daemon ever wrote into the status of a Snapshot.
func (w *world) ids(name string) map[string]bool {
	got := map[string]bool{}
	for _, r := range w.traffic.writes("snapshots", name) {
		var s v1.Snapshot
		if r.sub == "/status" && decode(r.sent, &s) && s.Status.SnapshotID != "" {
			got[s.Status.SnapshotID] = true
		}
	}
	return got
}

func TestSnapshotOfARunningWorkspace(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "as it was")
	s, message := w.taken(w.picture("before", "web", v1.DeletionRetain), "True/Snapshotted")
	w.Expect(message).To(Equal("backup 1.1 of workspace web"))
	w.Expect(s.Status.SnapshotID).To(Equal("before." + string(s.UID[:8])))
	w.Expect(s.Status.Backup).To(Equal(v1.BackupName("1.1")))
	w.Expect(s.Status.Files).To(Equal(int64(1)))
	w.Expect(s.Status.Bytes).To(Equal(int64(9)))
	w.Expect(s.Status.Operation).To(BeNil())
	w.Expect(s.Status.Time.IsZero()).To(BeFalse())
	w.Expect(s.Finalizers).To(BeEmpty(), "with policy Retain nothing is left to do")
	w.Expect(w.ids("before")).To(Equal(map[string]bool{s.Status.SnapshotID: true}), "the id is set once")

	w.write(ws, "file", "as it is now")
	w.backup(ws, "later")
	w.gone(s)
	w.Expect(w.pinned(s.Status.SnapshotID)).To(Succeed(), "policy Retain: it outlives its object")
	again := w.create("again", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Snapshot: &v1.SnapshotInitializer{ID: s.Status.SnapshotID}}
	})
	w.running(again)
	w.Expect(w.read(again, "file")).To(Equal("as it was"))
	w.Expect(w.now(again).Status.Content.SnapshotID).To(Equal(s.Status.SnapshotID))
	w.Expect(w.read(ws, "file")).To(Equal("as it is now"))
}

func TestSnapshotIDIsOnRecordBeforeTheFirstByte(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	s, _ := w.taken(w.picture("before", "web", v1.DeletionRetain), "True/Snapshotted")
	writes := w.traffic.writes("snapshots", "before")
	var first v1.Snapshot
	w.Expect(decode(writes[0].sent, &first)).To(BeTrue())
	w.Expect(first.Status.SnapshotID).To(Equal(s.Status.SnapshotID))
	w.Expect(first.Status.Backup).To(BeEmpty())
	w.Expect(apimeta.IsStatusConditionFalse(first.Status.Conditions, "Ready")).To(BeTrue())
	w.Expect(len(writes)).To(BeNumerically("<=", 3), describeAll(writes))
}

func TestSnapshotWithPolicyDeleteTakesItsPinAlong(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	s, _ := w.taken(w.picture("short", "web", v1.DeletionDelete), "True/Snapshotted")
	w.Expect(w.pinned(s.Status.SnapshotID)).To(Succeed())
	w.Expect(s.Finalizers).To(Equal([]string{v1.FinalizerContent}))
	w.gone(s)
	w.Expect(w.pinned(s.Status.SnapshotID)).To(MatchError(store.ErrNotFound))
	w.Expect(w.now(ws).Status.Backup.Latest.Name).To(Equal(v1.BackupName("1.1")), "the backup stays in the history")
}

func TestSnapshotPolicyMayChange(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	s, _ := w.taken(w.picture("s", "web", v1.DeletionDelete), "True/Snapshotted")
	w.patch(s, "spec: {deletionPolicy: Retain}")
	w.Eventually(func() []string { got, _ := w.taken(s, "True/Snapshotted"); return got.Finalizers }).Should(BeEmpty())
	w.gone(s)
	w.Expect(w.pinned(s.Status.SnapshotID)).To(Succeed())
}

func TestSnapshotOfAStoppedWorkspace(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "final")
	w.stopped(ws)
	latest := w.now(ws).Status.Backup.Latest
	s, message := w.taken(w.picture("after", "web", v1.DeletionRetain), "True/Snapshotted")
	w.Expect(s.Status.Backup).To(Equal(latest.Name))
	w.Expect(message).To(Equal("backup " + string(latest.Name) + " of workspace web"))
	w.Expect(w.volumes()).To(BeEmpty(), "nothing was brought back for it")
	w.gone(ws)
	again := w.create("again", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "after"}}
	})
	w.running(again)
	w.Expect(w.read(again, "file")).To(Equal("final"))
}

func TestSnapshotOfAMissingWorkspace(t *testing.T) {
	w := newWorld(t)
	w.start()
	s, message := w.taken(w.picture("lonely", "nobody", v1.DeletionRetain), "False/WorkspaceNotFound")
	w.Expect(message).To(ContainSubstring("nobody"))
	stalled, _ := condition(s.Status.Conditions, "Stalled")
	w.Expect(stalled).To(Equal("True/WorkspaceNotFound"))
	w.gone(s)
}

func TestSnapshotOfAWorkspaceWithoutBackup(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.create("web", func(ws *v1.Workspace) { ws.Spec.State = v1.StateStopped })
	_, message := w.taken(w.picture("early", "web", v1.DeletionRetain), "False/NoBackup")
	w.Expect(message).To(ContainSubstring("web"))
}

// A snapshot that waits for its workspace is made when that is there, by the same id.
func TestSnapshotWaitsForItsWorkspace(t *testing.T) {
	w := newWorld(t)
	g := newGitServer(t, w)
	release := g.hold(t)
	w.start()
	ws := w.create("web", fromGit(g, "main", ""))
	w.Eventually(g.requests).Should(BeNumerically(">", 0))
	waiting, message := w.taken(w.picture("eager", "web", v1.DeletionRetain), "False/Snapshotting")
	w.Expect(message).To(Or(Equal("the snapshot is being made"), Equal("waiting for workspace web to be running or stopped")))
	release()
	w.running(ws)
	s, _ := w.taken(waiting, "True/Snapshotted")
	w.Expect(w.ids("eager")).To(Equal(map[string]bool{s.Status.SnapshotID: true}))
}

func TestSnapshotWhileTheStoreIsAway(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	dir := w.storeDir()
	w.Expect(os.Rename(dir, dir+".away")).To(Succeed())
	s, _ := w.taken(w.picture("later", "web", v1.DeletionRetain), "False/StoreUnavailable")
	w.Expect(s.Status.Operation.Attempts).To(BeNumerically(">=", 1))
	w.Expect(os.Rename(dir+".away", dir)).To(Succeed())
	s, _ = w.taken(s, "True/Snapshotted")
	w.Expect(w.ids("later")).To(Equal(map[string]bool{s.Status.SnapshotID: true}), "no retry changes the id")
	w.Expect(s.Status.Operation).To(BeNil())
}

func TestSnapshotDeletedWhileItIsMadeLeavesNoPin(t *testing.T) {
	for name, held := range map[string]bool{"running": true, "stopped": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			ws := w.create("web")
			w.running(ws)
			w.write(ws, "file", "one")
			if !held {
				w.stopped(ws)
			}
			for range 5 { // the moment of the deletion is another each time
				s := w.picture("short", "web", v1.DeletionDelete)
				var got v1.Snapshot
				w.Eventually(func() string {
					w.Expect(w.Get(t.Context(), client.ObjectKeyFromObject(s), &got)).To(Succeed())
					return got.Status.SnapshotID
				}).ShouldNot(BeEmpty())
				w.gone(s)
				w.Expect(w.workspaces.Jobs.Find(opOf(snapshotJob, s))).To(BeEmpty(), "nobody is left who could pin it")
				w.Expect(w.pinned(got.Status.SnapshotID)).To(MatchError(store.ErrNotFound))
			}
		})
	}
}
