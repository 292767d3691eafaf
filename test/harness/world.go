package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/hack/process"
)

const (
	// Patience is how long anything may take on a busy machine.
	Patience = 40 * time.Second
	// Tick is the pause between two looks.
	Tick = 50 * time.Millisecond
)

// World is what one test plays in. Its methods fail the test if they fail, and are called from the test's goroutine.
type World struct {
	// Env is shared with other tests.
	Env *Env
	// Namespace of the test's objects.
	Namespace string
	// Dir is for files; it goes with the test.
	Dir string
	// Store is the directory of the object store.
	Store string
	// Client and Cluster are the Env's, unless OnOwnCluster says otherwise.
	Client  client.Client
	Cluster *cluster.Cluster
	// Patience is how long anything may take; a test that restarts much may want more.
	Patience time.Duration

	t       *testing.T
	g       *WithT
	nodes   []*Node
	mounted bool
	tmpfs   int64
}

// WorldOption changes a World before anything is made.
type WorldOption func(*World)

// OnTmpfs puts the store on a file system of its own with so many bytes, which can be filled and frozen.
func OnTmpfs(size int64) WorldOption { return func(w *World) { w.tmpfs = size } }

// OnOwnCluster starts an API server that the test may ruin.
func OnOwnCluster() WorldOption {
	return func(w *World) {
		c, cl, err := w.Env.startCluster(w.t.Context(), filepath.Join(w.Dir, "cluster"))
		w.must(err)
		w.Cluster, w.Client = c, cl
	}
}

// World makes a namespace and an initialized store for a test, and removes them with it.
func (e *Env) World(t *testing.T, opts ...WorldOption) *World {
	t.Helper()
	w := &World{
		Env: e, Client: e.Client, Cluster: e.Cluster, Patience: Patience, t: t, g: NewWithT(t),
		Namespace: fmt.Sprintf("w%d", e.serial.Add(1)),
	}
	w.Dir = filepath.Join(e.Dir, w.Namespace)
	w.Store = filepath.Join(w.Dir, "store")
	w.must(os.Mkdir(w.Dir, 0o711))
	w.must(os.Mkdir(w.Store, 0o700))
	t.Cleanup(w.close)
	for _, opt := range opts {
		opt(w)
	}
	w.mountStore()
	w.InitStore(w.Store)
	w.must(w.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}}))
	return w
}

// close ends what runs, tells about a failed test, and removes what is left.
func (w *World) close() {
	if w.t.Failed() {
		w.dump()
	}
	for _, n := range w.nodes {
		n.close()
	}
	w.unmountStore()
	if err := w.leaveCluster(); err != nil {
		w.t.Logf("remove the namespace: %v", err)
	}
	if err := os.RemoveAll(w.Dir); err != nil {
		w.t.Errorf("remove what the test has left: %v", err)
	}
}

// leaveCluster stops an own cluster; from a shared one it removes what is the test's.
func (w *World) leaveCluster() error {
	if w.Cluster != w.Env.Cluster {
		w.Cluster.Stop()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return w.abandon(ctx)
}

// abandon deletes the namespace although no daemon is left that would let its objects go.
func (w *World) abandon(ctx context.Context) error {
	var list v1.WorkspaceList
	var snapshots v1.SnapshotList
	err := errors.Join(w.Client.List(ctx, &list, client.InNamespace(w.Namespace)), w.Client.List(ctx, &snapshots, client.InNamespace(w.Namespace)))
	release := func(o client.Object) {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
		err = errors.Join(err, client.IgnoreNotFound(w.Client.Patch(ctx, o, patch)))
	}
	for i := range list.Items {
		release(&list.Items[i])
	}
	for i := range snapshots.Items {
		release(&snapshots.Items[i])
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}}
	return errors.Join(err, client.IgnoreNotFound(w.Client.Delete(ctx, ns)))
}

