package state_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/state"
)

// onDisk returns an area on a disk of its own, which can be made read-only.
func onDisk(t *testing.T) (dir string, remount func(flags uintptr)) {
	t.Helper()
	g := NewWithT(t)
	dir = t.TempDir()
	g.Expect(unix.Mount("none", dir, "tmpfs", 0, "size=2m")).To(Succeed())
	t.Cleanup(func() { g.Expect(unix.Unmount(dir, unix.MNT_DETACH)).To(Succeed()) })
	return dir, func(flags uintptr) {
		t.Helper()
		g.Expect(unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|flags, "size=2m")).To(Succeed())
	}
}

// What a read-only area says is known, and locked; only that nothing can be noted is an error.
func TestS9_ReadOnlyAreaIsOpened(t *testing.T) {
	g := NewWithT(t)
	dir, remount := onDisk(t)
	a := open(t, dir)
	g.Expect(a.Init(identity())).To(Succeed())
	entry := state.Entry{UID: "uid-1", Namespace: "team", Name: "web", Claim: 3}
	g.Expect(a.Journal().Put(entry)).To(Succeed())
	a.Close()
	g.Expect(os.WriteFile(filepath.Join(dir, "journal", "uid-2.json"), []byte("{"), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "journal", ".tmp-x"), nil, 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, ".tmp-y"), nil, 0o600)).To(Succeed())
	remount(unix.MS_RDONLY)

	a = open(t, dir)
	g.Expect(a.Identity()).To(HaveField("ID", "area-1"))
	g.Expect(a.Check()).To(Succeed())
	g.Expect(a.Journal().List()).To(HaveLen(1))
	g.Expect(a.Journal().Damaged()).To(Equal([]string{"uid-2"}))
	_, err := state.Open(dir)
	g.Expect(err).To(MatchError(state.ErrLocked))
	same := func(*state.Entry, bool) bool { return true }
	g.Expect(a.Journal().Update("uid-1", same)).To(HaveField("Claim", int64(3)), "nothing has to be written")
	_, err = a.Journal().Update("uid-1", func(e *state.Entry, _ bool) bool { e.Claim++; return true })
	g.Expect(err).To(MatchError(state.ErrReadOnly))
	g.Expect(a.Journal().List()).To(HaveExactElements(HaveField("Claim", int64(3))))

	remount(0)
	g.Expect(a.Journal().Update("uid-1", func(e *state.Entry, _ bool) bool { e.Claim++; return true })).To(HaveField("Claim", int64(4)))
	a.Close()
	g.Expect(open(t, dir).Journal().List()).To(HaveExactElements(HaveField("Claim", int64(4))))
	g.Expect(filepath.Glob(filepath.Join(dir, ".tmp-*"))).To(BeEmpty())
}

// A disk that was never written to can be opened, and is no working area.
func TestReadOnlyDiskWithoutAnArea(t *testing.T) {
	g := NewWithT(t)
	dir, remount := onDisk(t)
	remount(unix.MS_RDONLY)
	a := open(t, dir)
	_, err := a.Identity()
	g.Expect(err).To(MatchError(state.ErrNoIdentity))
	g.Expect(a.Init(identity())).To(MatchError(unix.EROFS))
	_, err = state.Open(dir)
	g.Expect(err).To(MatchError(state.ErrLocked))
}
