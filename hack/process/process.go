// Package process runs programs as children that die with the process that started them, however it ends.
package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is a child. Its methods may be called from several goroutines.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // how it ended; valid when done is closed
}

// Start starts a program by its path. It appends what it prints to the file log, which only the caller's user can read. Its
// environment is env, the caller's if that is nil.
func Start(log string, env []string, program string, args ...string) (*Process, error) {
	name := filepath.Base(program)
	file, err := os.OpenFile(filepath.Clean(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{log: log, done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: program, Args: append([]string{program}, args...), Env: env, Stdout: file, Stderr: file,
		// An own group keeps an interrupt typed at the terminal from ending a server before its clients.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	started := make(chan error, 1)
	go p.run(file, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// run holds its thread for the life of the child: the kernel sends the parent-death signal when the thread ends that started
// the child, not when the process does.
func (p *Process) run(log *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	defer func() { _ = log.Close() }()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
	}
}

// Pid is its process id, also after it has ended.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Alive says whether the process runs; no process does not.
func (p *Process) Alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Err waits until the process has ended and returns how: nil is exit status 0.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends a signal. One that has ended does not get it.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Stop ends the process by SIGTERM, and by SIGKILL if that takes longer than grace, and returns how it ended. It is harmless
// on one that has ended, and on no process.
func (p *Process) Stop(grace time.Duration) error {
	if p == nil {
		return nil
	}
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Signal(syscall.SIGKILL)
	}
	return p.Err()
}

// Tail returns the last lines of the log, or why it cannot be read.
func (p *Process) Tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return LastLines(string(text), lines)
}

// LastLines returns the last n lines of a text, without the line break at its end.
func LastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Pause waits for d or the end of ctx.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
