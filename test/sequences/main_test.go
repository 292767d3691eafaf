// Package sequences holds the orders of events that make other systems lose data, played by real daemons against a real API
// server and a real store. Each test has a store, nodes and a namespace of its own.
package sequences

import (
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// env is shared by all tests of the package.
var env *harness.Env

func TestMain(m *testing.M) { os.Exit(harness.Main(m, &env)) }

// begin is how most tests begin: with a workspace that runs on a node, and a text in its file.
func begin(w *harness.World, n *harness.Node, text string, opts ...func(*v1.Workspace)) *harness.Workspace {
	web := w.Workspace("web", n, opts...)
	web.Ready()
	web.Write("file", text)
	return web
}

// shortGrace lets volumes without an object go soon.
func shortGrace(c *config.Config) { c.Content.OrphanGrace.Duration = 3 * time.Second }

// stops stops a workspace. Nothing stays on its node, and the text is saved.
func stops(t *testing.T, web *harness.Workspace, text string) {
	t.Helper()
	web.Stop()
	hasStopped(t, web, "file", text)
}

// hasStopped waits until a workspace that shall stop has left its node, and expects a text in a file of its last backup.
func hasStopped(t *testing.T, web *harness.Workspace, file, text string) {
	t.Helper()
	web.Stopped()
	web.Node.Leftovers()
	NewWithT(t).Expect(web.Saved(file)).To(Equal(text))
}

// staysOn expects that a node goes on holding a workspace, for a while.
func staysOn(t *testing.T, web *harness.Workspace, n *harness.Node, while time.Duration) {
	t.Helper()
	NewWithT(t).Consistently(func() string { return web.Object().Status.NodeName }, while).Should(Equal(n.Name))
}
