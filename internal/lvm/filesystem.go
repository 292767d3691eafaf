package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// filesystem is a kind of file system that volumes can have.
type filesystem struct {
	name string
	// minimum size that its mkfs takes, in bytes.
	minimum int64
	// mkfs is the program that makes it, with its options. Nothing has to be discarded or zeroed: new blocks of the pool are.
	mkfs []string
	// options of every mount, and of one that must not write.
	options, readOnly []string
	// grow makes a mounted one as large as its device.
	grow func(root *os.File, size uint64) error
}

func filesystems() []filesystem {
	return []filesystem{
		{
			name: "xfs", minimum: 300 << 20, // mkfs.xfs refuses less
			mkfs: []string{"mkfs.xfs", "-q", "-f", "-K"},
			// Views and clones have the UUID of their origin.
			options: []string{"nouuid", "prjquota"}, readOnly: []string{"ro", "nouuid", "norecovery"}, grow: growXFS,
		},
		{
			name: "ext4", minimum: 16 << 20, // below, half of it would be journal
			mkfs: []string{"mkfs.ext4", "-q", "-F", "-m", "0", "-O", "quota,project",
				"-E", "nodiscard,assume_storage_prezeroed=1,quotatype=prjquota"},
			options: []string{"prjquota"}, readOnly: []string{"ro", "noload"}, grow: growExt4,
		},
	}
}

// Filesystems returns the names of the file systems that a class can choose.
func Filesystems() []string {
	all := filesystems()
	names := make([]string, len(all))
	for i, fs := range all {
		names[i] = fs.name
	}
	return names
}

func filesystemOf(name string) (filesystem, error) {
	all := filesystems()
	i := slices.IndexFunc(all, func(fs filesystem) bool { return fs.name == name })
	if i < 0 {
		return filesystem{}, fmt.Errorf("no file system %q: use one of %q", name, Filesystems())
	}
	return all[i], nil
}

// format makes a file system on a device that has never held anything of value.
func (d *Driver) format(ctx context.Context, device string) error {
	// What an attempt that was killed has written must not be taken for zeros.
	if err := wipe(ctx, device); err != nil {
		return err
	}
	_, err := d.tools.run(ctx, d.fs.mkfs[0], append(d.fs.mkfs[1:len(d.fs.mkfs):len(d.fs.mkfs)], "--", device)...)
	faults.Point("lvm.formatted")
	return err
}

// Requests of the file systems' own ioctls, from linux/fs/xfs/libxfs/xfs_fs.h and fs/ext4/ext4.h.
const (
	xfsGeometry = 0x8070_5864 // _IOR('X', 100, struct xfs_fsop_geom_v1)
	xfsGrowData = 0x4010_586e // _IOW('X', 110, struct xfs_growfs_data)
	ext4Resize  = 0x4008_6610 // _IOW('f', 16, __u64)
)

// growXFS does what xfs_growfs does.
func growXFS(root *os.File, size uint64) error {
	var geometry struct {
		blockSize, realtimeExtent, groupBlocks, groups, logBlocks, sectorSize, inodeSize, maxInodePercent uint32
		dataBlocks                                                                                        uint64
		_                                                                                                 [72]byte
	}
	if err := ioctl(root, xfsGeometry, unsafe.Pointer(&geometry)); err != nil { //nolint:gosec // the kernel reads or fills it
		return fmt.Errorf("read the geometry of XFS: %w", err)
	}
	wanted := struct {
		blocks          uint64
		maxInodePercent uint32
		_               uint32
	}{blocks: size / uint64(geometry.blockSize), maxInodePercent: geometry.maxInodePercent}
	if wanted.blocks <= geometry.dataBlocks {
		return nil
	}
	err := ioctl(root, xfsGrowData, unsafe.Pointer(&wanted)) //nolint:gosec // the kernel reads or fills it
	if errors.Is(err, unix.EINVAL) && wanted.blocks-geometry.dataBlocks < uint64(geometry.groupBlocks) {
		return nil // what is new is too small for an allocation group
	}
	return err
}

// growExt4 does what resize2fs does on a mounted file system.
func growExt4(root *os.File, size uint64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return err
	}
	blocks := size / uint64(st.Bsize)
	err := ioctl(root, ext4Resize, unsafe.Pointer(&blocks)) //nolint:gosec // the kernel reads or fills it
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: the daemon needs the capability SYS_RESOURCE, which it gives up where it has a class of project quota on ext4: "+
			"use XFS for either", err)
	}
	return err
}
