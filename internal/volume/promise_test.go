package volume_test

import (
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// bounded returns a driver on a disk of 64 MiB that promises no more than that.
func bounded(t *testing.T, root string) *volume.Directory {
	t.Helper()
	d, err := volume.NewDirectory(root)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	d.KeepWithinDisk()
	return d
}

func smallDisk(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	NewWithT(t).Expect(unix.Mount("none", root, "tmpfs", 0, "size=64m")).To(Succeed())
	t.Cleanup(func() { NewWithT(t).Expect(unix.Unmount(root, unix.MNT_DETACH)).To(Succeed()) })
	return root
}

func TestSizesStayWithinTheDisk(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	root := smallDisk(t)
	d := bounded(t, root)
	ensure := func(id string, mib int64) error {
		_, err := d.Ensure(ctx, volume.Spec{ID: id, Size: mib << 20})
		return err
	}
	spare := func() int64 {
		c, err := d.Capacity(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(c.Spare).NotTo(BeNil())
		return *c.Spare >> 20
	}
	g.Expect(spare()).To(Equal(int64(64)))
	g.Expect(ensure("a", 40)).To(Succeed())
	g.Expect(ensure("b", 25)).To(And(MatchError(volume.ErrCapacity), MatchError(ContainSubstring(
		"has 67108864 bytes, of which 41943040 are promised to other volumes, and 26214400 are asked for"))))
	g.Expect(filepath.Join(root, "b")).NotTo(BeAnExistingFile())
	g.Expect(ensure("b", 24)).To(Succeed())
	g.Expect(spare()).To(BeZero())
	g.Expect(ensure("a", 40)).To(Succeed(), "it has that already")
	_, err := d.Resize(ctx, volume.Spec{ID: "a", Size: 41 << 20})
	g.Expect(err).To(MatchError(volume.ErrCapacity))
	g.Expect(d.Get(ctx, "a")).To(HaveField("Size", int64(40<<20)))

	d = bounded(t, root) // a restart
	g.Expect(ensure("c", 1)).To(MatchError(volume.ErrCapacity))
	g.Expect(d.Remove(ctx, "b")).To(Succeed())
	g.Expect(spare()).To(Equal(int64(24)))
	_, err = d.Resize(ctx, volume.Spec{ID: "a", Size: 60 << 20})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ensure("c", 4)).To(Succeed())
	g.Expect(ensure("d", 1)).To(MatchError(volume.ErrCapacity))

	d, err = volume.NewDirectory(root)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ensure("d", 100)).To(Succeed(), "it may promise more than there is")
	g.Expect(d.Capacity(ctx)).To(HaveField("Spare", BeNil()))
	d = bounded(t, root)
	g.Expect(ensure("a", 60)).To(Succeed(), "what was promised before is kept")
	g.Expect(spare()).To(BeZero())
}

// Of many that come at once, as many are taken as the disk has room for.
func TestSizesOfManyAtOnce(t *testing.T) {
	d := bounded(t, smallDisk(t))
	var group sync.WaitGroup
	errs := make(chan error, 20)
	for i := range 20 {
		group.Go(func() {
			_, err := d.Ensure(t.Context(), volume.Spec{ID: strconv.Itoa(i), Size: 10 << 20})
			errs <- err
		})
	}
	group.Wait()
	close(errs)
	made := 0
	for err := range errs {
		if err == nil {
			made++
		} else {
			NewWithT(t).Expect(err).To(MatchError(volume.ErrCapacity))
		}
	}
	NewWithT(t).Expect(made).To(Equal(6))
}
