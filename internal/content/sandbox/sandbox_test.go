package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	enterContainer()
	Enter(map[string]Task{
		"see": see, "try": try, "echo": echo, "hang": hang, "fork": fork, "eat": eat, "talk": talk, "crash": crash, "fail": failing, "orphan": orphan,
		"share": share, "double": double, "flee": flee, "fill": fill, "shout": shout, "mute": mute, "serve": serve,
	})
	os.Exit(m.Run())
}

const owner = 33333

// levels are machines that can do less and less.
func levels() map[string][]Protection {
	return map[string][]Protection{
		"everything":                 nil,
		"no namespace of users":      {UserNamespace},
		"a masked /proc":             {ProcessView},
		"no mounts":                  {MountNamespace},
		"no Landlock":                {Landlock},
		"no Landlock for ports":      {Connections},
		"no filter of system calls":  {SystemCalls},
		"only Landlock and a filter": {UserNamespace, MountNamespace, PIDNamespace, IPCNamespace, UTSNamespace, NetworkNamespace},
	}
}

func newSandbox(t *testing.T, without ...Protection) *Sandbox {
	t.Helper()
	s, err := New(t.Context(), Options{without: without})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s
}

// newDir returns a directory that belongs to the owner, below one that everybody may pass.
func newDir(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	base := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(base), 0o711)).To(Succeed())
	dir := filepath.Join(base, "content")
	g.Expect(os.Mkdir(dir, 0o755)).To(Succeed())
	g.Expect(os.Chown(dir, owner, owner+1)).To(Succeed())
	return dir
}

func job(dir, task string, input, result any) Job {
	return Job{Task: task, Input: input, Result: result, Dir: dir, UID: owner, GID: owner + 1}
}

// sight is what a task sees of itself.
type sight struct {
	UID, EUID, GID, Groups int
	Status                 map[string]string
	Env                    []string
	Files                  []string
	Host                   string
	Root                   []string
	PID                    int
}

func see(context.Context, *Call) (any, error) {
	s := sight{UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getgid(), Env: os.Environ(), PID: os.Getpid(), Status: map[string]string{}}
	groups, err := os.Getgroups()
	if err != nil {
		return nil, err
	}
	s.Groups = len(groups)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok {
			s.Status[k] = strings.TrimSpace(v)
		}
	}
	for fd := range 64 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/proc/") {
			s.Files = append(s.Files, strings.TrimRight(target, "0123456789[]"))
		}
	}
	s.Host, err = os.Hostname()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"bin", "boot", "home", "lib", "media", "mnt", "opt", "root", "run", "srv", "sys", "usr", "var", "workspace"} {
		if _, err := os.Lstat("/" + name); err == nil {
			s.Root = append(s.Root, name)
		}
	}
	return s, nil
}

