//go:build vm

package lvm

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

const (
	gibibyte = 1 << 30
	mebibyte = 1 << 20
)

func TestDriver(t *testing.T) {
	for _, fs := range Filesystems() {
		t.Run(fs, func(t *testing.T) {
			class := newClass(t, fs)
			volumetest.Run(t, func(t *testing.T) volume.Driver {
				t.Helper()
				t.Cleanup(func() { empty(context.Background(), NewWithT(t), class) })
				return newDriver(t, class)
			})
		})
	}
}

// newClass makes a thin pool of 1.2 GiB, of which more may be promised, for one test.
func newClass(t *testing.T, fs string) Class {
	t.Helper()
	return newClassIn(t, fs, os.Getenv("WS_DAEMON_VM_GROUP"))
}

// newCutClass does so on a disk whose power can be cut.
func newCutClass(t *testing.T, fs string) (Class, *volumetest.PowerCut) {
	t.Helper()
	group, disk := newGroup(t, 1300*mebibyte)
	return newClassIn(t, fs, group), disk
}

// newGroup makes a volume group of its own on such a disk.
func newGroup(t *testing.T, size int64) (string, *volumetest.PowerCut) {
	t.Helper()
	disk := volumetest.NewPowerCut(t, size)
	group := "cut-" + strings.ToLower(rand.Text()[:8])
	lvm(t, "vgcreate", "--quiet", group, disk.Path())
	t.Cleanup(func() { volumetest.Program(t, "vgremove", "--yes", "--quiet", group) })
	return group, disk
}

// reboot is a power cut and a start: nothing is mounted, nothing is active, and what the kernel has of the disk is forgotten.
func reboot(t *testing.T, class Class, disk *volumetest.PowerCut) {
	t.Helper()
	g := NewWithT(t)
	disk.Cut(t)
	for _, point := range slices.Backward(mountsIn(g, class)) {
		g.Expect(unix.Unmount(point, 0)).To(Succeed())
	}
	volumetest.Program(t, "vgchange", "--quiet", "--activate", "n", class.Group)
	disk.Restore(t)
}

func newClassIn(t *testing.T, fs, group string) Class {
	t.Helper()
	return newClassOf(t, fs, group, "1228m")
}

func newClassOf(t *testing.T, fs, group, size string) Class {
	t.Helper()
	class := Class{
		Root: t.TempDir(), Group: group, Pool: "test-" + strings.ToLower(rand.Text()[:8]), Filesystem: fs, Overcommit: true,
	}
	NewWithT(t).Expect(os.Chmod(filepath.Dir(class.Root), 0o755)).To(Succeed()) // users have to get there
	lvm(t, "lvcreate", "--yes", "--quiet", "--type", "thin-pool", "--size", size, "--poolmetadatasize", "4m",
		"--zero", "y", "--name", class.Pool, class.Group)
	t.Cleanup(func() {
		g := NewWithT(t)
		unmountAll(g, class)
		_, err := newTools().run(context.Background(), "lvm", "lvremove", "--force", "--yes", "--quiet", class.Group+"/"+class.Pool)
		g.Expect(err).NotTo(HaveOccurred())
	})
	return class
}

func newDriver(t *testing.T, class Class) *Driver {
	t.Helper()
	d, err := New(class)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return d
}

// lvm runs a command of LVM, and returns what it prints.
func lvm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := newTools().run(t.Context(), "lvm", args...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(out)
}

// empty removes everything from a pool.
func empty(ctx context.Context, g *WithT, class Class) {
	unmountAll(g, class)
	_, err := newTools().run(ctx, "lvm", "lvremove", "--force", "--yes", "--quiet", "--select", "pool_lv="+class.Pool, class.Group)
	g.Expect(err).NotTo(HaveOccurred())
}

func unmountAll(g *WithT, class Class) {
	mounts := mountsIn(g, class)
	for i := range mounts {
		g.Expect(unix.Unmount(mounts[len(mounts)-1-i], 0)).To(Succeed())
	}
	for _, point := range pointsIn(g, class) {
		g.Expect(removePoint(point)).To(Succeed())
	}
}

func mountsIn(g Gomega, class Class) []string {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(class.Root))
	g.Expect(err).NotTo(HaveOccurred())
	paths := []string{}
	for _, m := range mounts {
		paths = append(paths, m.Mountpoint)
	}
	return paths
}

func pointsIn(g Gomega, class Class) []string {
	points := []string{}
	for _, pattern := range []string{"*", privateDir + "/*"} {
		paths, err := filepath.Glob(filepath.Join(class.Root, pattern))
		g.Expect(err).NotTo(HaveOccurred())
		for _, path := range paths {
			if guarded(path) {
				points = append(points, path)
			}
		}
	}
	return points
}

// published returns a volume with published content, a file with the text "first".
func published(t *testing.T, d *Driver, spec volume.Spec) volume.Info {
	t.Helper()
	info := staged(t, d, spec)
	NewWithT(t).Expect(d.Publish(t.Context(), spec.ID)).To(Succeed())
	return info
}

// staged returns a volume whose users have not seen its content yet.
func staged(t *testing.T, d *Driver, spec volume.Spec) volume.Info {
	t.Helper()
	g := NewWithT(t)
	info, err := d.Ensure(t.Context(), spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(volumetest.Fill(t.Context(), d, info, "first")).To(Succeed())
	return info
}
