package cmd

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// All that the daemon opens before it asks anybody can be opened when the working area is read-only, and its volumes are found.
func TestS9_DaemonBeginsOnAReadOnlyArea(t *testing.T) {
	n := newNode(t)
	n.Expect(unix.Mount("none", n.area, "tmpfs", 0, "size=64m,mode=0711")).To(Succeed())
	t.Cleanup(func() { n.Expect(unix.Unmount(n.area, unix.MNT_DETACH)).To(Succeed()) })
	k := n.keeper(t, "node-a", "here")
	content := n.fill(t, k, subject("used"))
	n.Expect(os.WriteFile(filepath.Join(content, "file"), []byte("text"), 0o600)).To(Succeed())
	k.Area.Close()
	n.Expect(unix.Mount("none", n.area, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=64m")).To(Succeed())

	cfg, err := config.Load(n.config)
	n.Expect(err).NotTo(HaveOccurred())
	area, err := state.Open(n.area)
	n.Expect(err).NotTo(HaveOccurred())
	defer area.Close()
	k, err = newKeeper(t.Context(), cfg, area, "node-a", k.Store)
	n.Expect(err).NotTo(HaveOccurred())
	found, err := k.Recover(t.Context())
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(found).To(HaveLen(1))
	n.Expect(os.ReadFile(filepath.Join(content, "file"))).To(BeEquivalentTo("text"))
}
