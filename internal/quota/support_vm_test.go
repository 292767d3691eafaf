//go:build vm

package quota

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// disk is a file with a filesystem, mounted for one test.
type disk struct {
	t           *testing.T
	image, root string
}

func newDisk(t *testing.T, mkfs ...string) disk {
	t.Helper()
	d := disk{t: t, image: filepath.Join(t.TempDir(), "image"), root: t.TempDir()}
	NewWithT(t).Expect(os.WriteFile(d.image, nil, 0o600)).To(Succeed())
	NewWithT(t).Expect(os.Truncate(d.image, 400<<20)).To(Succeed())
	d.run(append(mkfs, d.image)...)
	return d
}

func (d disk) run(args ...string) {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), args[0], args[1:]...).CombinedOutput()
	NewWithT(d.t).Expect(err).NotTo(HaveOccurred(), "%v: %s", args, out)
}

// mounted mounts the disk for a call.
func (d disk) mounted(options string, do func()) {
	d.t.Helper()
	d.run("mount", "-o", "loop,"+options, d.image, d.root)
	defer func() { NewWithT(d.t).Expect(unix.Unmount(d.root, 0)).To(Succeed()) }()
	do()
}

// refused expects that no volume can be made, and returns why.
func (d disk) refused() string {
	d.t.Helper()
	g := NewWithT(d.t)
	driver, err := New(d.root, DefaultRange())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = driver.Ensure(d.t.Context(), volume.Spec{ID: "a", Size: 1 << 20})
	g.Expect(err).To(MatchError(volume.ErrUnlimited))
	g.Expect(driver.List(d.t.Context())).To(BeEmpty(), "nothing was made")
	return err.Error()
}

// works expects that volumes are limited.
func (d disk) works() {
	d.t.Helper()
	g := NewWithT(d.t)
	driver, err := New(d.root, DefaultRange())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(driver.Ensure(d.t.Context(), volume.Spec{ID: "a", Size: 1 << 20})).To(HaveField("Limited", true))
}

func TestS9_XFSWithoutQuotaSaysWhatIsMissing(t *testing.T) {
	g := NewWithT(t)
	d := newDisk(t, "mkfs.xfs", "-q")
	for _, options := range []string{"noquota", "usrquota", "pqnoenforce"} {
		d.mounted(options, func() {
			g.Expect(d.refused()).To(ContainSubstring(d.root + ": its XFS is mounted without the option prjquota"))
		})
	}
	d.mounted("prjquota", d.works)
}

func TestS9_Ext4WithoutQuotaSaysWhatIsMissing(t *testing.T) {
	g := NewWithT(t)
	d := newDisk(t, "mkfs.ext4", "-q")
	d.mounted("rw", func() {
		g.Expect(d.refused()).To(ContainSubstring(d.root + ": its ext4 has no project quota: unmount it, run tune2fs -O project,quota -Q prjquota"))
	})
	d.run("tune2fs", "-O", "project,quota", "-Q", "prjquota", d.image)
	d.mounted("rw", func() {
		g.Expect(d.refused()).To(ContainSubstring(d.root + ": its ext4 is mounted without the option prjquota"))
	})
	d.mounted("prjquota", d.works)
}

// A volume whose disk has lost its option stays within reach, and says that nothing limits it.
func TestS9_VolumeWhoseLimitIsGoneIsNotCalledLimited(t *testing.T) {
	g := NewWithT(t)
	d := newDisk(t, "mkfs.xfs", "-q")
	d.mounted("prjquota", func() {
		driver, err := New(d.root, DefaultRange())
		g.Expect(err).NotTo(HaveOccurred())
		published(t, driver, volume.Spec{ID: "a", Size: 1 << 20}, owner)
	})
	d.mounted("noquota", func() {
		driver, err := New(d.root, DefaultRange())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(driver.Get(t.Context(), "a")).To(And(HaveField("Limited", false), HaveField("Size", BeEquivalentTo(1<<20))))
		g.Expect(driver.Position(t.Context(), "a")).To(Equal(volume.Published))
		g.Expect(driver.Withdraw(t.Context(), "a")).To(Succeed())
		g.Expect(driver.Publish(t.Context(), "a")).To(Succeed())
		g.Expect(driver.Withdraw(t.Context(), "a")).To(Succeed())
		g.Expect(driver.Remove(t.Context(), "a")).To(Succeed(), "its content can be saved and removed")
	})
	d.mounted("prjquota", d.works)
}

func TestS9_RootInAProjectIsRefused(t *testing.T) {
	g := NewWithT(t)
	d, root := newDriver(t)
	g.Expect(setProject(open(t, root), project{id: d.ids.ids.First, inherit: true})).To(Succeed())
	_, err := d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1 << 20})
	g.Expect(err).To(And(MatchError(volume.ErrUnlimited), MatchError(ContainSubstring("to everything in it"))))
}

// Content that another driver made is not limited by a project that only its volume has.
func TestS9_ContentOfAnotherDriverIsNotCalledLimited(t *testing.T) {
	g := NewWithT(t)
	d, root := newDriver(t)
	plain, err := volume.NewDirectory(root)
	g.Expect(err).NotTo(HaveOccurred())
	publishedBy(t, plain)
	g.Expect(d.Get(t.Context(), "a")).To(HaveField("Limited", false))
	g.Expect(d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1 << 20})).Error().To(MatchError(ContainSubstring("top directory has project id 0")))
	g.Expect(d.Get(t.Context(), "a")).To(HaveField("Limited", false))
}

func TestS10_DiskThatWasUnmountedIsNotCalledUnlimited(t *testing.T) {
	g := NewWithT(t)
	d := newDisk(t, "mkfs.xfs", "-q")
	var driver *Driver
	d.mounted("prjquota", func() {
		var err error
		driver, err = New(d.root, DefaultRange())
		g.Expect(err).NotTo(HaveOccurred())
		published(t, driver, volume.Spec{ID: "a", Size: 1 << 20}, owner)
	})
	for _, id := range []string{"a", "b"} {
		g.Expect(driver.Ensure(t.Context(), volume.Spec{ID: id, Size: 1 << 20})).Error().To(MatchError(volume.ErrReplaced))
	}
	g.Expect(os.ReadDir(d.root)).To(BeEmpty())
	g.Expect(driver.Sweep(t.Context())).To(MatchError(volume.ErrReplaced))
}
