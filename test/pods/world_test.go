package pods

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

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

// pod is one with a workspace as a volume.
type pod struct {
	*corev1.Pod
	m      *machine
	target string
}

// pod makes a pod with a workspace as a volume, by the API server's rules.
func (m *machine) pod(name, workspace string) *pod {
	m.t.Helper()
	p := csitest.Pod(m.w.Namespace, name, m.Name, workspace)
	m.Expect(m.w.Client.Create(m.t.Context(), p)).To(Succeed())
	return &pod{Pod: p, m: m, target: csitest.Target(m.t, m.dir, string(p.UID))}
}

// publish asks for the pod's volume as the kubelet does.
func (p *pod) publish() error {
	p.m.t.Helper()
	return csitest.Publish(p.m.t, p.m.socket, p.target, p.Pod)
}

func (p *pod) unpublish() error {
	p.m.t.Helper()
	return csitest.Unpublish(p.m.t, p.m.socket, p.target)
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
