package content

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	// answerTime is how long a disk may take to answer what asks for no work.
	answerTime = 20 * time.Second
	// lastWords is the part of that, one in so many, which is left to a program that was ended to tell what it was at.
	lastWords = 10
)

// ErrHangs means that a disk does not answer.
var ErrHangs = fmt.Errorf("the disk does not answer: look at its device (dmesg), and for LVM at what lvs says on the node: %w", context.DeadlineExceeded)

// areaDisk stands for the disk of the working area.
const areaDisk = "the working area"

// answers are waited for with a deadline. Nobody can interrupt the kernel while it waits for a disk, so a question that has had its time
// goes on waiting in its goroutine; until it ends, nobody asks that disk anything else, so that they do not pile up.
type answers struct {
	mu      sync.Mutex
	waiting map[string]waiting // by disk
}

// waiting are the questions to a disk that were given up.
type waiting struct {
	since time.Time
	count int
}

// question is one of them.
type question struct{ ended, givenUp bool }

// inTime asks a disk, and gives the question a context that ends shortly before: the answer of a program that hangs and was killed says
// more than that there was none.
func inTime[T any](ctx context.Context, k *Keeper, disk string, put func(context.Context) (T, error)) (T, error) {
	var none T
	if err := k.answers.refuse(disk); err != nil {
		return none, err
	}
	patience := cmp.Or(k.Patience, answerTime)
	rest := patience / lastWords
	limited, cancel := context.WithTimeoutCause(ctx, patience-rest, fmt.Errorf("%s: %w", disk, ErrHangs))
	type answer struct {
		value T
		err   error
	}
	answered, q := make(chan answer, 1), &question{}
	go func() {
		defer cancel()
		value, err := put(limited)
		answered <- answer{value, err}
		k.answers.end(disk, q)
	}()
	select {
	case got := <-answered:
		return got.value, got.err
	case <-limited.Done():
	}
	cause := context.Cause(limited)
	hangs := errors.Is(cause, ErrHangs)
	if hangs {
		select {
		case got := <-answered:
			return got.value, got.err
		case <-time.After(rest):
		}
	}
	if k.answers.giveUp(disk, q, hangs) {
		return none, cause
	}
	got := <-answered
	return got.value, got.err
}

// refuse says why a disk is not asked now, nil if it may be.
func (a *answers) refuse(disk string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	w, hangs := a.waiting[disk]
	if !hangs {
		return nil
	}
	return fmt.Errorf("%s has not answered since %s: %w", disk, w.since.UTC().Format(time.DateTime), ErrHangs)
}

// giveUp reports whether a question is still without an answer, and remembers that if it is the disk's fault.
func (a *answers) giveUp(disk string, q *question, hangs bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q.ended || !hangs {
		return !q.ended
	}
	q.givenUp = true
	if a.waiting == nil {
		a.waiting = map[string]waiting{}
	}
	w := a.waiting[disk]
	if w.count++; w.count == 1 {
		w.since = time.Now()
	}
	a.waiting[disk] = w
	return true
}

// end takes note that a question got its answer, whether anybody waits for it or not.
func (a *answers) end(disk string, q *question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q.ended = true
	if !q.givenUp {
		return
	}
	w := a.waiting[disk]
	if w.count--; w.count == 0 {
		delete(a.waiting, disk)
		return
	}
	a.waiting[disk] = w
}

// diskOf names what a volume lies on: a disk of its own, or that of its class.
func (k *Keeper) diskOf(class, id string) string {
	if m, ok := k.Volumes[class].(volume.Mounter); ok && id != "" {
		return m.MountPoint(id)
	}
	return "volume class " + class
}
