package volumetest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// MemoryDisk is a disk with ext4 that can lose its power where there is no device mapper: it lies in a file of the memory, which is sealed
// at a cut, so that the next start finds what had been written out by then, and nothing else. It is for root.
type MemoryDisk struct {
	t     *testing.T
	mount string
	file  *os.File
	loop  *os.File
}

// NewMemoryDisk makes an empty disk of a size in bytes and mounts it. It goes when the test ends; what uses it must have gone before.
func NewMemoryDisk(t *testing.T, size int64) *MemoryDisk {
	t.Helper()
	d := &MemoryDisk{t: t, mount: t.TempDir()}
	d.attach(size, nil)
	Program(t, "mkfs.ext4", "-q", "-F", d.loop.Name())
	d.start()
	t.Cleanup(d.stop)
	return d
}

// Mount is where the disk is mounted.
func (d *MemoryDisk) Mount() string { return d.mount }

// Cut cuts the power and starts again: what had not been written out is gone. Nothing may be open on the disk.
func (d *MemoryDisk) Cut() {
	d.t.Helper()
	g := NewWithT(d.t)
	_, err := unix.FcntlInt(d.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE)
	g.Expect(err).NotTo(HaveOccurred())
	old := d.file
	info, err := old.Stat()
	g.Expect(err).NotTo(HaveOccurred())
	d.file = nil
	d.stop()
	d.attach(info.Size(), old)
	g.Expect(old.Close()).To(Succeed())
	d.start()
}

// attach makes a file with the content of another one, and a device of it.
func (d *MemoryDisk) attach(size int64, content *os.File) {
	d.t.Helper()
	g := NewWithT(d.t)
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	g.Expect(err).NotTo(HaveOccurred())
	d.file = os.NewFile(uintptr(fd), "disk")
	if content != nil {
		_, err = io.Copy(d.file, io.NewSectionReader(content, 0, size))
	}
	g.Expect(errors.Join(err, d.file.Truncate(size))).To(Succeed())
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = control.Close() }()
	g.Eventually(func() error { // another test may have been faster
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return err
		}
		if d.loop, err = os.OpenFile(filepath.Join("/dev", fmt.Sprintf("loop%d", n)), os.O_RDWR, 0); err != nil {
			return err
		}
		err = unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_SET_FD, fd)
		if err != nil {
			err = errors.Join(err, d.loop.Close())
		}
		return err
	}, "20s", "10ms").Should(Succeed())
}

// start mounts the disk. What is written is not written out by itself before the test has ended.
func (d *MemoryDisk) start() {
	d.t.Helper()
	NewWithT(d.t).Expect(unix.Mount(d.loop.Name(), d.mount, "ext4", unix.MS_NOATIME, "commit=3600")).To(Succeed())
}

// stop takes the disk away.
func (d *MemoryDisk) stop() {
	d.t.Helper()
	g := NewWithT(d.t)
	// A process that another test is starting has what is open here until it is itself.
	g.Eventually(func() error { return unix.Unmount(d.mount, 0) }, "20s", "10ms").Should(Succeed())
	g.Expect(unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_CLR_FD, 0)).To(Succeed())
	g.Expect(d.loop.Close()).To(Succeed())
	if d.file != nil {
		g.Expect(d.file.Close()).To(Succeed())
	}
}
