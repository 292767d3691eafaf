//go:build vm

package volumes

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

const (
	rootVariable = "WS_DAEMON_TEST_ROOT"
	uidVariable  = "WS_DAEMON_TEST_UID"
)

// TestChild is what TestS5_InstantStart runs and kills: a node that was started again, and makes a workspace that begins with a
// snapshot. Without its environment it does nothing.
func TestChild(t *testing.T) {
	root := os.Getenv(rootVariable)
	if root == "" {
		return
	}
	n := openKeeping(t, root)
	_, err := n.Recover(t.Context())
	n.Expect(err).NotTo(HaveOccurred())
	n.begin(os.Getenv(uidVariable), snapshotOf("first"))
}

func snapshotOf(id string) content.Initializer {
	return content.Initializer{SnapshotID: func(context.Context) (string, error) { return id, nil }}
}

// A process is killed while it makes the first workspace of a snapshot, with its template, and while it makes the second, from that: at a
// point of each, or all of them. The next process gets to the same end, and nothing is left but two workspaces and a template.
func TestS5_InstantStart(t *testing.T) {
	if !onLVM() {
		return // no other volumes have templates
	}
	binary := faultstest.Build(t)
	root := t.TempDir()
	n := newKeeping(t, root)
	web := n.begin("web", content.Initializer{})
	n.Expect(os.WriteFile(filepath.Join(n.Volumes["default"].Path("web", volume.Published), "file"), []byte("first"), 0o600)).To(Succeed())
	_, err := n.Snapshot(t.Context(), content.SaveRequest{Subject: web}, "first", true)
	n.Expect(err).NotTo(HaveOccurred())
	n.drop(web)
	n.Area.Close()

	run := func(uid, variable string) error {
		return binary.Run(t.Context(), rootVariable+"="+root, uidVariable+"="+uid, variable)
	}
	for _, way := range []struct {
		name   string
		cloned bool
	}{{"first", false}, {"second", true}} {
		points := faultstest.Trace(t, func(variable string) error { return run("traced-"+way.name, variable) })
		if !way.cloned {
			forgetTemplates(t, root, "traced-first")
		}
		for _, point := range volumetest.Some(t, "kill during the start of the "+way.name+" workspace", points) {
			t.Run(way.name+"/"+point, func(t *testing.T) {
				g := NewWithT(t)
				uid := way.name + "-" + strings.NewReplacer(".", "-", ":", "-").Replace(point)
				g.Expect(run(uid, faultstest.Kill(point))).To(MatchError(ContainSubstring("signal: killed")))
				g.Expect(run(uid, faultstest.Kill(""))).To(Succeed())
				whole(t, root, uid)
				if !way.cloned {
					forgetTemplates(t, root, uid)
				}
			})
		}
		if !way.cloned {
			NewWithT(t).Expect(run("template", faultstest.Kill(""))).To(Succeed())
		}
	}
	n = openKeeping(t, root)
	for _, s := range n.found() {
		n.drop(s)
	}
	gone, err := n.EvictTemplate(t.Context(), "default")
	n.Expect([]any{gone, err}).To(Equal([]any{true, nil}))
	n.Expect(n.pool()).To(BeEmpty())
}

// whole expects a workspace to have what the snapshot has, and nothing to be left of the attempt that was killed.
func whole(t *testing.T, root, uid string) {
	t.Helper()
	n := openKeeping(t, root)
	defer n.Area.Close()
	n.Expect(os.ReadFile(filepath.Join(n.Volumes["default"].Path(uid, volume.Published), "file"))).To(BeEquivalentTo("first"))
	for _, line := range n.pool() {
		n.Expect(line).To(Or(MatchRegexp(`^ws\.[a-z0-9-]+ wsdaemon$`), MatchRegexp(`^wst\.[0-9a-f]+ wsdaemon,wsdaemon.bytes=[0-9]+,wsdaemon.template$`)))
	}
}

// forgetTemplates removes a workspace and all templates, so that the next workspace of the snapshot is the first again.
func forgetTemplates(t *testing.T, root, uid string) {
	t.Helper()
	n := openKeeping(t, root)
	defer n.Area.Close()
	for _, s := range n.found() {
		if s.UID == uid {
			n.drop(s)
		}
	}
	for gone := true; gone; {
		var err error
		gone, err = n.EvictTemplate(t.Context(), "default")
		n.Expect(err).NotTo(HaveOccurred())
	}
}

// found returns the workspaces on the node.
func (n *keeping) found() []content.Subject {
	list, err := n.Recover(n.ctx)
	n.Expect(err).NotTo(HaveOccurred())
	return list
}

// pool lists what we have in the pool, with its tags.
func (n *keeping) pool() []string {
	out, err := exec.CommandContext(n.ctx, "lvs", "--noheadings", "--options", "lv_name,lv_tags", "--select", "pool_lv="+n.poolName+" && tags=wsdaemon").Output()
	n.Expect(err).NotTo(HaveOccurred())
	lines := []string{}
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

// fileStore opens the store of a node without a cluster, and makes it if it is new.
func fileStore(ctx context.Context, g *WithT, dir string) store.Store {
	s, err := store.NewFilesystem(dir)
	g.Expect(err).NotTo(HaveOccurred())
	if _, err := store.Identity(ctx, s); err != nil {
		_, err = store.Init(ctx, s)
		g.Expect(err).NotTo(HaveOccurred())
	}
	return s
}
