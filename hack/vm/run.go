package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// diskSize is what the guest sees; on this machine a disk takes what is written to it.
	diskSize = 20 << 30
	// bootLimit is how long the guest may take until the first job begins, and jobGrace how much longer than its timeout
	// a job may take to come back. A guest that is silent for longer hangs.
	bootLimit = 5 * time.Minute
	jobGrace  = 2 * time.Minute
	// consoleLines is how much of the console an error shows.
	consoleLines = 40
)

// Options of a virtual machine.
type Options struct {
	// Accel is how instructions are executed; empty: Auto.
	Accel Accel
	// Memory in MiB; 0: 2048.
	Memory int
	// CPUs; 0: 2.
	CPUs int
	// Disks that the guest prepares.
	Disks []Disk
	// KeepDisks is a directory that keeps the disks for later machines; empty: they are new, and removed in the end.
	KeepDisks string
	// Network lets the guest reach this machine, at 10.0.2.2.
	Network bool
	// Input is a directory whose content the guest sees in /vm; empty: none. It is written to and must not be used again.
	Input string
	// Results is the directory for console.log and results/JOB/FILE; it is created.
	Results string
	// Output gets what the jobs print; nil drops it.
	Output io.Writer
	// Log gets progress; nil drops it.
	Log io.Writer
}

