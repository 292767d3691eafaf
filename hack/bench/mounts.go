package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// privateMark in the environment tells that this process has mounts of its own.
const privateMark = "WS_DAEMON_BENCH_PRIVATE=1"

// Bytes of memory that must be free: the tree, five stores, a restored tree and an image, or two trees of a million files.
const (
	memoryForTree    = 9 << 30
	memoryForMillion = 15 << 30
)

// imageBytes is the size of a disk's image. Only what is written takes memory.
const imageBytes = 8 << 30

// disk is a file system that trees are restored to.
type disk struct {
	place   place
	mkfs    string // with {image}
	options string // of mount
}

// On ext4 the tables of inodes are written at once or never: a kernel thread that does it in between would be measured.
func disks() []disk {
	return []disk{
		{ext4, "/sbin/mkfs.ext4 -q -F {image}", "loop,noinit_itable"},
		{xfs, "/sbin/mkfs.xfs -q {image}", "loop"},
	}
}

// enterPrivateMounts starts this program again where nobody else sees its mounts. They end with it, even if it is killed.
func enterPrivateMounts() error {
	if slices.Contains(os.Environ(), privateMark) {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("this mounts a tmpfs, and ext4 and XFS on loop devices: run it as root, for example by `make bench`")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The thread that left the others' mounts is the one that becomes the new program.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("leave the other programs' mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	return unix.Exec(self, os.Args, append(os.Environ(), privateMark))
}

// mountScratch mounts a tmpfs, where everything but the kept tree lies.
func mountScratch() (dir string, release func() error, err error) {
	dir, err = os.MkdirTemp("", "ws-daemon-bench-")
	if err != nil {
		return "", nil, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=90%,nr_inodes=0,mode=0755"); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mount a tmpfs on %s: %w", dir, err), os.Remove(dir))
	}
	return dir, func() error {
		return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir))
	}, nil
}

// mountDisk makes an empty file system in an image and mounts it. The image's name goes at once, so that nothing of it is left when
// the file system is unmounted, for whatever reason.
func mountDisk(ctx context.Context, d disk, images, at string) (release func() error, err error) {
	image := filepath.Join(images, "ws-daemon-bench-"+filepath.Base(at)+".image")
	if err := os.Mkdir(at, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, removeIfThere(image))
		if err != nil {
			err = errors.Join(err, os.Remove(at))
		}
	}()
	if err := emptyImage(image); err != nil {
		return nil, err
	}
	script := expand(d.mkfs, "{image}", image) + expand(" && mount -o {options} {image} {at}", "{options}", d.options, "{image}", image, "{at}", at)
	if _, _, err := execute(ctx, script); err != nil {
		return nil, fmt.Errorf("make a disk with %s: %w", d.place, err)
	}
	return func() error { return errors.Join(unix.Unmount(at, 0), os.Remove(at)) }, nil
}

func emptyImage(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(imageBytes), file.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
