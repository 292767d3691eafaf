package volume_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

func TestRemoveVeryDeepTree(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	info := filled(t, d, "a")
	deep(t, info.Path, 5000)
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	expectEmpty(g, root)
}

// expectEmpty expects nothing below a root but an empty trash.
func expectEmpty(g *WithT, root string) {
	names := []string{}
	g.Expect(filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})).To(Succeed())
	g.Expect(names).To(Equal([]string{root, filepath.Join(root, ".trash")}))
}

func TestRemoveManyFiles(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	info := filled(t, d, "a")
	for i := range 2500 {
		g.Expect(os.WriteFile(filepath.Join(info.Path, strconv.Itoa(i)), nil, 0)).To(Succeed())
	}
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	expectEmpty(g, root)
}

func TestRemoveClearsProtection(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	info := filled(t, d, "a")
	dir := filepath.Join(info.Path, "dir")
	g.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "immutable"), nil, 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "append"), nil, 0o600)).To(Succeed())
	protect(t, filepath.Join(dir, "immutable"), 0x10)
	protect(t, filepath.Join(dir, "append"), 0x20)
	protect(t, dir, 0x10)
	protect(t, info.Path, 0x20)
	protect(t, info.Dir, 0x10)
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	expectEmpty(g, root)
}

func protect(t *testing.T, path string, flag int) {
	t.Helper()
	g := NewWithT(t)
	f, err := os.Open(path)
	g.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|flag)).To(Succeed())
}

func TestRemoveRefusesMounts(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, path string){
		"another filesystem": mount,
		"a bind mount of the same": func(t *testing.T, path string) {
			t.Helper()
			source := t.TempDir()
			g := NewWithT(t)
			g.Expect(os.WriteFile(filepath.Join(source, "canary"), nil, 0o600)).To(Succeed())
			g.Expect(unix.Mount(source, path, "", unix.MS_BIND, "")).To(Succeed())
			t.Cleanup(func() {
				_ = unix.Unmount(path, unix.MNT_DETACH)
				g.Expect(filepath.Join(source, "canary")).To(BeAnExistingFile())
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d, root := newDirectory(t)
			info := filled(t, d, "a")
			path := filepath.Join(info.Path, "z")
			g.Expect(os.Mkdir(path, 0o700)).To(Succeed())
			prepare(t, path)
			err := d.Remove(t.Context(), "a")
			g.Expect(err).To(MatchError(volume.ErrInUse))
			g.Expect(err).To(MatchError(ContainSubstring(path)))
			g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.Published), "nothing has changed")

			// A mount that appears when the volume is in the trash already stops the removal too.
			trash := filepath.Join(root, ".trash", "a.x")
			g.Expect(os.MkdirAll(filepath.Dir(trash), 0o700)).To(Succeed())
			g.Expect(os.Rename(info.Dir, trash)).To(Succeed())
			g.Expect(d.Sweep(t.Context())).To(MatchError(volume.ErrInUse))
			g.Expect(unix.Unmount(filepath.Join(trash, "content", "z"), 0)).To(Succeed())
			g.Expect(d.Sweep(t.Context())).To(Succeed())
			expectEmpty(g, root)
		})
	}
}

func TestS5_InterruptedRemovalIsFinished(t *testing.T) {
	for name, finish := range map[string]func(context.Context, *volume.Directory) error{
		"by Remove": func(ctx context.Context, d *volume.Directory) error { return d.Remove(ctx, "a") },
		"by Sweep":  func(ctx context.Context, d *volume.Directory) error { return d.Sweep(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d, root := newDirectory(t)
			info := filled(t, d, "a")
			g.Expect(os.MkdirAll(filepath.Join(root, ".trash"), 0o700)).To(Succeed())
			g.Expect(os.Rename(info.Dir, filepath.Join(root, ".trash", "a.x"))).To(Succeed())
			g.Expect(d.List(t.Context())).To(BeEmpty())
			g.Expect(finish(t.Context(), d)).To(Succeed())
			expectEmpty(g, root)
		})
	}
}

func TestS6_RemoveFollowsNothing(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	canary := canaries(t)
	info := filled(t, d, "a")
	for name, target := range map[string]string{"file": "/etc/passwd", "dir": canary, "up": "../../..", "loop": "loop"} {
		g.Expect(os.Symlink(target, filepath.Join(info.Path, "link-"+name))).To(Succeed())
	}
	g.Expect(os.Link(filepath.Join(canary, "canary"), filepath.Join(info.Path, "hard"))).To(Succeed())
	g.Expect(unix.Mkfifo(filepath.Join(info.Path, "fifo"), 0)).To(Succeed())
	g.Expect(unix.Mknod(filepath.Join(info.Path, "device"), unix.S_IFCHR, 0)).To(Succeed())
	g.Expect(os.Mkdir(filepath.Join(info.Path, "\xff\n"), 0)).To(Succeed())
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	expectEmpty(g, root)
}

// canaries returns a directory outside of any volume whose file has to be there when the test ends.
func canaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "canary")
	g := NewWithT(t)
	g.Expect(os.WriteFile(path, []byte("alive"), 0o600)).To(Succeed())
	t.Cleanup(func() { g.Expect(os.ReadFile(path)).To(BeEquivalentTo("alive")) })
	return dir
}

