package volume_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

func TestDirectory(t *testing.T) {
	volumetest.Run(t, func(t *testing.T) volume.Driver {
		t.Helper()
		d, _ := newDirectory(t)
		return d
	})
}

func newDirectory(t *testing.T) (*volume.Directory, string) {
	t.Helper()
	root := t.TempDir()
	d, err := volume.NewDirectory(root)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return d, root
}

// filled returns a volume with published content.
func filled(t *testing.T, d volume.Driver, id string) volume.Info {
	t.Helper()
	g := NewWithT(t)
	info, err := d.Ensure(t.Context(), volume.Spec{ID: id})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(volumetest.Fill(t.Context(), d, info, "first")).To(Succeed())
	g.Expect(d.Publish(t.Context(), id)).To(Succeed())
	return info
}

func TestNewDirectoryNeedsADirectoryOfOurs(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "file")
	g.Expect(os.WriteFile(file, nil, 0o600)).To(Succeed())
	_, err := volume.NewDirectory(file)
	g.Expect(err).To(MatchError(unix.ENOTDIR))

	foreign := t.TempDir()
	g.Expect(os.Chown(foreign, 33333, 33333)).To(Succeed())
	_, err = volume.NewDirectory(foreign)
	g.Expect(err).To(MatchError(ContainSubstring("belongs to uid 33333")))

	link := filepath.Join(t.TempDir(), "link")
	target := t.TempDir()
	g.Expect(os.Symlink(target, link)).To(Succeed())
	d, err := volume.NewDirectory(link)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.Path("a", volume.Published)).To(Equal(filepath.Join(target, "a", "content")))
}

// A disk may come later than the daemon. Until it does nothing is concluded from its absence.
func TestS10_DirectoryThatIsMissingIsNoEmptyDisk(t *testing.T) {
	g := NewWithT(t)
	root := filepath.Join(t.TempDir(), "mount", "volumes")
	d, err := volume.NewDirectory(root)
	g.Expect(err).NotTo(HaveOccurred())
	expectReplaced(t.Context(), g, d)
	err = d.Identify(t.Context(), "area", false)
	g.Expect(err).To(MatchError(volume.ErrOtherDisk))
	g.Expect(err).To(MatchError(ContainSubstring(root + ": no such file or directory")))
	g.Expect(filepath.Dir(root)).NotTo(BeADirectory(), "nothing is made where a disk is missing")

	g.Expect(os.MkdirAll(root, 0o711)).To(Succeed())
	expectReplaced(t.Context(), g, d)
	g.Expect(d.Identify(t.Context(), "area", true)).To(MatchError(ContainSubstring("although there are volumes of this class")))
	g.Expect(d.Identify(t.Context(), "area", false)).To(Succeed())
	filled(t, d, "a")

	foreign := filepath.Join(t.TempDir(), "late")
	late, err := volume.NewDirectory(foreign)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.Mkdir(foreign, 0o711)).To(Succeed())
	g.Expect(os.Chown(foreign, 33333, 33333)).To(Succeed())
	g.Expect(late.Identify(t.Context(), "area", false)).To(MatchError(ContainSubstring("belongs to uid 33333")))
}

