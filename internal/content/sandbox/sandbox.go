// Package sandbox runs what parses or executes something of a workspace in a process of its own.
//
// Such a process is this program again ([Enter]). It belongs to the owner of the workspace, sees one directory of the node that it
// may write to, the system's programs, and nothing else; it has no capability, cannot get one, and inherits no descriptor, no
// environment and no credentials but those of its task. The kernel keeps it so by namespaces, Landlock and a system call filter.
// What the kernel or the container denies to the daemon is missing in the sandbox: [Sandbox.Missing] names it.
//
// A task is a function of this program. What it returns, its error and its progress come back over a pipe, in messages whose size
// is limited. When it ends, is late, or takes too much, all its processes are killed.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/scratch"
)

// Protection is one of the walls around a task.
type Protection string

// The protections, in the order in which they are named.
const (
	// UserNamespace: root in the sandbox would not be root of the node.
	UserNamespace Protection = "UserNamespace"
	// MountNamespace: the task sees its directory and the system's programs; nothing in the directory can be executed.
	MountNamespace Protection = "MountNamespace"
	// PIDNamespace: the task sees only its own processes, and none of them outlives it.
	PIDNamespace Protection = "PIDNamespace"
	// IPCNamespace: no shared memory or semaphores of the node.
	IPCNamespace Protection = "IPCNamespace"
	// UTSNamespace: the node's name stays unknown.
	UTSNamespace Protection = "UTSNamespace"
	// NetworkNamespace: a task that needs no network has none.
	NetworkNamespace Protection = "NetworkNamespace"
	// ProcessView: /proc shows nothing of the node's processes.
	ProcessView Protection = "ProcessView"
	// Landlock: files elsewhere cannot be opened, whatever the mounts are.
	Landlock Protection = "Landlock"
	// Connections: a program can be kept to one port of this machine, that of who looks where a connection is to go ([OnlyConnectTo]).
	Connections Protection = "Connections"
	// SystemCalls: a filter refuses system calls that no task needs.
	SystemCalls Protection = "SystemCalls"
)

// All lists every protection.
func All() []Protection {
	return []Protection{
		UserNamespace, MountNamespace, PIDNamespace, IPCNamespace, UTSNamespace, NetworkNamespace, ProcessView, Landlock, Connections, SystemCalls,
	}
}

// probeTimeout is long enough for a machine that has a lot else to do: a node that starts everything at once may need half a minute.
const probeTimeout = 2 * time.Minute

// How often each set of namespaces is tried, and how long is waited in between.
const (
	probeAttempts = 3
	probePause    = 200 * time.Millisecond
)

// Options of a sandbox.
type Options struct {
	// Required refuses to go on where a protection is missing.
	Required bool
	// Visible names more files and directories that tasks can read and execute, besides the system's programs.
	Visible []string
	// without are protections that a test does without.
	without []Protection
}

// Sandbox starts tasks with the protections that this machine has. Nil is one that runs nothing.
type Sandbox struct {
	options Options
	// flags are the namespaces that can be had.
	flags   uintptr
	missing []Protection
	reasons map[Protection]string
	// broken says why no task can be run at all.
	broken error
}

// MissingError means that protections which the configuration requires are not there.
type MissingError struct {
	// Missing protections, and why.
	Missing []Protection
	Reasons map[Protection]string
}

// Error names the protections and says what to do.
func (e *MissingError) Error() string {
	return "the sandbox lacks " + explain(e.Missing, e.Reasons) +
		": give the daemon what it needs for them (see docs/initializers.md), or set content.sandbox.required to false"
}

// New finds out what this machine can do, by running a task that does nothing. A *[MissingError] if something is missing that must
// not be. Where no task can be run at all, there is a sandbox that says why: a daemon must be able to save what it holds.
func New(ctx context.Context, o Options) (*Sandbox, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_ = scratch.Sweep(os.TempDir(), scratchPrefix) // what killed daemons have left; what cannot be removed is in nobody's way
	var first error
	for _, flags := range candidates(o.without) {
		s, err := tryOut(ctx, o, flags)
		if err == nil {
			return s, s.enough()
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("try the sandbox: %w", err)
		}
		if first == nil {
			first = err
		}
	}
	s := &Sandbox{options: o, missing: All(), reasons: map[Protection]string{}, broken: fmt.Errorf("no sandbox can be made: %w", first)}
	for _, p := range s.missing {
		s.reasons[p] = "no sandbox can be made: " + first.Error()
	}
	return s, s.enough()
}

