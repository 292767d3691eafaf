package archive_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	. "github.com/onsi/gomega"
)

// The walker of this file is independent: it shares no code with the engine and uses nothing but os and syscall.

// seen is what the walker noted about one name.
type seen struct {
	Type, Mode, Owner, Mtime string
	Size                     int64
	Content, Target          string
	Xattrs                   []string
	Group                    string   // the first name of the same inode, if there are several
	Data                     []string // where a file has data, not holes
}

// independentWalk notes everything below dir, the root as ".".
func independentWalk(tb testing.TB, dir string) map[string]seen {
	tb.Helper()
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	NewWithT(tb).Expect(err).NotTo(HaveOccurred())
	w := &independent{t: tb, found: map[string]seen{}, inodes: map[uint64]string{}}
	w.note(fd, ".", ".")
	w.directory(fd, "")
	return w.found
}

type independent struct {
	t      testing.TB
	found  map[string]seen
	inodes map[uint64]string
}

func (w *independent) check(err error, path string) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("independent walker: %q: %v", path, err)
	}
}

// directory notes what is in fd and closes it. Only one descriptor is open, so that the depth does not matter.
func (w *independent) directory(fd int, path string) int {
	f := os.NewFile(uintptr(fd), path)
	names, err := f.Readdirnames(-1)
	w.check(err, path)
	slices.Sort(names)
	for _, name := range names {
		st := w.note(fd, name, path+name)
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			continue
		}
		sub, err := syscall.Openat(fd, name, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		w.check(err, path+name)
		w.check(f.Close(), path)
		fd = w.directory(sub, path+name+"/")
		f = os.NewFile(uintptr(fd), path)
	}
	up, err := syscall.Openat(fd, "..", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	w.check(err, path)
	w.check(f.Close(), path)
	if path == "" {
		w.check(syscall.Close(up), path)
	}
	return up
}

func (w *independent) note(dir int, name, path string) syscall.Stat_t {
	var st syscall.Stat_t
	const openPath = 0x200000 // O_PATH: the name itself, of any type, and not to read it
	fd, err := syscall.Openat(dir, name, openPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	w.check(err, path)
	w.check(syscall.Fstat(fd, &st), path)
	w.check(syscall.Close(fd), path)
	s := seen{
		Type: strconv.FormatUint(uint64(st.Mode&syscall.S_IFMT), 8), Mode: strconv.FormatUint(uint64(st.Mode&0o7777), 8),
		Owner: fmt.Sprintf("%d:%d", st.Uid, st.Gid), Mtime: fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec),
	}
	s.Xattrs = w.xattrs(dir, name, path)
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		s.Size = st.Size
		s.Content, s.Data = w.content(dir, name, path, st.Size)
	case syscall.S_IFLNK:
		s.Target = w.target(dir, name, path)
	case syscall.S_IFCHR, syscall.S_IFBLK:
		s.Target = strconv.FormatUint(st.Rdev, 10)
	}
	if st.Nlink > 1 && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		if w.inodes[st.Ino] == "" {
			w.inodes[st.Ino] = path
		}
		s.Group = fmt.Sprintf("%s (%d)", w.inodes[st.Ino], st.Nlink)
	}
	w.found[path] = s
	return st
}

// content hashes the data of a file with its places, so that 1 TiB of holes takes no time.
func (w *independent) content(dir int, name, path string, size int64) (sum string, data []string) {
	fd, err := syscall.Openat(dir, name, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	w.check(err, path)
	f := os.NewFile(uintptr(fd), path)
	defer func() { w.check(f.Close(), path) }()
	const seekData, seekHole = 3, 4
	h := sha256.New()
	for at := int64(0); at < size; {
		start, err := f.Seek(at, seekData)
		if pe := (*os.PathError)(nil); err != nil && asPathError(err, &pe) && pe.Err == syscall.ENXIO { //nolint:errorlint // An errno is not wrapped.
			break
		}
		w.check(err, path)
		end, err := f.Seek(start, seekHole)
		w.check(err, path)
		_, err = io.Copy(h, io.NewSectionReader(f, start, end-start))
		w.check(err, path)
		data = append(data, fmt.Sprintf("%d-%d", start, end))
		at = end
	}
	return hex.EncodeToString(h.Sum(nil)), data
}

func asPathError(err error, target **os.PathError) bool {
	pe, ok := err.(*os.PathError) //nolint:errorlint // os returns it unwrapped.
	*target = pe
	return ok
}

func (w *independent) target(dir int, name, path string) string {
	at, err := syscall.BytePtrFromString(name)
	w.check(err, path)
	buf := make([]byte, 8192)
	n, _, errno := syscall.Syscall6(syscall.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(at)), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		w.check(errno, path)
	}
	return string(buf[:n])
}

func (w *independent) xattrs(dir int, name, path string) []string {
	at, err := syscall.BytePtrFromString(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name))
	w.check(err, path)
	list := w.grow(path, func(buf []byte) (uintptr, syscall.Errno) {
		n, _, errno := syscall.Syscall(syscall.SYS_LLISTXATTR, uintptr(unsafe.Pointer(at)), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		return n, errno
	})
	var found []string
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if attr == "" || strings.HasPrefix(attr, "trusted.") || attr == "security.selinux" {
			continue
		}
		key, err := syscall.BytePtrFromString(attr)
		w.check(err, path)
		value := w.grow(path, func(buf []byte) (uintptr, syscall.Errno) {
			n, _, errno := syscall.Syscall6(syscall.SYS_LGETXATTR, uintptr(unsafe.Pointer(at)), uintptr(unsafe.Pointer(key)), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
			return n, errno
		})
		found = append(found, attr+"="+hex.EncodeToString(value))
	}
	slices.Sort(found)
	return found
}

func (w *independent) grow(path string, call func([]byte) (uintptr, syscall.Errno)) []byte {
	buf := make([]byte, 128<<10)
	n, errno := call(buf)
	if errno == syscall.ENOTSUP {
		return nil
	}
	if errno != 0 {
		w.check(errno, path)
	}
	return buf[:n]
}

// expectEqualTrees compares two trees by the independent walker and names the differences.
func expectEqualTrees(tb testing.TB, want, got map[string]seen) {
	tb.Helper()
	g := NewWithT(tb)
	for path, a := range want {
		b, ok := got[path]
		if !ok {
			tb.Errorf("%q is missing", path)
			continue
		}
		g.Expect(b).To(Equal(a), "%q", path)
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			tb.Errorf("%q is too many", path)
		}
	}
}
