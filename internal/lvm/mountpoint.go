package lvm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	// privateDir is where views are mounted, and clones that are not finished.
	privateDir = ".private"
	// guardName is a file in a mount point, in place of the directory that volumes have there: whoever looks into a volume that
	// is not mounted fails, and does not find it empty.
	guardName = ".ws"
	guardText = "The volume that belongs here is not mounted.\n"
	immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
)

// makePoint makes a mount point below which nothing can ever be written.
func makePoint(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) { //nolint:gosec // users reach what is mounted there
		return fmt.Errorf("make mount point: %w", err)
	}
	dir, err := os.OpenFile(path, dirFlags, 0)
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	defer dir.Close()
	flags, err := unix.IoctlGetInt(int(dir.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable != 0 {
		return nil // it is finished
	}
	if err == nil {
		err = guard(dir)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, flags|immutable)
	}
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("make mount point %s: its file system has no immutable directories: use one on ext4, XFS or btrfs", path)
	}
	if err != nil {
		return fmt.Errorf("make mount point %s: %w", path, err)
	}
	return nil
}

// guard makes the file that keeps an empty mount point from being taken for an empty volume, unless something else lies there.
func guard(dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != guardName {
			return &volume.ForeignError{Path: filepath.Join(dir.Name(), name), Reason: "it lies where a volume has to be mounted"}
		}
	}
	fd, err := unix.Openat(int(dir.Fd()), guardName, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), guardName)
	_, err = file.WriteString(guardText)
	return errors.Join(err, file.Close())
}

// removePoint removes a mount point that nothing is mounted on; that there is none is no error. What is not empty stays.
func removePoint(path string) error {
	dir, err := os.OpenFile(path, dirFlags, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove mount point: %w", err)
	}
	defer dir.Close()
	if at, err := look(dir); err != nil || at.root {
		return errors.Join(err, fmt.Errorf("remove mount point %s: something is mounted on it: %w", path, volume.ErrInUse))
	}
	if flags, err := unix.IoctlGetInt(int(dir.Fd()), unix.FS_IOC_GETFLAGS); err == nil && flags&immutable != 0 {
		if err := unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable); err != nil {
			return fmt.Errorf("remove mount point %s: %w", path, err)
		}
	}
	if err := unix.Unlinkat(int(dir.Fd()), guardName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove mount point %s: %w", path, err)
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove mount point %s: %w", path, err)
	}
	return nil
}

// mounted is what a directory is.
type mounted struct {
	device uint64
	// root says whether it is the top of a mount.
	root bool
}

func look(dir *os.File) (mounted, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return mounted{}, fmt.Errorf("look at %s: %w", dir.Name(), err)
	}
	return mounted{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0}, nil
}

// isMounted says whether a logical volume is mounted on a mount point. Another file system there is a *ForeignError.
func (d *Driver) isMounted(point, name string) (bool, error) {
	dir, err := os.OpenFile(point, dirFlags, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	at, err := look(dir)
	if err != nil || !at.root {
		return false, err
	}
	device, err := deviceNumber(d.devicePath(name))
	if err == nil && at.device != device {
		err = &volume.ForeignError{Path: point, Reason: "another file system is mounted there"}
	}
	return err == nil, err
}
