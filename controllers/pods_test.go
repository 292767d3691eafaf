package controllers

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// workspaceVolume is a volume of a pod that is a workspace.
func workspaceVolume(name, workspace string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: v1.CSIDriver, VolumeAttributes: map[string]string{v1.CSIAttributeWorkspace: workspace},
	}}}
}

func TestWorkspacesOfAPod(t *testing.T) {
	other := workspaceVolume("other", "api")
	other.CSI.Driver = "other.example.com"
	for name, tt := range map[string]struct {
		labels  map[string]string
		volumes []corev1.Volume
		want    []string
	}{
		"nothing":     {},
		"label":       {labels: map[string]string{v1.LabelWorkspace: "web"}, want: []string{"web"}},
		"volume":      {volumes: []corev1.Volume{{Name: "tmp"}, other, workspaceVolume("work", "web")}, want: []string{"web"}},
		"two volumes": {volumes: []corev1.Volume{workspaceVolume("a", "web"), workspaceVolume("b", "db"), workspaceVolume("c", "web")}, want: []string{"web", "db"}},
		"both":        {labels: map[string]string{v1.LabelWorkspace: "web"}, volumes: []corev1.Volume{workspaceVolume("a", "db")}, want: []string{"web", "db"}},
		"no name":     {volumes: []corev1.Volume{workspaceVolume("a", "")}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Labels: tt.labels}, Spec: corev1.PodSpec{Volumes: tt.volumes}}
			g.Expect(workspacesOf(pod)).To(Equal(tt.want))
			var requests []ctrl.Request
			for _, name := range tt.want {
				requests = append(requests, ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "team", Name: name}})
			}
			g.Expect(workspaceOfPod(t.Context(), pod)).To(Equal(requests))
		})
	}
}

// A stop waits for pods that have the workspace as a volume as it does for those with the label.
func TestS1_StopWaitsForPodsWithTheVolume(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "one")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shell"},
		Spec: corev1.PodSpec{
			NodeName: w.node, Containers: []corev1.Container{{Name: "main", Image: "none"}}, Volumes: []corev1.Volume{workspaceVolume("work", "web")},
		},
	}
	w.Expect(w.Create(w.Context(), pod)).To(Succeed())
	w.patch(ws, "spec: {state: Stopped}")
	w.Expect(w.becomes(ws, "FinalBackup", "False/WaitingForPods")).To(ContainSubstring("pods shell still use the workspace"))
	w.Expect(w.volumes()).To(HaveLen(1))
	w.Expect(w.Delete(w.Context(), pod, client.GracePeriodSeconds(0))).To(Succeed())
	w.becomes(ws, "FinalBackup", "True/Committed")
	w.Eventually(w.volumes).Should(BeEmpty())
}

// A pod that was deleted by force is not there for the API server, and has the content mounted all the same until the kubelet has ended
// it: a stop waits for that, and goes on when it is told.
func TestS1_StopWaitsForTheLastMount(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "one")
	k, s := w.workspaces.Keeper, subjectOf(w.entry(ws))
	dir, err := k.Lend(t.Context(), s, state.Use{Target: "/kubelet/mount", Pod: "shell"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(dir.Close()).To(Succeed())
	path := w.path(ws, "file")
	w.patch(ws, "spec: {state: Stopped}")
	w.Expect(w.becomes(ws, "FinalBackup", "False/WaitingForPods")).To(ContainSubstring("pods shell still use the workspace"))
	w.quiet()
	w.Expect(os.ReadFile(path)).To(BeEquivalentTo("one"))

	w.Expect(k.Return("/kubelet/mount")).To(HaveLen(1))
	w.workspaces.Unused(client.ObjectKeyFromObject(ws))
	w.becomes(ws, "FinalBackup", "True/Committed")
	w.Eventually(w.volumes).Should(BeEmpty())
}

// entry is what the journal has of a workspace.
func (w *world) entry(ws *v1.Workspace) state.Entry {
	w.Helper()
	e, known := w.workspaces.Keeper.Area.Journal().Get(string(ws.UID))
	w.Expect(known).To(BeTrue())
	return e
}
