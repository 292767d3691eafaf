package content_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// remounted starts the node again with a working area that is a mount of its own, whose flags are given; the volumes lie on another one.
func (n *node) remounted(flags uintptr) {
	n.f.t.Helper()
	name, volumes := n.Node, filepath.Join(n.disk, "volumes")
	n.Area.Close()
	for _, dir := range []string{n.disk, volumes} {
		n.f.Expect(unix.Mount(dir, dir, "", unix.MS_BIND, "")).To(Succeed())
		n.f.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	n.f.Expect(unix.Mount("", n.disk, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")).To(Succeed())
	n.open(name)
}

// A node whose working area is read-only when it starts has its workspaces in use all the same. Their content is saved without anything
// that the node would have to remember, and backups go on where they were once it can be written to.
func TestS9_ReadOnlyAreaKeepsContentInUse(t *testing.T) {
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.remounted(unix.MS_RDONLY)
	g := f.Gomega
	g.Expect(os.WriteFile(filepath.Join(a.disk, "x"), nil, 0o600)).To(MatchError(unix.EROFS))
	found, err := a.Recover(f.ctx)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(HaveLen(1))
	g.Expect(a.files()).To(Equal("file=one"))

	g.Expect(a.Backup(f.ctx, saveRequest(1))).To(And(MatchError(state.ErrReadOnly), MatchError(ContainSubstring("the newest one equals the content"))))
	g.Expect(f.pins("")).To(BeEmpty())
	a.write("file", "two")
	g.Expect(a.Backup(f.ctx, saveRequest(1))).To(And(MatchError(state.ErrReadOnly), MatchError(ContainSubstring("the content was saved as snapshot "+history.StrayPrefix("web", "node-a")))))
	g.Expect(f.pins("")).To(HaveLen(1))
	g.Expect(f.pinned(f.pins("")[0])).To(Equal("file=two"))
	g.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(state.ErrReadOnly))
	g.Expect(f.pins("")).To(HaveLen(1), "once for each state of the content")
	_, err = a.Release(f.ctx, saveRequest(1), idle)
	g.Expect(err).To(MatchError(state.ErrReadOnly), "nothing is released that cannot be noted")
	g.Expect(f.entries()).To(Equal("1.1 1.0"))

	a.remounted(0)
	a.settled(1)
	g.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
}
