package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Reasons for which a job's context ends; [State.Err] of a job that ended for one of them wraps it.
var (
	// ErrCancelled is the cause after [Manager.Cancel].
	ErrCancelled = errors.New("job cancelled")
	// ErrTimeout is the cause when a job ran for longer than its timeout.
	ErrTimeout = errors.New("job timed out")
	// ErrShuttingDown is the cause after [Manager.Shutdown]; no State ever shows it.
	ErrShuttingDown = errors.New("daemon is shutting down")
)

// errExited is the result of a function that ended its goroutine instead of returning.
var errExited = errors.New("job ended its goroutine without returning")

// Key names a job.
type Key struct {
	// UID of the object for which the job works.
	UID string
	// Op is the operation, "backup" for example.
	Op string
}

// String returns "op uid", for messages.
func (k Key) String() string { return k.Op + " " + k.UID }

// Class is a kind of work with a limit of its own, "initialize" or "backup" for example.
type Class string

// Phase tells how far a job is.
type Phase string

// The phases of a job, in the order in which it passes them.
const (
	// None means that there is no such job.
	None Phase = ""
	// Queued means that the class is full; the timeout does not count yet.
	Queued Phase = "Queued"
	// Running means that the function was called and did not return yet.
	Running Phase = "Running"
	// Done means that the result waits for [Manager.Forget].
	Done Phase = "Done"
)

// Progress is how much of a job is done. A total of 0 is not known yet.
type Progress struct {
	FilesDone, FilesTotal int64
	BytesDone, BytesTotal int64
}

// Func is the work of a job. It has to return soon after ctx ended; context.Cause(ctx) tells why it did. It may call
// report as often as it likes, from any goroutine.
type Func func(ctx context.Context, report func(Progress)) (any, error)

// State is what is known about a job.
type State struct {
	Phase Phase
	Class Class
	// Queued is when the job was accepted, Started when its function was called, Ended when that returned.
	Queued, Started, Ended time.Time
	Progress               Progress
	// Overdue says that a running job had its time and does not return, as one that waits for a disk that hangs. Others may run in its
	// place meanwhile.
	Overdue bool
	// Result and Err are what the function returned; both only of a job that is Done.
	Result any
	Err    error
}

// Clock tells the time that is shown in a State. Timeouts always use the system's clock.
type Clock interface {
	Now() time.Time
}

// PanicError is the error of a job that panicked. The caller logs the stack; the message does not contain it.
type PanicError struct {
	// Value is what was given to panic.
	Value any
	// Stack of the goroutine that panicked.
	Stack []byte
}

// Error returns the value of the panic.
func (e *PanicError) Error() string { return fmt.Sprintf("job panicked: %v", e.Value) }

// Unwrap returns the value of the panic if that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }
