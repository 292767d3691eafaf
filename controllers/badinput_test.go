package controllers

import (
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

func TestPausedWorkspaceIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Annotations = map[string]string{v1.AnnotationPaused: "why"} })
	w.Expect(w.becomes(ws, "Ready", "False/Paused")).To(Equal("nothing is done while the annotation workspace.wsdaemon.dev/paused is present"))
	got := w.now(ws)
	w.Expect(got.Finalizers).To(BeEmpty())
	w.Expect(got.Status.Claim).To(BeZero())
	w.Expect(w.volumes()).To(BeEmpty())

	w.patch(ws, "metadata: {annotations: {"+v1.AnnotationPaused+": null}}")
	w.running(ws)
	w.write(ws, "file", "text")
	w.patch(ws, "metadata: {annotations: {"+v1.AnnotationPaused+": again}}")
	w.becomes(ws, "Ready", "False/Paused")
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "Ready", "False/Paused")
	w.Expect(w.now(ws).Status.NodeName).To(Equal(w.node))
	w.Expect(w.volumes()).To(HaveLen(1))

	w.patch(ws, "metadata: {annotations: {"+v1.AnnotationPaused+": null}}")
	w.becomes(ws, "Ready", "False/Stopped")
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.read(ws, "file")).To(Equal("text"))
}

func TestUnknownClassIsRefusedAndCanBeDeleted(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.Volume.Class = "fast" })
	const says = `this node offers no volume class "fast", only default: ` +
		"add it to volumes.classes of the daemon's configuration or create the workspace with another class"
	w.Expect(w.becomes(ws, "VolumeReady", "False/UnknownClass")).To(Equal(says))
	w.Expect(w.becomes(ws, "Ready", "False/UnknownClass")).To(Equal(says))
	w.Expect(w.becomes(ws, "Stalled", "True/UnknownClass")).To(Equal(says))
	got := w.now(ws)
	w.Expect(got.Status.NodeName).To(BeEmpty(), "no claim on what cannot be had")
	w.Expect(got.Finalizers).To(BeEmpty())
	w.gone(ws)
}

func TestS9_LimitsAreRefusedAloud(t *testing.T) {
	w := newWorld(t)
	w.start()
	pids := int64(4096)
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.Limits = &v1.Limits{Pids: &pids} })
	w.running(ws)
	w.Expect(w.becomes(ws, "LimitsApplied", "False/NotSupported")).To(Equal("this version of the daemon enforces no limits on cpu, pids, io or network: remove spec.limits"))
	w.Expect(w.becomes(ws, "VolumeReady", "True/Unlimited")).To(HaveSuffix("; nothing limits it to 64Mi"))
	w.patch(ws, "spec: {limits: null}")
	w.becomes(ws, "LimitsApplied", "absent")
	w.running(ws)
}

func TestMissingSnapshotStalls(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "lost"}}
	})
	says := "there is no Snapshot " + w.namespace + "/lost: create it, or name a snapshot of the store by id"
	w.Expect(w.becomes(ws, "ContentReady", "False/NoBackup")).To(Equal(says))
	w.Expect(w.becomes(ws, "Stalled", "True/NoBackup")).To(Equal(says))
	w.Expect(w.becomes(ws, "Ready", "False/NoBackup")).To(Equal(says))

	byID := w.create("by-id", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Snapshot: &v1.SnapshotInitializer{ID: "lost.1"}}
	})
	w.Expect(w.becomes(byID, "ContentReady", "False/NoBackup")).To(ContainSubstring("lost.1"))
	w.gone(byID)
	w.gone(ws)
	w.Expect(w.volumes()).To(BeEmpty())
}

func TestMissingBackupStalls(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.Initializer = v1.Initializer{Backup: &v1.BackupInitializer{}} })
	w.Expect(w.becomes(ws, "ContentReady", "False/NoBackup")).To(And(
		ContainSubstring("workspace "+w.namespace+"/web must have "), ContainSubstring("in the store, but there is none")))
	w.becomes(ws, "Stalled", "True/NoBackup")
	w.patch(ws, "spec: {initializer: {backup: null, empty: {}}}")
	w.running(ws)
	w.becomes(ws, "Stalled", "absent")
	w.gone(ws)
}

func TestVolumeGrowsInUse(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "text")
	w.patch(ws, "spec: {volume: {size: 128Mi}}")
	w.running(ws)
	w.Expect(w.becomes(ws, "VolumeReady", "True/Unlimited")).To(HaveSuffix("to 128Mi"))
	w.Expect(w.read(ws, "file")).To(Equal("text"))
}

func TestLongestNameLivesAndDies(t *testing.T) {
	w := newWorld(t)
	w.start()
	name := "n23456789-123456789-123456789-123456789-123456789-123456789-123"
	w.Expect(name).To(HaveLen(63))
	ws := w.create(name)
	w.running(ws)
	w.write(ws, "file", "text")
	w.backup(ws, "now")
	w.stopped(ws)
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.read(ws, "file")).To(Equal("text"))
	w.gone(ws)
}

// Nobody asked for the content to go: only that nobody shall look after the object.
func TestForceDeletedObjectLeavesItsContentForTheGrace(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "text")
	file := w.path(ws, "file")
	w.patch(ws, "metadata: {annotations: {"+v1.AnnotationPaused+": as-if-the-daemon-were-down}}")
	w.becomes(ws, "Ready", "False/Paused")
	w.patch(ws, "metadata: {finalizers: null}")
	w.Expect(w.Delete(t.Context(), ws)).To(Succeed())
	w.Eventually(func() *metav1.Time {
		w.wake(ws)
		entry, _ := w.workspaces.Keeper.Area.Journal().Get(string(ws.UID))
		if entry.MissingSince == nil {
			return nil
		}
		return timeOf(*entry.MissingSince)
	}).ShouldNot(BeNil())
	w.Expect(file).To(BeAnExistingFile())

	again := w.create("web", func(ws *v1.Workspace) { ws.Spec.Volume.Size = resource.MustParse("32Mi") })
	w.running(again)
	w.Expect(file).To(BeAnExistingFile(), "the new object of that name does not touch it")
	w.Expect(w.path(again, "file")).NotTo(BeAnExistingFile())
}
