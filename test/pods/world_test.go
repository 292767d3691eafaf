package pods

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/csi/csitest"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// machine is a node with a kubelet, which is the test.
type machine struct {
	*WithT
	*harness.Node
	t *testing.T
	w *harness.World

	dir, socket string
}

func newMachine(t *testing.T, w *harness.World, name string) *machine {
	t.Helper()
	m := &machine{WithT: NewWithT(t), t: t, w: w, dir: csitest.KubeletDir(t)}
	m.SetDefaultEventuallyTimeout(harness.Patience)
	m.Expect(os.MkdirAll(filepath.Join(m.dir, "pods"), 0o750)).To(Succeed())
	m.Expect(os.Mkdir(filepath.Join(m.dir, "plugins_registry"), 0o750)).To(Succeed())
	m.socket = filepath.Join(m.dir, "plugins", v1.CSIDriver, "csi.sock")
	m.Node = w.Node(name, func(c *config.Config) {
		c.CSI = config.CSI{Socket: m.socket, RegistrationDir: filepath.Join(m.dir, "plugins_registry"), KubeletDir: m.dir}
	})
	return m
}

// call makes a call to the driver, as soon as there is one.
func (m *machine) call(do func(ctx context.Context, node csi.NodeClient) error) error {
	m.t.Helper()
	conn, err := grpc.NewClient("unix://"+m.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	m.Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	return do(ctx, csi.NewNodeClient(conn))
}

// pod is one with a workspace as a volume.
type pod struct {
	*corev1.Pod
	m      *machine
	target string
}

// pod makes a pod with a workspace as a volume, by the API server's rules.
func (m *machine) pod(name, workspace string) *pod {
	m.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.w.Namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName:   m.Name,
			Containers: []corev1.Container{{Name: "shell", Image: "none.invalid/shell"}},
			Volumes: []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
				Driver: v1.CSIDriver, VolumeAttributes: map[string]string{v1.CSIAttributeWorkspace: workspace},
			}}}},
		},
	}
	m.Expect(m.w.Client.Create(m.t.Context(), p)).To(Succeed())
	return &pod{Pod: p, m: m, target: csitest.Target(m.t, m.dir, string(p.UID))}
}

// publish asks for the pod's volume as the kubelet does.
func (p *pod) publish() error {
	p.m.t.Helper()
	return p.m.call(func(ctx context.Context, node csi.NodeClient) error {
		_, err := node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: "csi-" + string(p.UID), TargetPath: p.target,
			VolumeCapability: &csi.VolumeCapability{
				AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
				AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			},
			VolumeContext: map[string]string{
				v1.CSIAttributeWorkspace:      p.Spec.Volumes[0].CSI.VolumeAttributes[v1.CSIAttributeWorkspace],
				"csi.storage.k8s.io/pod.name": p.Name, "csi.storage.k8s.io/pod.namespace": p.Namespace,
				"csi.storage.k8s.io/pod.uid": string(p.UID), "csi.storage.k8s.io/ephemeral": "true",
			},
		})
		return err
	})
}

func (p *pod) unpublish() error {
	p.m.t.Helper()
	return p.m.call(func(ctx context.Context, node csi.NodeClient) error {
		_, err := node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-" + string(p.UID), TargetPath: p.target})
		return err
	})
}

func (p *pod) write(name, text string) {
	p.m.t.Helper()
	p.m.Expect(os.WriteFile(filepath.Join(p.target, name), []byte(text), 0o600)).To(Succeed())
}

func (p *pod) read(name string) string {
	p.m.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.target, name))
	p.m.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// says returns the message of an answer.
func says(err error) string { return status.Convert(err).Message() }
