package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// capabilities are those that the DaemonSet of config/manager has.
const capabilities = "-all,+chown,+dac_override,+fowner,+fsetid,+setuid,+setgid,+kill,+mknod,+setfcap,+lease,+linux_immutable"

// contained is what a daemon finds out in a container.
type contained struct {
	Missing  []Protection
	Explain  string
	Required string
	// Said is what tasks answered, by what they tried.
	Said map[string]string
}

const containerName = "ws-daemon-container"

// enterContainer makes this process what a daemon is in a container with the default seccomp profile of the container runtimes, if it was
// started to be that. The profile forbids namespaces and mounts to whoever has no CAP_SYS_ADMIN.
func enterContainer() {
	if len(os.Args) < 2 || os.Args[1] != containerName {
		return
	}
	var order struct {
		Dir      string
		Attempts []attempt
	}
	err := json.NewDecoder(os.Stdin).Decode(&order)
	if err == nil {
		err = forbidNamespaces()
	}
	var found contained
	if err == nil {
		found, err = look(order.Dir, order.Attempts)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// forbidNamespaces puts a filter in force for all threads.
func forbidNamespaces() error {
	p := []unix.SockFilter{load(atCall)}
	for _, n := range []uint32{
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETHOSTNAME, unix.SYS_OPEN_TREE,
		unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_FSCONFIG, unix.SYS_MOUNT_SETATTR, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_QUOTACTL,
	} {
		p = append(p, jump(unix.BPF_JEQ, n, 0, 1), ret(fail(unix.EPERM)))
	}
	p = append(p, jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), ret(fail(unix.ENOSYS)))
	p = append(p, when(unix.SYS_CLONE, load(atArg0), jump(unix.BPF_JSET, cloneNamespaces, 0, 1), ret(fail(unix.EPERM)))...)
	p = append(p, ret(allow))
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

func look(dir string, attempts []attempt) (contained, error) {
	ctx := context.Background()
	s, err := New(ctx, Options{})
	if err != nil {
		return contained{}, err
	}
	found := contained{Missing: s.Missing(), Explain: s.Explain(), Said: map[string]string{}}
	if _, err := New(ctx, Options{Required: true}); err != nil {
		found.Required = err.Error()
	}
	for _, a := range attempts {
		said := ""
		if err := s.Run(ctx, job(dir, "try", a, &said)); err != nil {
			return found, errors.Join(errors.New(a.What+" "+a.Path), err)
		}
		found.Said[a.What+" "+a.Path] = said
	}
	return found, nil
}

// As the DaemonSet is delivered, some walls cannot be built. The daemon says so, refuses to start where they are required, and what is left
// keeps every attempt in.
func TestS9_InAContainerWithTheDefaultProfile(t *testing.T) {
	g := NewWithT(t)
	canaries, dir := newCanaries(t), newDir(t)
	g.Expect(os.WriteFile(filepath.Join(dir, "hook"), []byte("#!/bin/sh\ntouch ran\n"), 0o777)).To(Succeed())
	g.Expect(os.Chmod(filepath.Join(dir, "hook"), 0o777)).To(Succeed())
	listener, err := listen(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	tries := escapes(canaries, listener.Addr().String())
	tries = append(tries, attempt{"read", "/proc/1/environ"}, attempt{"shell", "cat /proc/[0-9]*/environ | grep KUBERNETES"})
	input, err := json.Marshal(map[string]any{"Dir": dir, "Attempts": append(tries, attempt{"write", "allowed"})})
	g.Expect(err).NotTo(HaveOccurred())

	self, err := os.Executable()
	g.Expect(err).NotTo(HaveOccurred())
	cmd := exec.CommandContext(t.Context(), "setpriv", "--bounding-set="+capabilities, "--inh-caps="+capabilities, "--no-new-privs", self, containerName)
	cmd.Env = append(os.Environ(), "KUBERNETES_TOKEN=s3cret")
	cmd.Stdin = strings.NewReader(string(input))
	var words strings.Builder
	cmd.Stderr = &words
	out, err := cmd.Output()
	g.Expect(err).NotTo(HaveOccurred(), words.String())
	var found contained
	g.Expect(json.Unmarshal(out, &found)).To(Succeed())

	g.Expect(found.Missing).To(Equal([]Protection{
		UserNamespace, MountNamespace, PIDNamespace, IPCNamespace, UTSNamespace, NetworkNamespace, ProcessView,
	}))
	for _, p := range found.Missing {
		g.Expect(found.Explain).To(ContainSubstring(string(p) + " ("))
	}
	g.Expect(found.Required).To(And(HavePrefix("the sandbox lacks UserNamespace ("), ContainSubstring("set content.sandbox.required to false")))
	g.Expect(found.Said).To(HaveLen(len(tries) + 1))
	for what, said := range found.Said {
		if what == "write allowed" {
			g.Expect(said).To(BeEmpty(), "what a task is for works")
			continue
		}
		g.Expect(said).NotTo(BeEmpty(), what)
	}
	g.Expect(filepath.Join(dir, "ran")).NotTo(BeAnExistingFile())
}

// serve answers whoever calls the socket of the job.
func serve(_ context.Context, call *Call) (any, error) {
	if call.Listener == nil {
		return "", nil
	}
	call.Report(call.Listener.Addr().String())
	conn, err := call.Listener.Accept()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("hello"))
	return call.Listener.Addr().String(), err
}

func TestATaskGetsTheSocketThatItsJobAsksFor(t *testing.T) {
	for name, without := range levels() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newSandbox(t, without...)
			heard := make(chan string, 1)
			var address string
			j := job(newDir(t), "serve", nil, &address)
			j.Network, j.Listen = true, true
			j.Progress = func(p json.RawMessage) {
				var to string
				_ = json.Unmarshal(p, &to)
				go func() {
					conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
					if err != nil {
						heard <- err.Error()
						return
					}
					defer conn.Close()
					all, _ := io.ReadAll(conn)
					heard <- string(all)
				}()
			}
			g.Expect(s.Run(t.Context(), j)).To(Succeed())
			g.Expect(address).To(HavePrefix("127.0.0.1:"))
			g.Expect(<-heard).To(Equal("hello"))

			j.Network = false // a socket is of no use without a network
			g.Expect(s.Run(t.Context(), j)).To(Succeed())
			g.Expect(address).To(BeEmpty())
		})
	}
}
