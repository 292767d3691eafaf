package initializer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

const (
	lfsCommand = "lfs"
	// narrowProgram is the first argument by which this program knows that it is to run another one with the way to the relay only.
	narrowProgram = "ws-daemon-narrow"
)

// lfs fetches the files of which the repository has only pointers, in one go after the checkout: a filter would fetch one at a time.
// The repository is set up so that its users' git knows what to do with them.
func (r *repository) lfs(ctx context.Context) error {
	if _, err := exec.LookPath("git-lfs"); err != nil {
		return newError(Invalid, err, "git-lfs is not in the daemon's image: add it, or set lfs to false")
	}
	// Without hooks: git-lfs adds those when it is used by who works here.
	if _, err := r.run(ctx, lfsCommand, "install", "--local", "--skip-repo"); err != nil {
		return err
	}
	_, err := r.run(ctx, lfsCommand, "pull", "origin")
	return explainLFS(err)
}

// explainLFS gives what git-lfs says in its own way a kind. Some of it are words of its server, which may make out what it likes of itself.
func explainLFS(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Kind != Failed {
		return err
	}
	switch {
	case strings.Contains(e.Message, "connect: permission denied"):
		return newError(Invalid, err, "the daemon's configuration denies addresses of this machine (content.egress.deny): %s", e.Message)
	case strings.Contains(e.Message, "no space left on device"), strings.Contains(e.Message, "disk quota exceeded"):
		return newError(Full, err, "%s: enlarge spec.volume.size", e.Message)
	case strings.Contains(e.Message, "Authentication required"), strings.Contains(e.Message, "Authorization error"), strings.Contains(e.Message, "Git credentials for"):
		return newError(Unauthorized, err, "%s", e.Message)
	case strings.Contains(e.Message, "Object does not exist"), strings.Contains(e.Message, "Repository or object not found"):
		return newError(NotFound, err, "%s", e.Message)
	}
	return err
}

// lfsOptions make git-lfs fail in time, and use nothing but HTTP with the helper's credentials.
func lfsOptions() []string {
	return []string{
		"lfs.basictransfersonly=true", "lfs.locksverify=false", "lfs.activitytimeout=60", "lfs.dialtimeout=30", "lfs.tlstimeout=30",
		"lfs.transfer.maxretries=3", "lfs.ssh.automultiplex=false", "lfs.concurrenttransfers=8",
	}
}

// narrowed has git connect to the relay, and to nothing else, if addresses of this machine are denied: git-lfs uses no proxy for those,
// which a server may send it to.
func (r *repository) narrowed(ctx context.Context, args []string) *exec.Cmd {
	args = append(append([]string{orGit(r.program)}, r.options()...), args...)
	if r.relay == nil || !r.relay.gate.deniesLoopback() {
		return exec.CommandContext(ctx, args[0], args[1:]...)
	}
	return exec.CommandContext(ctx, "/proc/self/exe", append([]string{narrowProgram, strconv.Itoa(r.relay.port())}, args...)...)
}

// enterNarrow makes this process the program that its arguments name, which can connect to one port only, if it was started to do so.
func enterNarrow() {
	if len(os.Args) < 4 || os.Args[1] != narrowProgram {
		return
	}
	runtime.LockOSThread() // what is denied to the thread is denied to the program that it becomes
	err := narrow(os.Args[2], os.Args[3:])
	fmt.Fprintf(os.Stderr, "error: run %s: %v\n", os.Args[3], err)
	os.Exit(1)
}

func narrow(port string, args []string) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	if err := sandbox.OnlyConnectTo(n); err != nil {
		return err
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, args, os.Environ()) //nolint:gosec // the arguments are those of this program
}