func TestCapacityOfADisk(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	g.Expect(unix.Mount("tmpfs", root, "tmpfs", 0, "size=16m,nr_inodes=1000,mode=0711")).To(Succeed())
	t.Cleanup(func() { g.Expect(unix.Unmount(root, unix.MNT_DETACH)).To(Succeed()) })
	d, err := volume.NewDirectory(root)
	g.Expect(err).NotTo(HaveOccurred())
	c, err := d.Capacity(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(c).To(Equal(volume.Capacity{Room: volume.Room{Size: 16 << 20, Free: 16 << 20, Inodes: 1000, FreeInodes: 999}}))
	g.Expect(os.WriteFile(filepath.Join(root, "file"), make([]byte, 1<<20), 0o600)).To(Succeed())
	c, err = d.Capacity(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(c).To(Equal(volume.Capacity{Room: volume.Room{Size: 16 << 20, Free: 15 << 20, Inodes: 1000, FreeInodes: 998}}))

	g.Expect(unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")).To(Succeed())
	_, err = d.Capacity(t.Context())
	g.Expect(err).To(MatchError(volume.ErrReadOnly))
	g.Expect(err).To(MatchError(HavePrefix(root + " is mounted read-only: ")))
}

func TestModesAreThoseOfTheLayout(t *testing.T) {
	g := NewWithT(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	d, root := newDirectory(t)
	info := filled(t, d, "a")
	_, err := d.Stage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.Remove(t.Context(), "b")).To(Succeed())
	for path, mode := range map[string]os.FileMode{
		info.Dir:                       0o755,
		filepath.Join(info.Dir, ".ws"): 0o711,
		filepath.Join(info.Dir, ".ws", "staging"): 0o700,
		filepath.Join(info.Dir, ".ws", "marker"):  0o600,
	} {
		st, err := os.Lstat(path)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(st.Mode().Perm()).To(Equal(mode), path)
	}
	g.Expect(os.Chmod(info.Dir, 0o777)).To(Succeed())
	g.Expect(d.Ensure(t.Context(), volume.Spec{ID: "a"})).Error().NotTo(HaveOccurred())
	st, err := os.Lstat(filepath.Join(root, "a"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(st.Mode().Perm()).To(Equal(os.FileMode(0o755)), "Ensure sets it right")
}

func TestListShowsUnfinishedAndDamagedVolumes(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	filled(t, d, "good")
	g.Expect(os.Mkdir(filepath.Join(root, "empty"), 0o755)).To(Succeed())
	g.Expect(d.Ensure(t.Context(), volume.Spec{ID: "damaged", Size: 5})).Error().NotTo(HaveOccurred())
	description := filepath.Join(root, "damaged", ".ws", "volume.json")
	g.Expect(os.WriteFile(description, []byte("{"), 0o600)).To(Succeed())
	g.Expect(os.Mkdir(filepath.Join(root, "lost+found"), 0o700)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(root, "file"), nil, 0o600)).To(Succeed())
	g.Expect(os.Symlink(root, filepath.Join(root, "link"))).To(Succeed())

	list, err := d.List(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	ids := make([]string, 0, len(list))
	for _, info := range list {
		ids = append(ids, info.ID)
		g.Expect(info.Dir).To(Equal(filepath.Join(root, info.ID)))
	}
	g.Expect(ids).To(Equal([]string{"damaged", "empty", "good"}))
	_, err = d.Get(t.Context(), "damaged")
	g.Expect(err).To(MatchError(volume.ErrDamaged))
	g.Expect(err).To(MatchError(ContainSubstring(description)))
	g.Expect(d.Position(t.Context(), "empty")).To(Equal(volume.None))
	g.Expect(d.Remove(t.Context(), "damaged")).To(Succeed())
	g.Expect(d.Remove(t.Context(), "file")).To(MatchError(ContainSubstring("a file and no volume")))
	g.Expect(d.Remove(t.Context(), "link")).To(MatchError(ContainSubstring("a symbolic link and no volume")))
}

func TestDamagedMarkerIsAnErrorThatNamesTheFile(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"format":1,"uid":"a`, "newer": `{"format":2}`, "none": `{}`,
		"large": `{"format":1,"uid":"` + strings.Repeat("a", 70000) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d, _ := newDirectory(t)
			info := filled(t, d, "a")
			path := filepath.Join(info.Dir, ".ws", "marker")
			g.Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
			_, err := volume.ReadMarker(info)
			g.Expect(err).To(MatchError(ContainSubstring(path)))
			_, err = d.Position(t.Context(), "a")
			g.Expect(err).To(MatchError(ContainSubstring(path)))
			g.Expect(d.Withdraw(t.Context(), "a")).NotTo(Succeed())
			_, err = d.Stage(t.Context(), "a")
			g.Expect(err).To(HaveOccurred(), "who knows what is staged")
			g.Expect(filepath.Join(info.Path, "file")).To(BeAnExistingFile())
		})
	}
}

func TestS10_RootThatWasReplacedIsNoEmptyDisk(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	info := filled(t, d, "a")
	open, err := volume.OpenMarker(info)
	g.Expect(err).NotTo(HaveOccurred())
	defer open.Close()
	g.Expect(open.Check()).To(Succeed())

	g.Expect(unix.Mount("none", root, "tmpfs", 0, "size=1m")).To(Succeed())
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	expectReplaced(t.Context(), g, d)
	g.Expect(open.Check()).To(MatchError(volume.ErrReplaced))
	g.Expect(os.ReadDir(root)).To(BeEmpty(), "nothing was written")

	g.Expect(unix.Unmount(root, 0)).To(Succeed())
	g.Expect(open.Check()).To(Succeed())
	g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.Published))

	moved := root + "-moved"
	g.Expect(os.Rename(root, moved)).To(Succeed())
	defer os.RemoveAll(moved)
	expectReplaced(t.Context(), g, d)
	g.Expect(open.Check()).To(MatchError(volume.ErrReplaced))
}

