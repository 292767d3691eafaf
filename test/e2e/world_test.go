//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// owner is who workspaces belong to, and whom pods run as.
const owner = 33333

// world is what one test plays in: a namespace.
type world struct {
	*WithT
	t         *testing.T
	namespace string
	began     time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{WithT: NewWithT(t), t: t, namespace: "e" + strings.ToLower(rand.Text()[:8]), began: time.Now()}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(tick)
	w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})
	w.cleanup(w.close)
	return w
}

// close removes what the test made; what a failed one made stays for those who look.
func (w *world) close(ctx context.Context) {
	if w.t.Failed() {
		return
	}
	_, err := env.kube(ctx, "", "delete", "namespace", w.namespace, "--wait=false")
	w.Expect(err).NotTo(HaveOccurred())
	w.say("the test is over")
}

// cleanup has something done when the test is over, and its context with it.
func (w *world) cleanup(do func(ctx context.Context)) {
	w.t.Helper()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		do(ctx)
	})
}

// say prints what has happened, and when.
func (w *world) say(format string, args ...any) {
	w.t.Logf("[%5.1f s] %s", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

func (w *world) create(o client.Object) {
	w.t.Helper()
	w.Expect(env.client.Create(w.t.Context(), o)).To(Succeed())
}

// get reads an object of the namespace; reading has a deadline of its own.
func (w *world) get(o client.Object, name string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return env.client.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, o)
}

// workspace makes one of the least size that all drivers can make.
func (w *world) workspace(name string, n *nodes.Node, init v1.Initializer) *v1.Workspace {
	w.t.Helper()
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1.WorkspaceSpec{
			NodeName: n.Name, Owner: v1.Owner{UID: owner, GID: owner}, Initializer: init, DeletionPolicy: v1.DeletionDelete,
			Volume: v1.VolumeSpec{Size: resource.MustParse("304Mi")}, Backup: v1.BackupSpec{Interval: &metav1.Duration{}},
		},
	}
	w.create(ws)
	return ws
}

// await waits until a workspace's Ready has a reason, on a node or on none, and returns the workspace.
func (w *world) await(name, reason string, n *nodes.Node) *v1.Workspace {
	w.t.Helper()
	want := reason + " on :"
	if n != nil {
		want = reason + " on " + n.Name + ":"
	}
	var ws v1.Workspace
	w.Eventually(func() (string, error) {
		err := w.get(&ws, name)
		c := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionReady)
		if c == nil || c.ObservedGeneration != ws.Generation {
			return "", err
		}
		return fmt.Sprintf("%s on %s: %s", c.Reason, ws.Status.NodeName, c.Message), err
	}).Should(HavePrefix(want), func() string { return text(&ws.Status) })
	w.say("workspace %s is %s", name, strings.TrimSuffix(want, ":"))
	return &ws
}

func text(o any) string {
	out, _ := yaml.Marshal(o)
	return string(out)
}

// patch changes a workspace.
func (w *world) patch(name, patch string) {
	w.t.Helper()
	ws := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	w.Expect(env.client.Patch(w.t.Context(), ws, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}

// backup triggers a backup and waits until it is made.
func (w *world) backup(name, trigger string) {
	w.t.Helper()
	w.patch(name, fmt.Sprintf(`{"spec":{"backup":{"trigger":%q}}}`, trigger))
	w.backedUp(name, trigger)
}

func (w *world) backedUp(name, trigger string) {
	w.t.Helper()
	var ws v1.Workspace
	w.Eventually(func() (*v1.BackupStatus, error) {
		err := w.get(&ws, name)
		return ws.Status.Backup, err
	}).Should(HaveValue(HaveField("Trigger", trigger)), func() string { return text(&ws.Status) })
	w.say("backup %s of workspace %s has %d files", ws.Status.Backup.Latest.Name, name, ws.Status.Backup.Latest.Files)
}

// events returns what was said of the namespace's objects.
func (w *world) events() ([]string, error) {
	var list eventsv1.EventList
	err := env.client.List(w.t.Context(), &list, client.InNamespace(w.namespace))
	notes := make([]string, 0, len(list.Items))
	for i := range list.Items {
		notes = append(notes, list.Items[i].Note)
	}
	return notes, err
}