func TestS6_ATaskHasNoPrivileges(t *testing.T) {
	for name, without := range levels() {
		for _, uid := range []uint32{owner, 0} {
			t.Run(fmt.Sprintf("%s, uid %d", name, uid), func(t *testing.T) {
				g := NewWithT(t)
				dir := newDir(t)
				g.Expect(os.Chown(dir, int(uid), int(uid))).To(Succeed())
				t.Setenv("KUBERNETES_TOKEN", "s3cret")
				held, err := os.Open("/etc/hostname")
				g.Expect(err).NotTo(HaveOccurred())
				defer held.Close()

				var seen sight
				g.Expect(newSandbox(t, without...).Run(t.Context(), Job{Task: "see", Result: &seen, Dir: dir, UID: uid, GID: uid})).To(Succeed())
				g.Expect([]int{seen.UID, seen.EUID, seen.GID, seen.Groups}).To(Equal([]int{int(uid), int(uid), int(uid), 0}))
				for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
					g.Expect(seen.Status[set]).To(Equal("0000000000000000"), set)
				}
				g.Expect(seen.Status["NoNewPrivs"]).To(Equal("1"))
				g.Expect(seen.Env).To(HaveExactElements("PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "GOTRACEBACK=none", HavePrefix("TMPDIR=/tmp")))
				g.Expect(seen.Files).To(Equal([]string{"/dev/null", "/dev/null", "pipe:", "pipe:", "pipe:"}))
			})
		}
	}
}

func TestATaskSeesItsOwnWorld(t *testing.T) {
	g := NewWithT(t)
	s := newSandbox(t)
	g.Expect(s.Missing()).To(BeEmpty(), s.Explain())
	g.Expect(s.Explain()).To(BeEmpty())
	var seen sight
	g.Expect(s.Run(t.Context(), job(newDir(t), "see", nil, &seen))).To(Succeed())
	g.Expect(seen.PID).To(Equal(1))
	g.Expect(seen.Host).To(Equal("workspace"))
	g.Expect(seen.Status["Seccomp"]).To(Equal("2"))
	g.Expect(seen.Status["CapBnd"]).To(Equal("0000000000000000"))
	g.Expect(seen.Root).To(Equal([]string{"bin", "lib", "usr", "workspace"}))
}

// attempt is one thing that a task shall not be able to do; Path is given by the test.
type attempt struct{ What, Path string }

// try returns "" if it worked.
func try(_ context.Context, call *Call) (any, error) {
	var a attempt
	if err := call.Decode(&a); err != nil {
		return nil, err
	}
	err := attempts()[a.What](a.Path)
	if err == nil {
		return "", nil
	}
	return err.Error(), nil
}

func attempts() map[string]func(path string) error {
	return map[string]func(string) error{
		"read":  func(p string) error { _, err := os.ReadFile(p); return err },
		"list":  func(p string) error { _, err := os.ReadDir(p); return err },
		"write": func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"run":   func(p string) error { return exec.CommandContext(context.Background(), p).Run() },
		"link": func(p string) error {
			if err := os.Symlink(p, "way"); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			_, err := os.ReadFile("way")
			return err
		},
		"mount":     func(p string) error { return unix.Mount("none", p, "tmpfs", 0, "") },
		"unshare":   func(string) error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"namespace": func(string) error { return start(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}) },
		"setsid":    func(string) error { return start(&syscall.SysProcAttr{Setsid: true}) },
		"setpgid":   func(string) error { return start(&syscall.SysProcAttr{Setpgid: true}) },
		"root":      func(string) error { return start(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0}}) },
		"ptrace":    func(string) error { return unix.PtraceAttach(os.Getppid()) },
		"device":    func(string) error { return unix.Mknod("device", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))) },
		"immutable": immutable,
		"netlink":   func(string) error { return open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT) },
		"packet":    func(string) error { return open(unix.AF_PACKET, unix.SOCK_RAW, 0) },
		"unix":      func(string) error { return open(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
		"listen":    func(string) error { _, err := listen(context.Background()); return err },
		"connect": func(p string) error {
			c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", p)
			if err == nil {
				err = c.Close()
			}
			return err
		},
		"shell": func(p string) error { return exec.CommandContext(context.Background(), "/bin/sh", "-c", p).Run() },
	}
}

func listen(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}

func start(attr *syscall.SysProcAttr) error {
	cmd := exec.CommandContext(context.Background(), "/bin/true")
	cmd.SysProcAttr = attr
	return cmd.Run()
}

func open(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func immutable(string) error {
	f, err := os.Create("immutable")
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), setFlags, 0)
}

// newCanaries makes a directory that everybody may write to, with a secret and a program.
func newCanaries(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	canaries := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(canaries), 0o777)).To(Succeed())
	g.Expect(os.Chmod(canaries, 0o777)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(canaries, "secret"), []byte("s3cret"), 0o666)).To(Succeed())
	program := filepath.Join(canaries, "program")
	g.Expect(os.WriteFile(program, []byte("#!/bin/sh\ntouch "+canaries+"/ran\n"), 0o777)).To(Succeed())
	g.Expect(os.Chmod(program, 0o777)).To(Succeed())
	t.Cleanup(func() {
		g.Expect(os.ReadDir(canaries)).To(HaveLen(2))
		g.Expect(os.ReadFile(filepath.Join(canaries, "secret"))).To(Equal([]byte("s3cret")))
	})
	return canaries
}

// escapes are what a task must not be able to do to the canaries, to a server of the node, and to anything else.
func escapes(canaries, address string) []attempt {
	secret, program := filepath.Join(canaries, "secret"), filepath.Join(canaries, "program")
	return []attempt{
		{"read", secret}, {"read", fmt.Sprintf("/proc/%d/environ", os.Getpid())}, {"read", "/etc/shadow"}, {"read", "../" + filepath.Base(canaries) + "/secret"},
		{"list", canaries}, {"list", "/root"}, {"list", "/var"}, {"link", secret},
		{"write", canaries + "/new"}, {"write", secret}, {"write", "/usr/new"}, {"write", "/new"}, {"write", "/etc/new"},
		{"run", program}, {"run", "./hook"}, {"shell", "./hook"}, {"shell", "cat " + secret}, {"shell", "echo x > " + canaries + "/new"},
		{"mount", "/tmp"}, {"unshare", ""}, {"namespace", ""}, {"setsid", ""}, {"setpgid", ""}, {"root", ""}, {"device", ""},
		{"immutable", ""}, {"netlink", ""}, {"packet", ""}, {"unix", ""}, {"listen", ""}, {"connect", address},
	}
}

