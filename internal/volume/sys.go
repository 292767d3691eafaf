package volume

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// pathFlags opens a directory only to be the start of other calls.
	pathFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	resolve   = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	statMask  = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID
)

// openBelow opens a name below a directory without following links and without crossing mounts (EXDEV).
func openBelow(dir int, name string, flags int) (int, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	for {
		fd, err := unix.Openat2(dir, name, how)
		// EAGAIN: something was renamed while the kernel looked, and it could not be sure to be still beneath.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func openFile(dir int, name string, flags int) (*os.File, error) {
	fd, err := openBelow(dir, name, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// stat returns what is at a name, never what a link there leads to. An empty name is the descriptor itself.
func stat(dir int, name string) (unix.Statx_t, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err := ignoringEINTR(func() error { return unix.Statx(dir, name, flags, statMask, &st) })
	return st, err
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func isDir(st unix.Statx_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// sameFile compares device and inode; the device as it is numbered now, so only within the life of a mount.
func sameFile(a, b unix.Statx_t) bool {
	return a.Ino == b.Ino && a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor
}

func kind(st unix.Statx_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFREG:
		return "a file"
	default:
		return "a special file"
	}
}

// syncDir flushes the directory of a descriptor, which may have been opened for other things than reading.
func syncDir(dir int) error {
	f, err := openFile(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// move renames without replacing, and makes that durable.
func move(fromDir int, from string, toDir int, to string) error {
	if err := unix.Renameat2(fromDir, from, toDir, to, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	return errors.Join(syncDir(toDir), syncDir(fromDir))
}

// mkdir makes a directory, or takes the one there is if it is ours, and sets its mode whatever the umask is.
func mkdir(dir int, name string, mode uint32) error {
	made := unix.Mkdirat(dir, name, 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return made
	}
	f, err := openFile(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := ours(f); err != nil {
		return err
	}
	if err := f.Chmod(os.FileMode(mode)); err != nil {
		return err
	}
	if made != nil {
		return nil
	}
	return errors.Join(f.Sync(), syncDir(dir))
}

// ours refuses what another user made: nobody else has any business where the daemon keeps its files.
func ours(f *os.File) error {
	st, err := stat(int(f.Fd()), "")
	if err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to uid %d and not to the daemon", f.Name(), st.Uid)
	}
	return nil
}

const (
	tempPrefix = ".new-"
	maxFile    = 64 << 10
)

// replaceFile writes a file durably: what is read later is the old or the new content, whenever the node crashes.
func replaceFile(dir int, name string, data []byte) error {
	temp := tempPrefix + rand.Text()
	defer func() { _ = unix.Unlinkat(dir, temp, 0) }()
	how := &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC, Mode: 0o600, Resolve: resolve}
	fd, err := unix.Openat2(dir, temp, how)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := unix.Renameat(dir, temp, dir, name); err != nil {
		return err
	}
	return syncDir(dir)
}

// readSmall reads a regular file of ours. O_NONBLOCK because opening a FIFO that lies there would wait for ever.
func readSmall(dir int, name string) ([]byte, error) {
	f, err := openFile(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", name, maxFile)
	}
	if err := ours(f); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}
