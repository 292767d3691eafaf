package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	// commandTimeout bounds one program. A command of LVM takes a second, and may wait for others; mkfs takes a few.
	commandTimeout = 2 * time.Minute
	// endTimeout is what a program gets to end after SIGTERM, and what the kernel gets to end it after SIGKILL.
	endTimeout = 5 * time.Second
	// maxLeft is how many programs may be left behind before no more are started: each waits for a disk that hangs, and so would the next.
	maxLeft = 4
	// maxHeard is how much of what a program says on the side is kept, to tell what kind of error it is, and maxWords how much is shown.
	maxHeard, maxWords = 64 << 10, 1 << 10
)

// tools runs programs; nothing else in this package does.
type tools struct {
	// dirs are searched for programs.
	dirs []string
	// timeout of one program, and what it then gets to end.
	timeout, end time.Duration
	// left counts the programs that do not end.
	left *atomic.Int32
}

func newTools() tools {
	return tools{
		dirs:    []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"},
		timeout: commandTimeout, end: endTimeout, left: &atomic.Int32{},
	}
}

// run runs a program and returns what it prints. Errors are *[CommandError], also for one that hangs: it is killed with all its
// children, and if even that does not end it (the kernel waits for a disk), it is left behind.
func (t tools) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	command := strings.Join(append([]string{name}, args...), " ")
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("run %s: %w", command, context.Cause(ctx))
	}
	path, err := t.find(name)
	if err == nil && t.left.Load() >= maxLeft {
		err = fmt.Errorf("%w: not run, because %d programs before it do not end: look for a disk that does not answer (dmesg)", ErrHangs, maxLeft)
	}
	if err != nil {
		return nil, &CommandError{Command: command, Kind: err}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, fmt.Errorf("%w: it did not end within %s", ErrHangs, t.timeout))
	defer cancel()
	cmd := exec.Command(path, args...) //nolint:noctx // the end of the context ends the whole group, below
	cmd.Env = []string{"LC_ALL=C", "PATH=" + strings.Join(t.dirs, ":"), "LVM_SUPPRESS_FD_WARNINGS=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout bytes.Buffer
	said := &speech{}
	cmd.Stdout, cmd.Stderr = &stdout, said
	cmd.WaitDelay = t.end // a child that was left behind must not hold the pipes for ever
	if err := cmd.Start(); err != nil {
		return nil, &CommandError{Command: command, Kind: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		return nil, t.kill(ctx, cmd.Process.Pid, command, ended, said)
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited { // what it printed may not be all
		return nil, &CommandError{Command: command, Kind: err}
	}
	if err != nil {
		return nil, failure(command, cmd.ProcessState.ExitCode(), said.String())
	}
	return stdout.Bytes(), nil
}

func (t tools) find(name string) (string, error) {
	for _, dir := range t.dirs {
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no program %q in %s: install its package", name, strings.Join(t.dirs, ", "))
}

// kill ends a group of processes, first kindly: LVM ends between two steps then. What the program has said until then may tell what it
// waits for.
func (t tools) kill(ctx context.Context, group int, command string, ended <-chan error, said *speech) error {
	stubborn := ""
	failed := func() error {
		return &CommandError{Command: command, Kind: context.Cause(ctx), Words: strings.Trim(shown(said.String())+"; "+stubborn, "; ")}
	}
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		_ = unix.Kill(-group, signal)
		timer := time.NewTimer(t.end)
		select {
		case <-ended: //nolint:errcheck // how it ended says less than why
			timer.Stop()
			return failed()
		case <-timer.C:
			stubborn = fmt.Sprintf("process %d does not end on %s", group, signal)
		}
	}
	t.left.Add(1)
	go func() {
		<-ended //nolint:errcheck // that it ended is all there is to know
		t.left.Add(-1)
	}()
	return failed()
}

// speech keeps the beginning of what a program says. It may be read while the program goes on.
type speech struct {
	mu   sync.Mutex
	text []byte
}

// Write never fails: what is too much is dropped.
func (s *speech) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p[:min(len(p), maxHeard-len(s.text))]...)
	return len(p), nil
}

// String returns it in one line.
func (s *speech) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(strings.Fields(string(s.text)), " ")
}

// shown cuts words to what an error shows of them.
func shown(words string) string { return words[:min(len(words), maxWords)] }

// CommandError is a program that failed.
type CommandError struct {
	// Command is the program and its arguments.
	Command string
	// Code is its exit code, 0 if it did not get that far.
	Code int
	// Words are the program's own; of one that was killed also that it does not end, if it does not.
	Words string
	// Kind is one of this package's errors, or what kept the program from running; nil if it is not known.
	Kind error
}

// Error tells which command failed, and its own words.
func (e *CommandError) Error() string {
	text := e.Command
	if e.Kind != nil {
		text += ": " + e.Kind.Error()
	}
	if e.Code != 0 {
		text += fmt.Sprintf(": exit code %d", e.Code)
	}
	if e.Words != "" {
		text += ": " + e.Words
	}
	return text
}

// Unwrap returns the kind.
func (e *CommandError) Unwrap() error { return e.Kind }

// Kinds of errors, for errors.Is.
var (
	// ErrUnfit means that the thin pool is not as volumes need it.
	ErrUnfit = errors.New("thin pool is not fit for volumes")
	// ErrHangs means that a program was killed because it did not end. It is a [context.DeadlineExceeded].
	ErrHangs error = hangs{}

	errNoVolume = errors.New("logical volume not found")
	errExists   = errors.New("logical volume exists")
	errBusy     = errors.New("logical volume is in use")
)

type hangs struct{}

func (hangs) Error() string { return "killed" }

func (hangs) Is(target error) bool { return target == context.DeadlineExceeded }

// failure is a program that ended with an exit code. Its words, in the C locale, tell of what kind it is.
func failure(command string, code int, words string) error {
	e := &CommandError{Command: command, Code: code, Words: shown(words)}
	for _, known := range []struct {
		kind  error
		words []string
	}{
		{volume.ErrNoGroup, []string{"Cannot process volume group", "not found in Volume group"}},
		{errNoVolume, []string{"Failed to find logical volume"}},
		{errExists, []string{"already exists in volume group"}},
		{errBusy, []string{"contains a filesystem in use", "is used by another device", " in use", "Device or resource busy"}},
		{volume.ErrCapacity, []string{"insufficient free space", "Insufficient free", "reached threshold", "No space left"}},
	} {
		for _, text := range known.words {
			if e.Kind == nil && strings.Contains(words, text) {
				e.Kind = known.kind
			}
		}
	}
	return e
}
