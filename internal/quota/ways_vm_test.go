//go:build vm

package quota

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Whatever a file gets its blocks by, they count.
func TestOtherWaysToWriteStopAtTheLimit(t *testing.T) {
	for _, user := range []who{anOwner(), namespaceRoot(), containerRoot()} {
		for action, want := range map[string]string{
			"map": "SIGBUS", "nameless": stopped(t), "allocate": stopped(t), "copies": copiesEnd(t),
		} {
			t.Run(user.name+"/"+action, func(t *testing.T) {
				g := NewWithT(t)
				d, _ := newDriver(t)
				const size = 8 << 20
				a := published(t, d, volume.Spec{ID: "a", Size: size}, user.uid)
				g.Expect(user.do(t, action, a.Path)).To(HavePrefix(want))
				usage, err := d.Usage(t.Context(), "a")
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(usage.Bytes).To(BeNumerically("<=", size))
				g.Expect(d.Audit(t.Context(), "a", nil)).To(Succeed())
			})
		}
	}
}

// copiesEnd is how making copies ends: ext4 makes none that share blocks.
func copiesEnd(t *testing.T) string {
	t.Helper()
	if onXFS(t) {
		return stopped(t)
	}
	return unix.EOPNOTSUPP.Error()
}

// write does one of the actions of TestDo in a directory until it is stopped.
func write(action, dir string) any {
	switch action {
	case "map":
		return writeByMap(filepath.Join(dir, "mapped"))
	case "nameless":
		return writeNameless(dir)
	case "allocate":
		return allocate(filepath.Join(dir, "allocated"))
	default:
		return copies(dir)
	}
}

// writeByMap stores into the pages of a file that has none.
func writeByMap(path string) (result any) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(most); err != nil {
		return err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, most, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	debug.SetPanicOnFault(true)
	defer func() {
		if fault := recover(); fault != nil {
			result = "SIGBUS"
		}
	}()
	for at := 0; at < most; at += block {
		data[at] = 1
	}
	return unix.Msync(data, unix.MS_SYNC)
}

// writeNameless fills a file that has no name, and gives it one.
func writeNameless(dir string) any {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	data := make([]byte, block)
	for n := 0; n < most; n += block {
		if _, err := unix.Write(fd, data); err != nil {
			name := "/proc/self/fd/" + strconv.Itoa(fd)
			return fmt.Sprintf("%v, %v", err, unix.Linkat(unix.AT_FDCWD, name, unix.AT_FDCWD, filepath.Join(dir, "named"), unix.AT_SYMLINK_FOLLOW))
		}
	}
	return nil
}

func allocate(path string) any {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const step = 64 << 10
	for at := int64(0); at < most; at += step {
		if err := unix.Fallocate(int(f.Fd()), 0, at, step); err != nil {
			return err
		}
	}
	return nil
}

// copies makes copies of a file that share its blocks.
func copies(dir string) any {
	const size = 1 << 20
	if err := os.WriteFile(filepath.Join(dir, "copied"), make([]byte, size), 0o600); err != nil {
		return err
	}
	from, err := os.Open(filepath.Join(dir, "copied"))
	if err != nil {
		return err
	}
	defer from.Close()
	for i := range most / size {
		to, err := os.Create(filepath.Join(dir, fmt.Sprintf("copy%d", i)))
		if err != nil {
			return unwrapped(err)
		}
		err = unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
		_ = to.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
