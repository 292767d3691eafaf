//go:build vm

package quota

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

// owner is the user to whom content belongs, and mapped the host's id of root in a user namespace.
const (
	owner  = 1000
	mapped = 100_000
)

// helper is a shell that has kept CAP_SYS_RESOURCE: the driver takes it from this process.
var helper struct {
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func TestMain(m *testing.M) {
	if os.Getenv(doVariable) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("bash") //nolint:noctx // it ends with its input
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		helper.stdin = stdin
		stdout, pipeErr := cmd.StdoutPipe()
		helper.stdout = bufio.NewReader(stdout)
		err = pipeErr
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	_ = stdin.Close()
	_ = cmd.Wait()
	os.Exit(code)
}

// ranges gives every disk ids of its own: all tests share one filesystem.
var ranges atomic.Uint32

// nextRange returns ids that no test has used, and expects that none of them is left in the end.
func nextRange(t *testing.T) Range {
	t.Helper()
	first := 1_000_000 + ranges.Add(1)*1000
	r := Range{First: first, Last: first + 999}
	t.Cleanup(func() { expectReleased(t, os.TempDir(), r) })
	return r
}

// expectReleased expects that no project of a range has limits or files. Files go in the background on XFS.
func expectReleased(t *testing.T, disk string, r Range) {
	t.Helper()
	g := NewWithT(t)
	dir, err := os.Open(disk)
	g.Expect(err).NotTo(HaveOccurred())
	defer dir.Close()
	g.Eventually(func(g Gomega) {
		g.Expect(r.releaseLeft(dir)).To(Succeed())
		g.Expect(accounts(dir, r)).To(BeEmpty())
	}, "60s", "100ms").Should(Succeed())
}

// accounts returns what the kernel knows of the projects of a range.
func accounts(dir *os.File, r Range) ([]account, error) {
	var list []account
	for id := r.First; id <= r.Last; id++ {
		a, err := accountOf(dir, id)
		if err != nil {
			return nil, err
		}
		if !a.free() {
			list = append(list, a)
		}
	}
	return list, nil
}

// newDriver returns a driver on a directory of the disk.
func newDriver(t *testing.T) (*Driver, string) {
	t.Helper()
	ids := nextRange(t)
	root := t.TempDir()
	g := NewWithT(t)
	g.Expect(os.Chmod(filepath.Dir(root), 0o755)).To(Succeed(), "users reach their content below it")
	d, err := New(root, ids)
	g.Expect(err).NotTo(HaveOccurred())
	return d, root
}

// published returns a volume with published content that belongs to a user.
func published(t *testing.T, d *Driver, spec volume.Spec, uid int) volume.Info {
	t.Helper()
	g := NewWithT(t)
	info, err := d.Ensure(t.Context(), spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(volumetest.Fill(t.Context(), d, info, "first")).To(Succeed())
	g.Expect(os.Chown(d.Path(spec.ID, volume.Staged), uid, uid)).To(Succeed())
	g.Expect(d.Publish(t.Context(), spec.ID)).To(Succeed())
	return info
}

// publishedBy makes the volume "a" with published content by another driver.
func publishedBy(t *testing.T, d volume.Driver) {
	t.Helper()
	g := NewWithT(t)
	info, err := d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1 << 20})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(volumetest.Fill(t.Context(), d, info, "first")).To(Succeed())
	g.Expect(d.Publish(t.Context(), "a")).To(Succeed())
}

const doVariable = "WS_DAEMON_TEST_DO"

// who does something.
type who struct {
	name string
	// uid that owns the content.
	uid int
	// namespace says that the user is root in a user namespace.
	namespace bool
	// resource keeps CAP_SYS_RESOURCE.
	resource bool
}

func anOwner() who       { return who{name: "unprivileged owner", uid: owner} }
func namespaceRoot() who { return who{name: "root of a user namespace", uid: mapped, namespace: true} }
func containerRoot() who { return who{name: "root without CAP_SYS_RESOURCE"} }
func nodeRoot() who      { return who{name: "root with CAP_SYS_RESOURCE", resource: true} }

// do runs one of the actions of TestDo as somebody, and returns what it prints.
func (w who) do(t *testing.T, action string, args ...string) string {
	t.Helper()
	text := strings.Join(append([]string{action}, args...), "\n")
	if w.resource {
		return w.doInHelper(t, text)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDo$")
	cmd.Env = append(os.Environ(), doVariable+"="+text)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	switch {
	case w.namespace:
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: mapped, Size: 65536}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	case w.uid != 0:
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.uid)}
	}
	out, err := cmd.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

func (w who) doInHelper(t *testing.T, text string) string {
	t.Helper()
	g := NewWithT(t)
	quoted := "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	_, err := fmt.Fprintf(helper.stdin, "%s=%s %s -test.run='^TestDo$' | sed -n 1p\n", doVariable, quoted, os.Args[0])
	g.Expect(err).NotTo(HaveOccurred())
	line, err := helper.stdout.ReadString('\n')
	g.Expect(err).NotTo(HaveOccurred())
	return strings.TrimSuffix(line, "\n")
}

// TestDo is what who.do runs; without its environment it does nothing.
func TestDo(t *testing.T) {
	action := strings.Split(os.Getenv(doVariable), "\n")
	var result any
	switch args := action[1:]; action[0] {
	case "":
		return
	case "fill": // FILE: writes blocks until it is stopped
		result = fill(args[0])
	case "create": // DIRECTORY: makes files until it is stopped
		result = create(args[0])
	case "escape": // FILE ID
		result = escape(args[0], args[1])
	case "link":
		result = os.Link(args[0], args[1])
	case "rename":
		result = os.Rename(args[0], args[1])
	case "map", "nameless", "allocate", "copies": // DIRECTORY
		result = write(action[0], args[0])
	default:
		t.Fatalf("unknown action %q", action[0])
	}
	fmt.Fprintln(os.Stdout, result)
}

// most is what fill writes if nothing stops it, in bytes, and create makes.
const most = 64 << 20

func fill(path string) any {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var n int64
	for data := make([]byte, block); n < most; n += block {
		if _, err := f.Write(data); err != nil {
			return fmt.Sprintf("%v, %v", unwrapped(err), f.Sync())
		}
	}
	return f.Sync()
}

func create(dir string) any {
	for i := range 2000 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("f%d", i)))
		if err != nil {
			return fmt.Sprintf("%d: %v", i, unwrapped(err))
		}
		_ = f.Close()
	}
	return nil
}

func escape(path, id string) any {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	p := project{}
	if _, err := fmt.Sscan(id, &p.id); err != nil || p.id == math.MaxUint32 {
		return err
	}
	return unwrapped(setProject(f, p))
}

func unwrapped(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = inner.Unwrap()
	}
}

// stopped is how the kernel says that a project is full.
func stopped(t *testing.T) string {
	t.Helper()
	if onXFS(t) {
		return unix.ENOSPC.Error()
	}
	return unix.EDQUOT.Error()
}

func onXFS(t *testing.T) bool {
	t.Helper()
	var st unix.Statfs_t
	NewWithT(t).Expect(unix.Statfs(os.TempDir(), &st)).To(Succeed())
	return st.Type == unix.XFS_SUPER_MAGIC
}
