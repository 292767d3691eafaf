package pods

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// A pod that is made before its workspace waits for it, works in it, and has it until its volume is unmounted; what it wrote is in the
// final backup.
func TestS1_PodFromTheFirstFileToTheLast(t *testing.T) {
	w := env.World(t)
	a := newMachine(t, w, "a")
	a.Start()
	p := a.pod("shell", "web")
	a.Expect(says(p.publish())).To(Equal("workspace " + w.Namespace + `/web does not exist: create it, or correct "workspace" in the pod's volumeAttributes`))

	ws := w.Workspace("web", a.Node)
	a.Expect(p.publish()).To(Succeed(), "it waits until the content is there")
	p.write("file", "one")
	a.Expect(ws.Read("file")).To(Equal("one"))
	second := a.pod("second", "web")
	a.Expect(second.publish()).To(Succeed())
	a.Expect(second.read("file")).To(Equal("one"))

	ws.Stop()
	a.Expect(ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonWaitingForPods).Message).
		To(ContainSubstring("pods second, shell still use the workspace"))
	late := a.pod("late", "web")
	a.Expect(says(late.publish())).To(Equal("workspace " + w.Namespace + "/web is stopped: set its spec.state to Running"))
	w.RemovePod(late.Pod)
	a.Expect(p.publish()).To(Succeed(), "a kubelet that was restarted asks again for what it has")
	w.RemovePod(second.Pod)
	a.Expect(second.unpublish()).To(Succeed())

	w.RemovePod(p.Pod) // by force: it still runs
	p.write("file", "two")
	ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonWaitingForPods)
	a.Expect(p.read("file")).To(Equal("two"))
	a.Expect(p.unpublish()).To(Succeed())
	ws.Stopped()
	a.Expect(ws.Saved("file")).To(Equal("two"))
	a.Leftovers()
}

// The daemon dies while a pod writes, a pod ends while it is dead and the API server is away, and the node is rebooted.
func TestS5_RestartsDisturbNoMount(t *testing.T) {
	w := env.World(t)
	a := newMachine(t, w, "a")
	a.Start()
	ws := w.Workspace("web", a.Node)
	first, second := a.pod("first", "web"), a.pod("second", "web")
	a.Expect(first.publish()).To(Succeed())
	a.Expect(second.publish()).To(Succeed())
	f, err := os.Create(filepath.Join(first.target, "log"))
	a.Expect(err).NotTo(HaveOccurred())
	for range 3 {
		a.Kill()
		_, err = f.WriteString("line\n")
		a.Expect(err).NotTo(HaveOccurred())
		a.Start()
		_, err = f.WriteString("line\n")
		a.Expect(err).NotTo(HaveOccurred())
		a.Expect(first.publish()).To(Succeed())
	}
	a.Expect(f.Close()).To(Succeed())
	a.Expect(ws.Read("log")).To(Equal(strings.Repeat("line\n", 6)))

	a.Proxy.Cut()
	a.Kill()
	a.Start()
	a.Expect(second.unpublish()).To(Succeed(), "without the API server")
	a.Expect(first.read("log")).To(HavePrefix("line"))
	a.Proxy.Mend()
	a.Kill()
	a.Expect(unix.Unmount(first.target, 0)).To(Succeed(), "the node is rebooted")
	w.RemovePod(first.Pod)
	w.RemovePod(second.Pod)
	a.Start()
	ws.Stop().Stopped()
	a.Expect(ws.Saved("log")).To(Equal(strings.Repeat("line\n", 6)))
	a.Leftovers()
}

// Pods of other namespaces and nodes, and of workspaces that have failed or are deleted, get nothing, and are told what is wrong.
func TestPodsThatCannotHaveAWorkspace(t *testing.T) {
	w := env.World(t)
	a, b := newMachine(t, w, "a"), newMachine(t, w, "b")
	a.Start()
	b.Start()
	ws := w.Workspace("web", a.Node)
	ws.Ready()
	elsewhere := b.pod("elsewhere", "web")
	a.Expect(says(elsewhere.publish())).To(HavePrefix("workspace " + w.Namespace + "/web belongs to node " + a.Name + " and this pod is on node " + b.Name))
	failed := w.Workspace("failed", a.Node, func(ws *v1.Workspace) { ws.Spec.Volume.Class = "fast" })
	failed.AwaitCondition(v1.ConditionStalled, metav1.ConditionTrue)
	a.Expect(says(a.pod("fails", "failed").publish())).To(HavePrefix("workspace " + w.Namespace + `/failed cannot be used: UnknownClass: this node offers no volume class "fast"`))

	p := a.pod("shell", "web")
	a.Expect(p.publish()).To(Succeed())
	ws.Delete()
	late := a.pod("late", "web")
	a.Eventually(func() string { return says(late.publish()) }).Should(Equal("workspace " + w.Namespace + "/web is being deleted"))
	w.RemovePod(late.Pod)
	w.RemovePod(p.Pod)
	p.write("last", "word")
	a.Expect(p.unpublish()).To(Succeed())
	ws.Gone()
	a.Expect(ws.Saved("last")).To(Equal("word"))
}

// What is deployed: the CSIDriver object is what the driver needs, and pods with such volumes are restricted ones.
func TestCSIDriverAndRestrictedPods(t *testing.T) {
	g, w := NewWithT(t), env.World(t)
	text, err := os.ReadFile(filepath.Join(env.Root, "config", "csi", "driver.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var driver storagev1.CSIDriver
	g.Expect(yaml.UnmarshalStrict(text, &driver)).To(Succeed())
	g.Expect(driver.Name).To(Equal(v1.CSIDriver))
	g.Expect(driver.Spec.VolumeLifecycleModes).To(Equal([]storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}))
	g.Expect([]bool{*driver.Spec.PodInfoOnMount, *driver.Spec.AttachRequired, *driver.Spec.RequiresRepublish}).To(Equal([]bool{true, false, false}))
	g.Expect(*driver.Spec.FSGroupPolicy).To(Equal(storagev1.NoneFSGroupPolicy))

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}}
	label := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`))
	g.Expect(w.Client.Patch(t.Context(), namespace, label)).To(Succeed())
	inline := corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: v1.CSIDriver, VolumeAttributes: map[string]string{"workspace": "web"}}}
	host := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/lib/ws-daemon"}}
	g.Expect(w.Client.Create(t.Context(), restricted(w, "inline", inline))).To(Succeed())
	g.Expect(w.Client.Create(t.Context(), restricted(w, "host", host))).To(MatchError(ContainSubstring("restricted volume types")))
}

// restricted is a pod that the restricted Pod Security Standard allows, but for its volume perhaps.
func restricted(w *harness.World, name string, source corev1.VolumeSource) *corev1.Pod {
	yes, no := true, false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec: corev1.PodSpec{
			Volumes: []corev1.Volume{{Name: "work", VolumeSource: source}},
			Containers: []corev1.Container{{Name: "shell", Image: "none.invalid/shell", SecurityContext: &corev1.SecurityContext{
				RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			}}},
		},
	}
}
