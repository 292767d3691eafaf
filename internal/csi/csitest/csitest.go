// Package csitest is what tests of the CSI driver need of a node: mounts of their own, and a kubelet's directory.
package csitest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// apart tells the process that it is the one with mounts of its own.
const apart = "WS_DAEMON_TEST_MOUNTS_APART"

// Main runs a test program's tests in a mount namespace of its own and returns the exit code: whatever they, and the processes that they
// start, mount and leave behind is gone with them. run is called there.
func Main(run func() int) int {
	if os.Getenv(apart) != "" {
		return run()
	}
	runtime.LockOSThread()                                // the signal below is sent when the thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it lives as long as this process
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(1, ended.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests with mounts of their own:", err)
		return 1
	}
	return 0
}

// KubeletDir makes a kubelet's directory as the daemon has it: a shared mount.
func KubeletDir(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	dir := filepath.Join(t.TempDir(), "kubelet")
	g.Expect(os.Mkdir(dir, 0o755)).To(Succeed())
	g.Expect(unix.Mount(dir, dir, "", unix.MS_BIND, "")).To(Succeed())
	t.Cleanup(func() { g.Expect(unix.Unmount(dir, unix.MNT_DETACH)).To(Succeed()) })
	g.Expect(unix.Mount("", dir, "", unix.MS_SHARED, "")).To(Succeed())
	return dir
}

// Target returns the path at which the kubelet wants a volume of a pod, whose directory it makes before it asks.
func Target(t *testing.T, kubeletDir, podUID string) string {
	t.Helper()
	dir := filepath.Join(kubeletDir, "pods", podUID, "volumes", "kubernetes.io~csi", "work")
	NewWithT(t).Expect(os.MkdirAll(dir, 0o750)).To(Succeed())
	return filepath.Join(dir, "mount")
}
