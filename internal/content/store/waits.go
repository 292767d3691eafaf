package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
)

// sayAfter is how long a request may take before anybody is told that it is waited for, without the time that its body may take: a
// network that is slow is no store that does not answer. An attempt that failed has shown which of them it is.
const sayAfter = 5 * time.Second

// Waits knows which requests wait for a store, on whose behalf, and since when. Nothing is decided by it: it is for people, who want to
// know while something takes long what it waits for, not only when it has failed. A nil Waits knows nothing.
type Waits struct {
	mu       sync.Mutex
	calls    map[*call]bool
	queued   map[string]int // requests that may not run yet, by workspace
	answered time.Time      // when the store answered last
}

// Wait is a request that waits for longer than most do.
type Wait struct {
	// Store is the URL of the store, without secrets.
	Store string
	// Since is when the request was made first.
	Since time.Time
	// Attempt counts from 1.
	Attempt int
	// Err is what the attempt before failed of; nil for the first.
	Err error
}

// String says what is waited for, since when, and what to do. It does not count attempts: conditions show it, and each change of it is a
// write for each workspace that waits, on all nodes when the store is down.
func (w Wait) String() string {
	since := w.Since.UTC().Format(time.DateTime)
	const todo = "see that it runs and can be reached from here; it is asked again by itself"
	if w.Err == nil {
		return fmt.Sprintf("the store %s has not answered since %s: %s", w.Store, since, todo)
	}
	return fmt.Sprintf("the store %s has failed since %s (%v): %s", w.Store, since, w.Err, todo)
}

// Of returns the oldest wait of a workspace, by the name that [fair.With] was given; nil if there is none. What its requests wait for that
// may not run yet, because others do, is what these wait for.
func (w *Waits) Of(workspace string) *Wait {
	own := w.oldest(func(c *call) bool { return c.workspace == workspace })
	if own == nil && w.hasQueued(workspace) {
		return w.Any()
	}
	return own
}

func (w *Waits) hasQueued(workspace string) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queued[workspace] > 0
}

// queue takes note of a request that may not run yet, until the function that it returns is called.
func (w *Waits) queue(ctx context.Context) (arrived func()) {
	if w == nil {
		return func() {}
	}
	workspace := fair.Workspace(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queued == nil {
		w.queued = map[string]int{}
	}
	w.queued[workspace]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.queued[workspace]--; w.queued[workspace] == 0 {
			delete(w.queued, workspace)
		}
	}
}

// Any returns the oldest wait of anybody, as long as the store has answered nobody since it began: then it keeps waiting also those
// whose turn has not come. It is nil if there is none.
func (w *Waits) Any() *Wait {
	return w.oldest(func(c *call) bool { return c.began.After(w.answered) })
}

func (w *Waits) oldest(concerns func(*call) bool) *Wait {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var found *call
	for c := range w.calls {
		if concerns(c) && c.takesLong() && (found == nil || c.began.Before(found.began)) {
			found = c
		}
	}
	if found == nil {
		return nil
	}
	return &Wait{Store: found.store, Since: found.began, Attempt: found.attempt, Err: found.err}
}

// call is a request with all its attempts. The nil one is of nobody's interest.
type call struct {
	waits            *Waits
	workspace, store string
	began            time.Time
	body             int
	attempt          int
	err              error
}

// begin takes note of a request with so many bytes of body.
func (w *Waits) begin(ctx context.Context, s Store, body int) *call {
	if w == nil {
		return nil
	}
	c := &call{waits: w, workspace: fair.Workspace(ctx), store: s.String(), began: time.Now(), body: body, attempt: 1}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == nil {
		w.calls = map[*call]bool{}
	}
	w.calls[c] = true
	return c
}

// failed takes note that another attempt is needed.
func (c *call) failed(err error) {
	if c == nil {
		return
	}
	c.waits.mu.Lock()
	defer c.waits.mu.Unlock()
	c.attempt++
	c.err = err
}

// end takes note that nobody waits for the request any more. An error that no repetition changes is an answer, too.
func (c *call) end(err error) {
	if c == nil {
		return
	}
	c.waits.mu.Lock()
	defer c.waits.mu.Unlock()
	delete(c.waits.calls, c)
	if err == nil || final(err) {
		c.waits.answered = time.Now()
	}
}

func (c *call) takesLong() bool {
	patience := sayAfter
	if c.err == nil {
		patience += time.Duration(c.body/slowestRate) * time.Second
	}
	return time.Since(c.began) >= patience
}
