//go:build vm

package volumes

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/csi/csitest"
)

// A pod has a limited volume by the CSI driver: its usage is told, a stop waits for the mount, across a death of the daemon, and then
// nothing of the volume is left.
func TestS1_VolumeOfAPod(t *testing.T) {
	w := newWorld(t)
	dir := csitest.KubeletDir(t)
	w.Expect(os.MkdirAll(filepath.Join(dir, "pods"), 0o755)).To(Succeed())
	w.Expect(os.Mkdir(filepath.Join(dir, "registry"), 0o755)).To(Succeed())
	socket := filepath.Join(dir, "csi.sock")
	a := w.node("a", func(c *config.Config) {
		c.CSI = config.CSI{Socket: socket, RegistrationDir: filepath.Join(dir, "registry"), KubeletDir: dir}
	})
	pod := csitest.Pod(w.namespace, "shell", a.name, "web")
	w.create(pod)
	target := csitest.Target(t, dir, string(pod.UID))
	w.workspace("web", a, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	w.Eventually(func() error { return csitest.Publish(t, socket, target, pod) }).Should(Succeed())
	w.say("the pod has the workspace")
	ws := w.await("web", "Running")
	w.Expect(os.WriteFile(filepath.Join(target, "file"), make([]byte, 1<<20), 0o600)).To(Succeed())
	w.run("sync", "--file-system", target)

	var usage []*csi.VolumeUsage
	w.Expect(csitest.Call(t, socket, func(ctx context.Context, node csi.NodeClient) error {
		a, err := node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "csi", VolumePath: target})
		usage = a.GetUsage()
		return err
	})).To(Succeed())
	w.Expect(usage).To(HaveLen(2))
	w.Expect(usage[0].GetTotal()).To(Equal(ws.Spec.Volume.Size.Value()))
	w.Expect(usage[0].GetUsed()).To(And(BeNumerically(">=", 1<<20), BeNumerically("<", 4<<20)))
	w.Expect(usage[0].GetAvailable()).To(BeNumerically("<=", usage[0].GetTotal()-usage[0].GetUsed()))
	w.Expect(usage[1].GetUsed()).To(BeNumerically(">", 0))

	w.patch("web", `{"spec":{"state":"Stopped"}}`)
	waits := func() (string, error) {
		err := w.get(ws, "web")
		if c := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionFinalBackup); c != nil {
			return c.Reason, err
		}
		return "", err
	}
	w.Eventually(waits).Should(Equal(v1.ReasonWaitingForPods))
	w.Expect(w.client.Delete(t.Context(), pod, client.GracePeriodSeconds(0))).To(Succeed(), "by force: no kubelet has to agree")
	a.kill()
	a.start()
	w.Consistently(waits, "2s").Should(Equal(v1.ReasonWaitingForPods))
	w.Expect(os.Stat(filepath.Join(target, "file"))).To(HaveField("Size()", BeEquivalentTo(1<<20)))
	w.Expect(csitest.Unpublish(t, socket, target)).To(Succeed())
	w.await("web", "Stopped")
	w.Eventually(a.volumes).Should(BeEmpty())
}