func expectReplaced(ctx context.Context, g *WithT, d *volume.Directory) {
	_, list := d.List(ctx)
	_, get := d.Get(ctx, "a")
	_, ensure := d.Ensure(ctx, volume.Spec{ID: "b"})
	_, capacity := d.Capacity(ctx)
	for _, err := range []error{list, get, ensure, capacity, d.Remove(ctx, "a"), d.Sweep(ctx)} {
		g.Expect(err).To(MatchError(volume.ErrReplaced))
		g.Expect(err).NotTo(MatchError(volume.ErrNotFound))
	}
}

func TestPositionTellsAReusedInodeApart(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDirectory(t)
	info := filled(t, d, "a")
	marker, err := volume.ReadMarker(info)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(marker.Content.Born).NotTo(BeZero())
	marker.Content.Born--
	g.Expect(volume.WriteMarker(info, marker)).To(Succeed())
	g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.None))

	marker.Content.Born = 0
	marker.Content.Device++
	g.Expect(volume.WriteMarker(info, marker)).To(Succeed())
	g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.Published), "device numbers change when a node starts")
}

// What somebody else made at the name of a volume stays as it is; an empty directory may be ours.
func TestDirectoryOfOthersIsNeverTouched(t *testing.T) {
	g := NewWithT(t)
	d, root := newDirectory(t)
	dir := filepath.Join(root, "a")
	g.Expect(os.MkdirAll(filepath.Join(dir, "content"), 0o700)).To(Succeed())
	for _, path := range []string{filepath.Join(dir, "precious"), filepath.Join(dir, "content", "precious")} {
		g.Expect(os.WriteFile(path, []byte("text"), 0o600)).To(Succeed())
		var foreign *volume.ForeignError
		_, err := d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1})
		g.Expect(errors.As(err, &foreign)).To(BeTrue())
		g.Expect(path).To(HavePrefix(foreign.Path))
		g.Expect(os.ReadFile(path)).To(BeEquivalentTo("text"))
		g.Expect(os.Stat(dir)).To(HaveField("Mode()", os.ModeDir|0o700))
		g.Expect(filepath.Join(dir, ".ws")).NotTo(BeADirectory())
		g.Expect(os.Remove(path)).To(Succeed())
	}
	g.Expect(d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1})).To(HaveField("ID", "a"))
}

func TestContentUnderAMountIsForeign(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDirectory(t)
	info := filled(t, d, "a")
	g.Expect(d.Withdraw(t.Context(), "a")).To(Succeed())
	g.Expect(os.Mkdir(info.Path, 0o700)).To(Succeed())
	mount(t, info.Path)
	g.Expect(d.Publish(t.Context(), "a")).To(MatchError(ContainSubstring("a mount")))
	g.Expect(d.Position(t.Context(), "a")).To(Equal(volume.Withdrawn))
}

// mount mounts an empty filesystem for the test.
func mount(t *testing.T, path string) {
	t.Helper()
	NewWithT(t).Expect(unix.Mount("none", path, "tmpfs", 0, "size=1m")).To(Succeed())
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

func TestUsage(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDirectory(t)
	info := filled(t, d, "a")
	before, err := d.Usage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(before.Inodes).To(BeEquivalentTo(6), "volume, .ws, marker, volume.json, content, file")

	deep(t, info.Path, 3000)
	mounted := filepath.Join(info.Path, "mounted")
	g.Expect(os.Mkdir(mounted, 0o700)).To(Succeed())
	mount(t, mounted)
	g.Expect(os.WriteFile(filepath.Join(mounted, "x"), nil, 0o600)).To(Succeed())
	g.Expect(os.Symlink("/", filepath.Join(info.Path, "link"))).To(Succeed())
	g.Expect(unix.Mkfifo(filepath.Join(info.Path, "fifo"), 0o600)).To(Succeed())
	after, err := d.Usage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(after.Inodes-before.Inodes).To(BeEquivalentTo(3002), "what is mounted is not the volume's")
}

// deep makes a chain of directories that is deeper than any path can be long.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range levels {
		if err == nil {
			err = unix.Mkdirat(fd, "deep", 0)
		}
		if err != nil {
			break
		}
		above := fd
		fd, err = unix.Openat(above, "deep", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		_ = unix.Close(above)
	}
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_ = unix.Close(fd)
}

func TestUsageEndsWithItsContext(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDirectory(t)
	info := filled(t, d, "a")
	for i := range 3000 {
		g.Expect(os.WriteFile(filepath.Join(info.Path, fmt.Sprintf("f%d", i)), nil, 0o600)).To(Succeed())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	<-ctx.Done()
	_, err := d.Usage(ctx, "a")
	g.Expect(err).To(MatchError(context.DeadlineExceeded))
}
