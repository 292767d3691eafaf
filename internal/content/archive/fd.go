package archive

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// beneath keeps a lookup below its directory, on the same mount, and off every link.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

const (
	// maxLookup is below PATH_MAX, so that longer paths are looked up in pieces.
	maxLookup = 4000
	// maxPathLen is the length of paths in bytes from which on nothing is read.
	maxPathLen = 256 << 10
)

// openBelow opens a path of any length below dir. The kernel asks to try again when something was renamed meanwhile.
func openBelow(dir int, path string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: beneath}
	at := dir
	for {
		piece, rest := cutLookup(path)
		if rest == "" {
			fd, err := openat2(at, piece, &how)
			closeUnless(at, dir)
			return fd, err
		}
		next, err := openat2(at, piece, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
		closeUnless(at, dir)
		if err != nil {
			return -1, err
		}
		at, path = next, rest
	}
}

func closeUnless(fd, keep int) {
	if fd != keep {
		_ = unix.Close(fd)
	}
}

// cutLookup splits a path that is too long for one system call at a slash.
func cutLookup(path string) (piece, rest string) {
	if len(path) <= maxLookup {
		return path, ""
	}
	i := strings.LastIndexByte(path[:maxLookup], '/')
	return path[:i], path[i+1:]
}

func openat2(dir int, path string, how *unix.OpenHow) (int, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	return openName(dir, name, how)
}

// openRoot opens the directory that everything happens below. Only this path is trusted.
func openRoot(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// procPath names an open descriptor, for calls that take no O_PATH descriptor.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// preadFull reads from an offset on until the buffer is full or the file ends.
func preadFull(fd int, buf []byte, off int64) (int, error) {
	done := 0
	for done < len(buf) {
		n, err := unix.Pread(fd, buf[done:], off+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

func pwriteFull(fd int, buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := unix.Pwrite(fd, buf, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}

func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

func fileType(st *unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

// join appends a name to the path of a directory, where "" is the root.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