func TestS6_RemoveWhileNamesAreSwappedForLinks(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	canary := canaries(t)
	for range 20 {
		info := filled(t, d, "a")
		content, err := os.OpenRoot(info.Path)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(content.Symlink(canary, "link")).To(Succeed())
		g.Expect(content.MkdirAll("dir/canary/x", 0o700)).To(Succeed())
		stop := make(chan struct{})
		var attackers sync.WaitGroup
		attackers.Go(func() { swap(info.Path, stop) })
		attackers.Go(func() { swap(filepath.Join(root, ".trash"), stop) })
		// The attacker keeps a descriptor, so he goes on when the volume lies in the trash.
		attackers.Go(func() { swapBelow(content, stop) })
		err = d.Remove(t.Context(), "a")
		close(stop)
		attackers.Wait()
		g.Expect(content.Close()).To(Succeed())
		g.Expect(err).NotTo(HaveOccurred())
	}
	expectEmpty(g, root)
}

func swap(dir string, stop chan struct{}) {
	for running(stop) {
		_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "dir"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
	}
}

func swapBelow(root *os.Root, stop chan struct{}) {
	f, err := root.Open(".")
	if err != nil {
		return
	}
	defer f.Close()
	for running(stop) {
		err := unix.Renameat2(int(f.Fd()), "dir", int(f.Fd()), "link", unix.RENAME_EXCHANGE)
		if errors.Is(err, unix.EBADF) {
			return
		}
	}
}

func running(stop chan struct{}) bool {
	select {
	case <-stop:
		return false
	default:
		return true
	}
}

func TestS6_PlantedLinksAreNotFollowed(t *testing.T) {
	outside := func(t *testing.T) string {
		t.Helper()
		dir := canaries(t)
		g := NewWithT(t)
		other, _ := newDirectory(t)
		info := filled(t, other, "b")
		g.Expect(os.Symlink(filepath.Join(info.Dir, ".ws", "marker"), filepath.Join(dir, "marker"))).To(Succeed())
		return dir
	}
	for _, name := range []string{".ws", ".ws/marker", ".ws/volume.json", ".ws/staging", "content", "."} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d, _ := newDirectory(t)
			info := filled(t, d, "a")
			target := outside(t)
			victim := filepath.Join(info.Dir, name)
			g.Expect(os.RemoveAll(victim)).To(Succeed())
			g.Expect(os.Symlink(target, victim)).To(Succeed())

			ctx := t.Context()
			// Whatever these answer, they change nothing behind the link.
			_, _ = d.Ensure(ctx, volume.Spec{ID: "a", Size: 1})
			_, _ = d.Resize(ctx, volume.Spec{ID: "a", Size: 2})
			_, _ = d.Position(ctx, "a")
			_, _ = volume.ReadMarker(info)
			_, _ = d.Usage(ctx, "a")
			_, _ = d.Stage(ctx, "a")
			_ = d.Publish(ctx, "a")
			_ = d.Withdraw(ctx, "a")
			_ = d.Discard(ctx, "a", volume.Staged)
			_ = d.Remove(ctx, "a")
			g.Expect(os.ReadDir(target)).To(HaveLen(2), "canary and marker")
		})
	}
}

func TestS6_MarkerBehindALinkIsRefused(t *testing.T) {
	for _, name := range []string{"", ".ws", ".ws/marker"} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d, _ := newDirectory(t)
			filled(t, d, "other")
			info := filled(t, d, "a")
			g.Expect(os.RemoveAll(filepath.Join(info.Dir, name))).To(Succeed())
			g.Expect(os.Symlink(filepath.Join(filepath.Dir(info.Dir), "other", name), filepath.Join(info.Dir, name))).To(Succeed())
			_, err := volume.ReadMarker(info)
			g.Expect(err).To(HaveOccurred())
			_, err = d.Position(t.Context(), "a")
			g.Expect(err).To(HaveOccurred())
		})
	}
}

func TestS6_MarkerOfAnotherUserIsRefused(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDirectory(t)
	info := filled(t, d, "a")
	path := filepath.Join(info.Dir, ".ws", "marker")
	g.Expect(os.Chown(path, 33333, 33333)).To(Succeed())
	_, err := volume.ReadMarker(info)
	g.Expect(err).To(MatchError(ContainSubstring("belongs to uid 33333")))

	g.Expect(os.Remove(path)).To(Succeed())
	g.Expect(unix.Mkfifo(path, 0o600)).To(Succeed())
	_, err = volume.ReadMarker(info)
	g.Expect(err).To(MatchError(ContainSubstring("no regular file")), "and did not wait for a writer")
}

func TestPositionIsNeverNoneWhileContentMoves(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDirectory(t)
	filled(t, d, "a")
	stop := make(chan struct{})
	var mover sync.WaitGroup
	mover.Go(func() {
		for running(stop) {
			g.Expect(d.Withdraw(t.Context(), "a")).To(Succeed())
			g.Expect(d.Publish(t.Context(), "a")).To(Succeed())
		}
	})
	for range 2000 {
		g.Expect(d.Position(t.Context(), "a")).To(BeElementOf(volume.Published, volume.Withdrawn))
	}
	close(stop)
	mover.Wait()
}

// Somebody makes a directory where users look for the content, after it was taken away: nothing of it is lost.
func TestRemoveLeavesWhatIsNotContent(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDirectory(t)
	info, err := d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.Mkdir(info.Path, 0o755)).To(Succeed())
	late := filepath.Join(info.Path, "late")
	g.Expect(os.WriteFile(late, []byte("precious"), 0o600)).To(Succeed())
	var foreign *volume.ForeignError
	g.Expect(errors.As(d.Remove(t.Context(), "a"), &foreign)).To(BeTrue())
	g.Expect(foreign.Path).To(Equal(info.Path))
	g.Expect(os.ReadFile(late)).To(BeEquivalentTo("precious"))
	g.Expect(os.Remove(late)).To(Succeed())
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	g.Expect(info.Dir).NotTo(BeADirectory())
}
