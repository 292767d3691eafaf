package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/scratch"
)

const (
	// stageOne and stageTwo are the names under which this program knows that it is to be a sandbox.
	stageOne = "ws-daemon-sandbox"
	stageTwo = "ws-daemon-task"
	// inputFD and outputFD are the pipes of both stages.
	inputFD  = 3
	outputFD = 4

	probeTask = "probe"
	probeUID  = 65534
	// keepWords is how much is kept of what a task writes to its standard error.
	keepWords = 4 << 10
)

// Limits of a task with all its processes; 0 is the default.
type Limits struct {
	// Memory in bytes, without what the kernel caches; default 1 GiB.
	Memory int64 `json:"memory"`
	// Processes is how many there may be at once, threads not counted; default 512.
	Processes int `json:"processes"`
	// FileSize is the size of the largest file that may be written; default unlimited.
	FileSize int64 `json:"fileSize,omitempty"`
}

func (l Limits) orDefault() Limits {
	if l.Memory == 0 {
		l.Memory = 1 << 30
	}
	if l.Processes == 0 {
		l.Processes = 512
	}
	return l
}

// Job is a task to run.
type Job struct {
	// Task is its name, one of those that [Enter] knows.
	Task string
	// Input is given to it as JSON, at most 4 MiB; it may hold credentials.
	Input any
	// Dir is the directory that the task works in, the only one of the node that it sees. Without a namespace of mounts, every
	// directory above must let UID pass (mode 0711 or wider).
	Dir string
	// ReadOnly lets the task only read it.
	ReadOnly bool
	// UID and GID are the task's user and group: what it makes is theirs, with umask 022.
	UID, GID uint32
	// Network lets it use the daemon's network.
	Network bool
	// Listen gives it a socket that listens on 127.0.0.1 ([Call.Listener]), for the programs that it starts; it needs Network.
	Listen bool
	// Limits of the task. Its time is limited by the context.
	Limits Limits
	// Progress is told what the task reports, if it is set. It must not block.
	Progress func(json.RawMessage)
	// Result takes what the task returns, from JSON; nil if nobody wants it.
	Result any
}

// Run runs a task to its end. Its own errors are of type *[TaskError]; the context's error says that it was stopped; [ErrLimit] and
// [ErrCrashed] that it came to no end of its own.
func (s *Sandbox) Run(ctx context.Context, job Job) error { return s.run(ctx, job, nil) }

func (s *Sandbox) run(ctx context.Context, job Job, lacks func(lack)) error {
	if s == nil {
		return errNone
	}
	if err := errors.Join(s.broken, ctx.Err()); err != nil {
		return err
	}
	p, err := s.start(ctx, job)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	why := p.watch(watching)
	answer, readErr := p.follow(job.Progress, lacks)
	stop()
	exceeded := <-why // from here on nobody else kills
	waitErr := p.end()
	if exceeded != "" { // also where it was late in the end: thousands take their time to die
		return fmt.Errorf("%w: %s", ErrLimit, exceeded)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if readErr != nil {
		return fmt.Errorf("%w: %w", ErrLimit, readErr)
	}
	return p.judge(answer, waitErr, job.Result)
}

// process is a task under way.
type process struct {
	cmd    *exec.Cmd
	input  *os.File // kept open: the task ends when it closes, whatever becomes of this process
	output *os.File
	words  *words
	task   string
	limits Limits
	// scratch is the task's directory for temporary files, nil if it has mounts of its own.
	scratch *scratch.Dir
}

func (s *Sandbox) start(ctx context.Context, job Job) (*process, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	p := &process{input: inW, output: outR, words: &words{}, task: job.Task, limits: job.Limits.orDefault()}
	p.cmd = s.command(ctx, job, inR, outW)
	p.cmd.Stderr = p.words
	p.scratch, err = s.scratch(job)
	if err == nil {
		err = p.cmd.Start()
	}
	_, _ = inR.Close(), outW.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the sandbox: %w", err), inW.Close(), outR.Close(), p.scratch.Remove())
	}
	go p.feed(s, job)
	return p, nil
}