// Nothing outside is read, written or executed, with and without namespaces.
func TestS6_ATaskCannotGetOut(t *testing.T) {
	canaries := newCanaries(t)
	listener, err := listen(t.Context())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	for name, without := range levels() {
		if name == "no filter of system calls" || name == "no Landlock" {
			continue // they are what forbids some of it
		}
		s := newSandbox(t, without...)
		for _, a := range escapes(canaries, listener.Addr().String()) {
			t.Run(name+": "+a.What+" "+a.Path, func(t *testing.T) {
				g := NewWithT(t)
				dir := newDir(t)
				g.Expect(os.WriteFile(filepath.Join(dir, "hook"), []byte("#!/bin/sh\ntouch ran\n"), 0o777)).To(Succeed())
				g.Expect(os.Chmod(filepath.Join(dir, "hook"), 0o777)).To(Succeed())
				var said string
				g.Expect(s.Run(t.Context(), job(dir, "try", a, &said))).To(Succeed())
				g.Expect(said).NotTo(BeEmpty())
				g.Expect(filepath.Join(dir, "ran")).NotTo(BeAnExistingFile())
			})
		}
	}
}

// The same attempts work where they are allowed: otherwise the test above would prove nothing.
func TestATaskCanWork(t *testing.T) {
	listener, err := listen(t.Context())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	for name, without := range levels() {
		s := newSandbox(t, without...)
		for _, a := range []attempt{
			{"write", "file"}, {"read", "given"}, {"list", "."}, {"run", "/bin/true"}, {"shell", "echo x > made"}, {"connect", listener.Addr().String()},
		} {
			t.Run(name+": "+a.What, func(t *testing.T) {
				g := NewWithT(t)
				dir := newDir(t)
				g.Expect(os.WriteFile(filepath.Join(dir, "given"), nil, 0o644)).To(Succeed())
				var said string
				j := job(dir, "try", a, &said)
				j.Network = true
				g.Expect(s.Run(t.Context(), j)).To(Succeed())
				g.Expect(said).To(BeEmpty())
				if a.What == "shell" {
					info, err := os.Stat(filepath.Join(dir, "made"))
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(info.Mode()).To(Equal(fs.FileMode(0o644)))
					st := info.Sys().(*syscall.Stat_t)
					g.Expect([]uint32{st.Uid, st.Gid}).To(Equal([]uint32{owner, owner + 1}))
				}
			})
		}
	}
}

func TestS6_ReadOnlyIsReadOnly(t *testing.T) {
	for name, without := range levels() {
		t.Run(name, func(t *testing.T) {
			if name == "no Landlock" || name == "no mounts" || name == "only Landlock and a filter" {
				without = append(without, SystemCalls) // one wall is enough
			}
			g := NewWithT(t)
			dir := newDir(t)
			var said string
			j := job(dir, "try", attempt{"write", "file"}, &said)
			j.ReadOnly = true
			g.Expect(newSandbox(t, without...).Run(t.Context(), j)).To(Succeed())
			g.Expect(said).NotTo(BeEmpty())
			g.Expect(os.ReadDir(dir)).To(BeEmpty())
		})
	}
}

func TestS9_WhatIsMissingIsNamed(t *testing.T) {
	for name, without := range levels() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newSandbox(t, without...)
			want := without
			if name == "no mounts" || name == "only Landlock and a filter" {
				want = append(want, ProcessView)
			}
			if name == "no Landlock" {
				want = append(want, Connections)
			}
			g.Expect(s.Missing()).To(ConsistOf(want))
			for _, p := range want {
				g.Expect(s.Explain()).To(MatchRegexp(string(p) + ` \(.+\)`))
			}
			_, err := New(t.Context(), Options{Required: true, without: without})
			if len(want) == 0 {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			missing, ok := errors.AsType[*MissingError](err)
			g.Expect(ok).To(BeTrue(), "%v", err)
			g.Expect(missing.Missing).To(ConsistOf(want))
			g.Expect(err).To(MatchError(And(ContainSubstring("the sandbox lacks "), ContainSubstring("content.sandbox.required"))))
		})
	}
}

func TestNoSandboxRunsNothing(t *testing.T) {
	g := NewWithT(t)
	var none *Sandbox
	g.Expect(none.Run(t.Context(), Job{})).To(MatchError("there is no sandbox"))
	g.Expect(none.Missing()).To(Equal(All()))
	g.Expect(none.Explain()).To(Equal("there is no sandbox"))
}
