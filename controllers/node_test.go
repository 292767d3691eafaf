package controllers

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// machine makes the Node of this test, cordoned or not.
func (w *world) machine(cordoned bool) {
	w.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.node}, Spec: corev1.NodeSpec{Unschedulable: cordoned}}
	w.Expect(w.Create(w.Context(), node)).To(Succeed())
}

// pod makes a pod on this node that uses a workspace.
func (w *world) pod(workspace string) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "uses-" + workspace, Labels: map[string]string{v1.LabelWorkspace: workspace}},
		Spec:       corev1.PodSpec{NodeName: w.node, Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}
	w.Expect(w.Create(w.Context(), pod)).To(Succeed())
	return pod
}

// safeToRemove waits until the condition of this node is as wanted and returns its message.
func (w *world) safeToRemove(want string) string {
	w.Helper()
	var message string
	w.Eventually(func(g Gomega) {
		w.workspaces.JobEnded(jobs.Key{}) // look now, not in half a minute
		var node v1.WorkspaceNode
		g.Expect(w.Get(w.Context(), client.ObjectKey{Name: w.node}, &node)).To(Succeed())
		var summary string
		summary, message = condition(node.Status.Conditions, v1.ConditionSafeToRemove)
		g.Expect(summary).To(Equal(want), message)
	}).Should(Succeed())
	return message
}

// The node may go only when everything on it is accounted for: a disk that is missing is no empty disk.
func TestS10_MissingDiskIsNotSafeToRemove(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.machine(true)
	w.safeToRemove("True/UpToDate")
	w.Expect(os.Rename(w.area, w.area+".away")).To(Succeed())
	w.safeToRemove("False/AreaMissing")
	w.Expect(os.Rename(w.area+".away", w.area)).To(Succeed())
	w.safeToRemove("True/UpToDate")
}

func TestS10_WorkspaceWithoutAVolumeIsNotSafeToRemove(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.machine(true)
	ws := w.create("web")
	w.running(ws)
	w.backup(ws, "a")
	w.safeToRemove("True/UpToDate")
	w.Expect(w.workspaces.Keeper.Area.Journal().Delete(string(ws.UID))).To(Succeed())
	w.Expect(w.safeToRemove("False/ContentLost")).To(ContainSubstring("workspace " + w.namespace + "/web is held by this node"))
}

func TestS10_UnknownVolumeIsNotSafeToRemove(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.machine(true)
	w.safeToRemove("True/UpToDate")
	stranger := filepath.Join(w.area, "volumes", "11111111-2222-3333-4444-555555555555")
	w.Expect(os.MkdirAll(filepath.Join(stranger, "content"), 0o755)).To(Succeed())
	w.Expect(w.safeToRemove("False/ForeignContent")).To(ContainSubstring(stranger))
}

// A stop that was taken back leaves content that is in use, whatever the journal remembers of the release.
func TestS1_ReleaseThatWasTakenBackIsNotSafeToRemove(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "unsaved")
	e, _ := w.workspaces.Keeper.Area.Journal().Get(string(ws.UID))
	e.Released = "the fingerprint of an earlier release"
	safe, err := (&NodeReconciler{Workspaces: w.workspaces}).safeToRemove(t.Context(), []state.Entry{e}, disks{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(safe).To(Equal(found(v1.ReasonInUse, "the node holds workspaces and is not cordoned")))
}

// What pods wrote after the last look at the tree is unsaved, however long after the cordon that look was.
func TestS1_WorkOfPodsThatEndedIsNotSafeToRemove(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.machine(true)
	ws := w.create("web")
	w.running(ws)
	pod := w.pod("web")
	w.safeToRemove("False/WaitingForPods")
	w.backup(ws, "while-it-runs")
	w.write(ws, "file", "written after the backup")
	w.safeToRemove("False/WaitingForPods")
	w.Expect(w.Delete(t.Context(), pod, client.GracePeriodSeconds(0))).To(Succeed())
	w.safeToRemove("True/UpToDate")
	e, _ := w.workspaces.Keeper.Area.Journal().Get(string(ws.UID))
	w.Expect(e.Backup.Name).To(Equal("1.2"))
	w.Expect(e.Backup.Files).To(Equal(int64(1)))
}

func TestReleasedVolumeThatCannotGoIsNotSafeToRemove(t *testing.T) {
	w := newWorld(t)
	w.driver = func(d volume.Driver) volume.Driver { return intruded{d} }
	w.start()
	w.machine(true)
	ws := w.create("web")
	w.running(ws)
	w.backup(ws, "a")
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "Stalled", "True/ForeignContent")
	w.safeToRemove("False/Removing")
}