// command is this program again, in namespaces of its own, without anything of this process but the two pipes.
func (s *Sandbox) command(ctx context.Context, job Job, in, out *os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{stageOne}
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{in, out}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: s.flagsOf(job)}
	if s.flags&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = identity(job.UID)
		cmd.SysProcAttr.GidMappings = identity(job.GID)
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (s *Sandbox) flagsOf(job Job) uintptr {
	if job.Network {
		return s.flags &^ syscall.CLONE_NEWNET
	}
	return s.flags
}

// identity maps root, who makes the sandbox, and the owner; nobody else exists in it.
func identity(id uint32) []syscall.SysProcIDMap {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	if id != 0 {
		ids = append(ids, syscall.SysProcIDMap{ContainerID: int(id), HostID: int(id), Size: 1})
	}
	return ids
}

// feed gives both stages what they have to know. A child that does not read is killed in time; then writing fails.
func (p *process) feed(s *Sandbox, job Job) {
	first := setup{
		Dir: job.Dir, ReadOnly: job.ReadOnly, Network: job.Network, Listen: job.Network && job.Listen, Scratch: taskPath(p.scratch), Visible: s.options.Visible, UID: job.UID, GID: job.GID,
		Flags: s.flagsOf(job), Limits: p.limits, Without: s.options.without,
	}
	input, err := json.Marshal(job.Input)
	if err == nil {
		err = send(p.input, first, maxInput)
	}
	if err == nil {
		err = send(p.input, order{Task: job.Task, Input: input}, maxInput)
	}
	if err != nil {
		_ = p.input.Close() // the child sees the end of its input and says so
	}
}

// follow reads messages until the last one. It returns nil if the task ended without any.
func (p *process) follow(progress func(json.RawMessage), lacks func(lack)) (*message, error) {
	for total := 0; ; {
		var m message
		n, err := receive(p.output, &m, maxMessage)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, nil
		}
		if total += n; err == nil && total > maxMessages {
			err = errTooLarge
		}
		switch {
		case err != nil:
			return nil, err
		case m.Lack != nil && lacks != nil:
			lacks(*m.Lack)
		case m.Progress != nil && progress != nil:
			progress(m.Progress)
		case m.Result != nil, m.Failure != nil:
			return &m, nil
		}
	}
}

// end kills what is left of the task, while the number of its first process cannot have been given to another.
func (p *process) end() error {
	pid := p.cmd.Process.Pid
	_ = unix.Kill(-pid, unix.SIGKILL)
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	err := p.cmd.Wait()
	_, _ = p.input.Close(), p.output.Close()
	_ = p.scratch.Remove() // what cannot be removed is swept by the next start
	return err
}

// judge turns what came back into an error or a result.
func (p *process) judge(answer *message, waitErr error, result any) error {
	switch {
	case answer == nil && p.words.outOfMemory():
		return fmt.Errorf("%w: it took more memory, %d MiB are allowed", ErrLimit, p.limits.Memory>>20)
	case answer == nil:
		return fmt.Errorf("%w: task %s: %w", ErrCrashed, p.task, waitErr) // its words may hold secrets
	case answer.Failure == nil && result == nil:
		return nil
	case answer.Failure == nil:
		return json.Unmarshal(answer.Result, result)
	}
	f := answer.Failure
	text := clean(f.Message, maxText)
	switch {
	case f.Limit:
		return fmt.Errorf("%w: %s", ErrLimit, text)
	case f.Setup:
		return fmt.Errorf("make the sandbox: %s", text)
	}
	return &TaskError{Kind: clean(f.Kind, 64), Message: text}
}

// words keeps the beginning of an output, where a crash says what happened.
type words struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p[:min(len(p), keepWords-w.buf.Len())])
	return len(p), nil
}

// outOfMemory says whether the task ended because the kernel gave it no more.
func (w *words) outOfMemory() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.buf.String()
	return strings.Contains(text, "fatal error: ") && (strings.Contains(text, "out of memory") || strings.Contains(text, "cannot allocate memory"))
}