// tryOut tells whether these namespaces can be had. Where processes are short for a moment none can be, so one failure proves nothing.
func tryOut(ctx context.Context, o Options, flags uintptr) (*Sandbox, error) {
	for left := probeAttempts - 1; ; left-- {
		s := &Sandbox{options: o, flags: flags}
		err := s.probe(ctx)
		if err == nil || left == 0 {
			return s, err
		}
		select {
		case <-time.After(probePause):
		case <-ctx.Done():
			return s, err
		}
	}
}

// candidates are the sets of namespaces to try, the best one first: without a namespace of users only an administrator can make
// the others, and in a container mounting may be forbidden all the same.
func candidates(without []Protection) []uintptr {
	const (
		others = syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET
		all    = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | others
	)
	sets := []uintptr{all, all &^ syscall.CLONE_NEWUSER, syscall.CLONE_NEWUSER | others, 0}
	var mask uintptr
	for _, p := range without {
		mask |= namespaces()[p]
	}
	for i := range sets {
		sets[i] &^= mask
	}
	return sets
}

func namespaces() map[Protection]uintptr {
	return map[Protection]uintptr{
		UserNamespace: syscall.CLONE_NEWUSER, MountNamespace: syscall.CLONE_NEWNS, PIDNamespace: syscall.CLONE_NEWPID,
		IPCNamespace: syscall.CLONE_NEWIPC, UTSNamespace: syscall.CLONE_NEWUTS, NetworkNamespace: syscall.CLONE_NEWNET,
	}
}

// probe runs a task that does nothing, and takes down what was missing in it.
func (s *Sandbox) probe(ctx context.Context) error {
	lacks := map[Protection]string{}
	err := s.run(ctx, Job{Task: probeTask, UID: probeUID, GID: probeUID, Dir: "/"}, func(l lack) { lacks[l.Protection] = l.Reason })
	if err != nil {
		return err
	}
	for p, flag := range namespaces() {
		if s.flags&flag == 0 {
			lacks[p] = "the daemon may not make it"
		}
	}
	for _, p := range All() {
		if _, ok := lacks[p]; ok {
			s.missing = append(s.missing, p)
		}
	}
	s.reasons = lacks
	return nil
}

func (s *Sandbox) enough() error {
	if s.options.Required && len(s.missing) > 0 {
		return &MissingError{Missing: s.missing, Reasons: s.reasons}
	}
	return nil
}

// Missing returns the protections that tasks do without.
func (s *Sandbox) Missing() []Protection {
	if s == nil {
		return All()
	}
	return s.missing
}

// Explain names the missing protections and why they are missing; "" if there are all.
func (s *Sandbox) Explain() string {
	if s == nil {
		return errNone.Error()
	}
	return explain(s.missing, s.reasons)
}

var errNone = errors.New("there is no sandbox")

func explain(missing []Protection, reasons map[Protection]string) string {
	parts := make([]string, 0, len(missing))
	for _, p := range missing {
		parts = append(parts, fmt.Sprintf("%s (%s)", p, reasons[p]))
	}
	return strings.Join(parts, ", ")
}

// The errors of [Sandbox.Run] that are not the task's own.
var (
	// ErrLimit means that a task took more memory, processes or output than it may.
	ErrLimit = errors.New("limit of the sandbox exceeded")
	// ErrCrashed means that a task ended without a result.
	ErrCrashed = errors.New("the task in the sandbox crashed")
)

// TaskError is what a task failed of, as it said itself.
type TaskError struct {
	// Kind is what the task's error calls itself ([Kinder]), "" if it does not.
	Kind string
	// Message is one line without secrets, at most 4 KiB.
	Message string
}

// Error returns the message.
func (e *TaskError) Error() string { return e.Message }

// Kinder is an error that has a kind which outlives the way out of the sandbox.
type Kinder interface {
	error
	ErrorKind() string
}
