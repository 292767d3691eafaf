package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Call is a task's way to its caller.
type Call struct {
	// Listener is the socket that the job asked for, else nil.
	Listener net.Listener

	input  json.RawMessage
	mu     sync.Mutex
	output io.Writer
}

// Decode reads the task's input.
func (c *Call) Decode(v any) error { return json.Unmarshal(c.input, v) }

// Report tells the caller of progress.
func (c *Call) Report(v any) {
	if data, err := json.Marshal(v); err == nil {
		_ = c.send(message{Progress: data}) // a caller that is gone ends the task in another way
	}
}

func (c *Call) send(m message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return send(c.output, m, maxMessage)
}

// Task is a function that runs in a sandbox, in the directory of its job. What it returns is handed over as JSON; a [Kinder] among its
// errors keeps its kind. It has no deadline of its own: it is killed when it is late.
type Task func(ctx context.Context, call *Call) (any, error)

// Enter makes this process a sandbox and runs a task, if it was started to do so, and then never returns. Every program that uses a
// [Sandbox] calls it first of all, before it does anything that a task must not inherit.
func Enter(tasks map[string]Task) {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case stageOne:
		enterFirst()
	case stageTwo:
		os.Exit(enterSecond(tasks))
	}
}

// enterFirst confines this thread and then becomes the second stage: what a thread is denied is denied to the program that it
// starts, with all its threads.
func enterFirst() {
	runtime.LockOSThread()
	input, output := os.NewFile(inputFD, "input"), os.NewFile(outputFD, "output")
	var s setup
	_, err := receive(input, &s, maxInput)
	if err == nil {
		err = confine(s, func(l lack) { _ = send(output, message{Lack: &l}, maxMessage) })
	}
	_ = send(output, message{Failure: &failure{Message: err.Error(), Setup: true}}, maxMessage)
	runtime.KeepAlive(input) // a collected file closes its descriptor, and the program that confine becomes reads from it
	os.Exit(1)
}

// enterSecond runs the task within all walls.
func enterSecond(tasks map[string]Task) int {
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) // it was lost with the change of the user
	unix.CloseOnExec(inputFD)
	unix.CloseOnExec(outputFD)
	input := os.NewFile(inputFD, "input")
	call := &Call{output: os.NewFile(outputFD, "output")}
	var o order
	if _, err := receive(input, &o, maxInput); err != nil {
		_ = call.send(message{Failure: &failure{Message: fmt.Sprintf("read the order: %v", err), Setup: true}})
		return 1
	}
	call.input = o.Input
	var err error
	if call.Listener, err = listener(os.Args[1:]); err != nil {
		_ = call.send(message{Failure: &failure{Message: fmt.Sprintf("take over the socket: %v", err), Setup: true}})
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, input) // until the daemon ends, or has what it wants
		killAll()
	}()
	return call.finish(run(ctx, tasks, o.Task, call))
}

// listener takes over the socket that the first stage has made, if it has.
func listener(args []string) (net.Listener, error) {
	if len(args) == 0 {
		return nil, nil
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer func() { _ = f.Close() }()
	return net.FileListener(f)
}

func run(ctx context.Context, tasks map[string]Task, name string, call *Call) (any, error) {
	task, ok := tasks[name]
	switch {
	case ok:
		return task(ctx, call)
	case name == probeTask:
		return struct{}{}, nil
	}
	return nil, fmt.Errorf("this program has no task %q", name)
}

// finish says what the task came to.
func (c *Call) finish(result any, err error) int {
	m := message{}
	if err == nil {
		m.Result, err = json.Marshal(result)
	}
	if err != nil {
		m = message{Failure: &failure{Message: clean(err.Error(), maxText)}}
		if k, ok := errors.AsType[Kinder](err); ok {
			m.Failure.Kind = k.ErrorKind()
		}
	}
	if err := c.send(m); err != nil {
		_ = c.send(message{Failure: &failure{Message: clean(err.Error(), maxText), Limit: errors.Is(err, errTooLarge)}})
		return 1
	}
	return 0
}

// killAll ends this process with all its children, which are in its group: none of them can leave it.
func killAll() {
	_ = unix.Kill(0, unix.SIGKILL)
	os.Exit(1)
}
