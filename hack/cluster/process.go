package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a process may take to end by itself.
	stopGrace = 5 * time.Second
	// pollInterval is the time between two looks at something that is starting.
	pollInterval = 50 * time.Millisecond
)

// process is a running child.
type process struct {
	name string
	log  string // its output
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; valid when done is closed
}

// startProcess starts a program that appends its output to NAME.log in dir. It dies with this process.
func startProcess(dir, name, program string, args []string) (*process, error) {
	path := filepath.Join(dir, name+".log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: path, done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path:   program,
		Args:   append([]string{program}, args...),
		Stdout: file,
		Stderr: file,
		SysProcAttr: &syscall.SysProcAttr{
			// An own group keeps an interrupt typed at the terminal from killing the store before its client.
			Setpgid:   true,
			Pdeathsig: syscall.SIGKILL,
		},
	}
	started := make(chan error, 1)
	go p.run(file, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// run holds its thread for the life of the child: the parent-death signal is sent when the thread that started the
// child ends, not when the process does.
func (p *process) run(log *os.File, started chan<- error) {
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

// stop ends the process, by force if it takes too long. It is harmless on one that has ended, and on none.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// wait calls check until it succeeds, the process ends, or ctx does.
func (p *process) wait(ctx context.Context, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return p.alive()
		}
		if dead := p.alive(); dead != nil {
			return dead
		}
		if pause(ctx, pollInterval) != nil {
			return fmt.Errorf("wait for %s: %w; it says:\n%s", p.name, err, p.tail())
		}
	}
}

// alive gives an error with the last words of a process that has ended. A check that succeeds is not enough to know
// that it runs: something else may answer on its port.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended (%w); its last words:\n%s", p.name, exitError(p.err), p.tail())
	default:
		return nil
	}
}

func exitError(err error) error {
	if err == nil {
		return fmt.Errorf("exit status 0")
	}
	return err
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(text), 15)
}
