package vm

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Programs of this machine.
const (
	qemu        = "qemu-system-x86_64"
	mke2fs      = "mke2fs"
	debootstrap = "debootstrap"
	busybox     = "busybox"
	cpio        = "cpio"
)

// packageOf gives the Debian package of a program.
func packageOf(program string) string {
	switch program {
	case qemu:
		return "qemu-system-x86"
	case mke2fs:
		return "e2fsprogs"
	case busybox:
		// Alone in the initial file system, it has no libraries.
		return "busybox-static"
	default:
		return program
	}
}

// find gives the path of a program, looking also where ordinary users do not.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// install installs the packages of programs that are missing.
func install(ctx context.Context, root string, log io.Writer, programs ...string) error {
	var missing []string
	for _, program := range programs {
		if _, err := find(program); err != nil {
			missing = append(missing, packageOf(program))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	start := time.Now()
	cmd := exec.CommandContext(ctx, filepath.Join(root, "hack", "packages.sh"), missing...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, log, log
	if err := run(cmd); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing, ", "), err)
	}
	say(log, "installed packages in %s", since(start))
	return nil
}

// run runs a command, which is killed with this process. It needs a thread of its own for its whole life: the
// parent-death signal is sent when the thread that started the child ends, not when the process does.
func run(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = 5 * time.Second
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	return <-done
}