// dump prints what a person would look at.
func (w *World) dump() {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var list v1.WorkspaceList
	if err := w.Client.List(ctx, &list, client.InNamespace(w.Namespace)); err != nil {
		w.t.Logf("list workspaces: %v", err)
	}
	for i := range list.Items {
		list.Items[i].ManagedFields = nil
		text, _ := yaml.Marshal(list.Items[i])
		w.t.Logf("workspace %s\n%s", list.Items[i].Name, text)
	}
	events, _ := w.events(ctx, "")
	for _, e := range events {
		w.t.Log("event:", e)
	}
	for _, n := range w.nodes {
		w.t.Logf("node %s: volumes %v, journal %v, last words:\n%s", n.Name, n.Volumes(), n.Journal(), process.LastLines(n.Log(), 60))
	}
}

func (w *World) must(err error) {
	w.t.Helper()
	w.g.Expect(err).NotTo(HaveOccurred())
}

func (w *World) read(file string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Clean(file))
	w.must(err)
	return string(text)
}

// Eventually calls check until it succeeds, or fails the test with its last error.
func (w *World) Eventually(what string, check func() error) {
	w.t.Helper()
	deadline := time.NewTimer(w.Patience)
	defer deadline.Stop()
	tick := time.NewTicker(Tick)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			w.t.Fatalf("after %s still waiting until %s: %v", w.Patience, what, err)
		case <-w.t.Context().Done():
			w.t.Fatalf("the test ended while waiting until %s: %v", what, err)
		case <-tick.C:
		}
	}
}

// InstallCRDs brings our types back to a cluster that has lost them.
func (w *World) InstallCRDs() {
	w.t.Helper()
	w.must(w.Cluster.InstallCRDs(w.t.Context(), w.Env.crds()))
}

// Run calls the daemon's command line and returns what it prints.
func (w *World) Run(args ...string) string {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), w.Env.Binary, args...).CombinedOutput()
	w.g.Expect(err).NotTo(HaveOccurred(), "%v: %s", args, out)
	return string(out)
}

// AwaitEvent waits for an event with a reason whose message contains a text.
func (w *World) AwaitEvent(reason, text string) {
	w.t.Helper()
	w.Eventually("there is an event "+reason+" with "+text, func() error {
		messages, err := w.events(w.t.Context(), reason)
		if err == nil && !slices.ContainsFunc(messages, func(m string) bool { return strings.Contains(m, text) }) {
			err = fmt.Errorf("there are %q", messages)
		}
		return err
	})
}

// events returns the messages of the namespace's events with a reason; of all events, and with more, if it is empty.
func (w *World) events(ctx context.Context, reason string) ([]string, error) {
	var list eventsv1.EventList
	if err := w.Client.List(ctx, &list, client.InNamespace(w.Namespace)); err != nil {
		return nil, err
	}
	messages := make([]string, 0, len(list.Items))
	for i := range list.Items {
		e := &list.Items[i]
		switch reason {
		case "":
			messages = append(messages, fmt.Sprintf("%s %s/%s: %s", e.Type, e.Regarding.Name, e.Reason, e.Note))
		case e.Reason:
			messages = append(messages, e.Note)
		}
	}
	return messages, nil
}

// Pod creates a running pod on a node that uses a workspace.
func (w *World) Pod(name string, ws *Workspace, n *Node) *corev1.Pod {
	w.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name, Labels: map[string]string{v1.LabelWorkspace: ws.Name}},
		Spec:       corev1.PodSpec{NodeName: n.Name, Containers: []corev1.Container{{Name: "shell", Image: "none.invalid/shell"}}},
	}
	w.must(w.Client.Create(w.t.Context(), pod))
	pod.Status.Phase = corev1.PodRunning
	w.must(w.Client.Status().Update(w.t.Context(), pod))
	return pod
}

// RemovePod deletes a pod at once, as a kubelet does when its processes have ended.
func (w *World) RemovePod(pod *corev1.Pod) {
	w.t.Helper()
	w.must(w.Client.Delete(w.t.Context(), pod, client.GracePeriodSeconds(0)))
}
