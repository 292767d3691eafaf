//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// A node loses its power. The workspace goes on elsewhere with its last backup; the node that comes back saves what it had, and cleans up.
func TestNodeKilled(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", env.b, empty())
	w.pod("first", ws, idle)
	w.exec("first", write)
	before := w.exec("first", list)
	w.backup("web", "before")
	w.exec("first", "echo nobody has a backup of this >unsaved; sync")

	dir := w.directory(ws)
	w.cleanup(func(ctx context.Context) { w.powerOn(ctx, env.b) })
	env.b.PowerOff()
	w.say("the power of %s is off", env.b.Name)
	w.patch("web", fmt.Sprintf(`{"spec":{"nodeName":%q,"fencedNode":%q}}`, env.a.Name, env.b.Name))
	ws = w.await("web", "Running", env.a)
	w.pod("second", ws, idle)
	w.Expect(w.exec("second", list)).To(Equal(before))

	_, err := env.kube(t.Context(), "", "delete", "pod", "first", "--namespace="+w.namespace, "--force", "--grace-period=0")
	w.Expect(err).NotTo(HaveOccurred())
	w.powerOn(t.Context(), env.b)
	var stray string
	w.Eventually(func() (string, error) {
		notes, err := w.events()
		stray = regexp.MustCompile(`kept as snapshot (stray\.web\.\S+?)[.,:;]?(\s|$)`).FindString(strings.Join(notes, "\n"))
		return stray, err
	}).ShouldNot(BeEmpty())
	id := strings.TrimRight(strings.Fields(stray)[3], ".,:;")
	w.Expect(env.archive(t.Context(), "cat", "--domain", w.namespace, "--workspace", "web", "--snapshot", id, "unsaved")).To(Equal("nobody has a backup of this"))
	w.gone(env.b, dir)
	w.Expect(w.exec("second", list)).To(Equal(before), "the old node's return disturbs nobody")
}

// powerOn starts a node that does not run.
func (w *world) powerOn(ctx context.Context, n *nodes.Node) {
	w.t.Helper()
	if n.Alive() {
		return
	}
	w.Expect(n.Start(ctx)).To(Succeed())
	w.say("%s is back", n.Name)
}

// directory returns the one in which a node keeps a workspace that runs, and nothing else.
func (w *world) directory(ws *v1.Workspace) string {
	w.t.Helper()
	var now v1.Workspace
	w.Expect(w.get(&now, ws.Name)).To(Succeed())
	w.Expect(now.Status.Volume.Path).To(ContainSubstring(string(ws.UID)))
	return filepath.Dir(now.Status.Volume.Path)
}

// gone waits until a node has no such directory any more.
func (w *world) gone(n *nodes.Node, dir string) {
	w.t.Helper()
	w.Eventually(func() error {
		_, err := n.Run(w.t.Context(), "! test -e "+dir)
		return err
	}).Should(Succeed(), dir)
}

// A node restarts. Volumes are mounted again, pods come back, and nobody starts from the beginning.
func TestNodeRebooted(t *testing.T) {
	w := newWorld(t)
	w.pod("shell", w.workspace("web", env.a, empty()), idle)
	ws := w.await("web", "Running", env.a)
	w.exec("shell", write)
	before := w.exec("shell", list)
	w.Expect(env.a.Reboot(t.Context())).To(Succeed())
	w.say("%s is back", env.a.Name)
	w.podRuns("shell", 1)
	w.Expect(w.exec("shell", list)).To(Equal(before))
	w.await("web", "Running", env.a)
	var now v1.Workspace
	w.Expect(w.get(&now, "web")).To(Succeed())
	w.Expect(now.Status.Claim).To(Equal(ws.Status.Claim), "it was not claimed again")
	w.Expect(now.Status.Content).To(Equal(ws.Status.Content), "it was not filled again")
}
