package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// NodeGrace is a short time for which a node must be gone.
const NodeGrace = 3 * time.Second

// Controller is a replica of the cluster controller. There is one lease in a cluster: tests with controllers do not run beside each other.
type Controller struct {
	w    *World
	dir  string
	env  []string
	args []string
	proc *process.Process
}

// Controller makes a replica, which is not started. Objects that are being deleted are let go once their node has been gone for grace.
func (w *World) Controller(name string, grace time.Duration, opts ...func(*config.Config)) *Controller {
	w.t.Helper()
	c := &Controller{w: w, dir: filepath.Join(w.Dir, name)}
	w.must(os.Mkdir(c.dir, 0o700))
	kubeconfig, _, err := w.Cluster.AddPod(w.t.Context(), system, controllerAccount, w.Namespace+"-"+name, "")
	w.must(err)
	file := filepath.Join(c.dir, "config.json")
	w.must(os.WriteFile(file, w.config(filepath.Join(c.dir, "none"), opts...), 0o600))
	c.args = []string{"controller", "--config", file, "--kubeconfig", kubeconfig, "--namespace", system, "--node-grace", grace.String()}
	w.t.Cleanup(c.close)
	return c
}

// KillAt has it kill itself at a fault point, once.
func (c *Controller) KillAt(point string) {
	c.env = append(c.env, "WS_DAEMON_FAULT="+point, "WS_DAEMON_FAULT_ONCE="+filepath.Join(c.dir, "killed"))
}

// Start starts it, and returns it.
func (c *Controller) Start() *Controller {
	c.w.t.Helper()
	var err error
	c.proc, err = process.Start(filepath.Join(c.dir, "log"), append(os.Environ(), c.env...), c.w.Env.Binary, c.args...)
	c.w.must(err)
	return c
}

// Leads waits until it leads.
func (c *Controller) Leads() *Controller {
	c.w.t.Helper()
	c.w.Eventually("the controller leads", func() error {
		if !c.proc.Alive() {
			return fmt.Errorf("it has ended: %w\n%s", c.proc.Err(), process.LastLines(c.Log(), 20))
		}
		if !strings.Contains(c.Log(), "Starting workers") {
			return errors.New("it does not")
		}
		return nil
	})
	return c
}

// Alive says whether it runs.
func (c *Controller) Alive() bool { return c.proc.Alive() }

// Kill ends it by SIGKILL.
func (c *Controller) Kill() {
	if c.proc.Alive() {
		c.proc.Signal(syscall.SIGKILL)
		<-c.proc.Done()
	}
}

// Stop ends it by SIGTERM: it gives up its lease.
func (c *Controller) Stop() {
	c.w.t.Helper()
	c.w.must(c.proc.Stop(Patience))
}

// Log is what it has written.
func (c *Controller) Log() string {
	text, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return string(text)
}

func (c *Controller) close() {
	if c.w.t.Failed() {
		c.w.t.Logf("controller %s, last words:\n%s", filepath.Base(c.dir), process.LastLines(c.Log(), 60))
	}
	if c.proc.Alive() {
		_ = c.proc.Stop(Patience)
	}
	for _, mistake := range []string{"DATA RACE", "panic", "forbidden"} {
		if _, after, found := strings.Cut(c.Log(), mistake); found {
			c.w.t.Errorf("the controller has logged a %s%s", mistake, after)
		}
	}
}

// Join makes the Node of a node, which is ready, as a kubelet does.
func (n *Node) Join() *Node {
	n.w.t.Helper()
	n.w.must(n.w.Client.Create(n.w.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}))
	n.Report(corev1.ConditionTrue)
	n.w.t.Cleanup(func() {
		_ = n.w.Client.Delete(context.WithoutCancel(n.w.t.Context()), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}})
	})
	return n
}

// Report says whether the Node is ready: its kubelet says True and False, Unknown the cluster when it hears nothing of it.
func (n *Node) Report(ready corev1.ConditionStatus) {
	n.w.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
	patch := client.RawPatch(types.StrategicMergePatchType, fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, ready))
	n.w.must(n.w.Client.Status().Patch(n.w.t.Context(), node, patch))
}

// Leave deletes the Node, as a cloud does with a machine that is gone.
func (n *Node) Leave() {
	n.w.t.Helper()
	n.w.must(client.IgnoreNotFound(n.w.Client.Delete(n.w.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}})))
}