func (o Options) withDefaults() Options {
	if o.Accel == "" {
		o.Accel = Auto
	}
	if o.Memory == 0 {
		o.Memory = 2048
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	return o
}

// Run boots a machine, runs jobs in it one after the other, and returns their results when its power is off. What a job
// returns is in its result; an error means that the machine did not get to its end: then the results are those of the
// jobs that ended before, and the error shows the end of the console.
//
// The end of ctx is a power cut. A job's own timeout is kinder.
func (i *Image) Run(ctx context.Context, o Options, jobs []Job) ([]Result, error) {
	r, err := i.newRunning(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.done()
	if err := r.prepare(ctx, jobsPlan(r.Options, jobs)); err != nil {
		return nil, err
	}
	ctx, r.watchdog = watch(ctx, bootLimit, silence(jobs))
	defer r.watchdog.stop()
	failed := r.boot(ctx)
	results, err := r.results(jobs)
	return results, errors.Join(failed, err)
}

// running is a machine and its files.
type running struct {
	Options
	machine machine
	dir     string // files of this run
	done    func() // removes them
	start   time.Time
	events  map[string]bool // that came

	watchdog *watchdog
}

func (i *Image) newRunning(ctx context.Context, o Options) (*running, error) {
	o = o.withDefaults()
	accel, err := i.resolve(ctx, o.Accel, o.Log)
	if err != nil {
		return nil, err
	}
	dir, done, err := i.cache.newRun(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	m := machine{image: i, accel: accel, memory: o.Memory, cpus: o.CPUs, network: o.Network}
	return &running{Options: o, machine: m, dir: dir, done: done, events: map[string]bool{}}, nil
}

func (r *running) path(name string) string { return filepath.Join(r.dir, name) }

// prepare makes the disks.
func (r *running) prepare(ctx context.Context, plan string) error {
	start := time.Now()
	input := r.Input
	if input == "" {
		input = r.path("input")
		if err := os.Mkdir(input, 0o755); err != nil {
			return fmt.Errorf("make input disk: %w", err)
		}
	}
	if err := writeInput(ctx, input, plan, r.path("input.img")); err != nil {
		return err
	}
	r.machine.drives = []drive{
		{name: "root", file: r.machine.image.root(), snapshot: true},
		{name: "input", file: r.path("input.img")},
	}
	disks := r.KeepDisks
	if disks == "" {
		disks = r.dir
	}
	for _, disk := range r.Disks {
		file := filepath.Join(disks, string(disk)+".img")
		if err := createSparse(file, diskSize); err != nil {
			return err
		}
		r.machine.drives = append(r.machine.drives, drive{name: string(disk), file: file})
	}
	say(r.Log, "made the disks in %s", since(start))
	return nil
}

// boot runs the machine until its power is off.
func (r *running) boot(ctx context.Context) error {
	if err := os.RemoveAll(filepath.Join(r.Results, "results")); err != nil {
		return fmt.Errorf("remove old results: %w", err)
	}
	if err := os.MkdirAll(r.Results, 0o755); err != nil {
		return fmt.Errorf("create directory of results: %w", err)
	}
	output, err := newPipe()
	if err != nil {
		return err
	}
	defer output.close()
	results, err := newPipe()
	if err != nil {
		return err
	}
	defer results.close()
	console := filepath.Join(r.Results, "console.log")
	// QEMU opens its inherited descriptors by name; the first one is number 3.
	r.machine.ports = []port{{"output", "/dev/fd/3"}, {"results", "/dev/fd/4"}}
	args := append(r.machine.args(), "-chardev", "file,id=console,path="+escape(console), "-serial", "chardev:console")

	cmd := r.command(ctx, args)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.ExtraFiles = []*os.File{output.w, results.w}
	// An interrupt typed at the terminal is ours to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.start = time.Now()
	err = r.pump(cmd, output, results)
	return r.ended(ctx, err, said.String(), console)
}

func (r *running) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, qemu, args...)
	// Snapshots are files without a name in this directory.
	cmd.Env = append(os.Environ(), "TMPDIR="+r.dir)
	return cmd
}

// pump runs QEMU and takes what the guest sends, until both end.
func (r *running) pump(cmd *exec.Cmd, output, results *pipe) error {
	var readers sync.WaitGroup
	var received error
	readers.Go(func() { _, _ = io.Copy(r.Output, output.r) })
	readers.Go(func() {
		received = receive(results.r, r.Results, r.event)
		// Nobody may wait for a reader that gave up.
		_, _ = io.Copy(io.Discard, results.r)
	})
	err := run(cmd)
	output.closeWriter()
	results.closeWriter()
	readers.Wait()
	return errors.Join(err, received)
}

func (r *running) event(name string) {
	r.watchdog.feed()
	r.events[name] = true
	if job, ok := resultOf(name); ok {
		say(r.Log, "%s ended after %s", job, since(r.start))
	}
	switch name {
	case eventReady:
		say(r.Log, "booted and prepared %v with %s in %s", r.Disks, r.machine.accel, since(r.start))
	case eventFinished:
		say(r.Log, "finished after %s", since(r.start))
	}
}

var errHangs = errors.New("the guest hangs: it has sent nothing for too long")

// watchdog ends a context when the guest is silent for too long.
type watchdog struct {
	timer *time.Timer
	limit time.Duration
	stop  func()
}

// watch allows a time until the guest is fed first, and another one between two feedings.
func watch(ctx context.Context, first, limit time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(first, func() { cancel(errHangs) })
	stop := func() {
		timer.Stop()
		cancel(nil)
	}
	return ctx, &watchdog{timer: timer, limit: limit, stop: stop}
}

// silence gives how long a guest that runs jobs may send nothing.
func silence(jobs []Job) time.Duration {
	var longest time.Duration
	for _, job := range jobs {
		longest = max(longest, job.Timeout)
	}
	return longest + jobGrace
}

// feed gives the guest time until it sends something else.
func (w *watchdog) feed() { w.timer.Reset(w.limit) }

// ended tells why the machine did not get to its end, if so.
func (r *running) ended(ctx context.Context, err error, said, console string) error {
	if err == nil && r.events[eventFinished] {
		say(r.Log, "power off after %s", since(r.start))
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = errors.New("the guest ended too early")
	}
	text, readErr := os.ReadFile(console)
	if readErr != nil {
		text = []byte(readErr.Error())
	}
	return fmt.Errorf("run VM for %s: %w; %sthe console (%s) ends with:\n%s",
		since(r.start), err, said, console, lastLines(string(text), consoleLines))
}

// results gives the results of the jobs that ended, in their order.
func (r *running) results(jobs []Job) ([]Result, error) {
	var results []Result
	var errs []error
	for _, job := range jobs {
		result, err := readResult(r.Results, job.Name)
		if errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s did not end", job.Name))
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		results = append(results, result)
	}
	return results, errors.Join(errs...)
}

// pipe is read here and written by QEMU.
type pipe struct{ r, w *os.File }

func newPipe() (*pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	return &pipe{r, w}, nil
}

func (p *pipe) closeWriter() { _ = p.w.Close() }

func (p *pipe) close() {
	_ = p.w.Close()
	_ = p.r.Close()
}
