package fair

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
)

// urgentInRow is how many urgent jobs are served in a row while a background one waits whose turn it could be.
const urgentInRow = 3

// Queue shares a number of units. Urgent jobs come first, but not only they; of the same priority the workspace comes first
// that has the least, and then the one that was served longest ago. A part of the units is kept for urgent jobs, so that no
// number of others, however slow, can hold them all.
//
// Whoever waits for units of several queues takes them in the same order as all others, and asks a queue only for what it needs
// at once: then nobody waits for somebody who waits for him.
type Queue struct {
	what       string
	size       int64
	background int64 // what background jobs have together at most

	mu      sync.Mutex
	used    int64
	usedBy  [Urgent + 1]int64 // by priority
	tenants map[string]*tenant
	waiting []*waiter // in the order in which they came
	served  uint64    // grants so far
	row     int       // urgent grants in a row while a background job waited
}

// tenant is a workspace that has something, or waits for it.
type tenant struct {
	held   int64
	waits  int    // calls
	served uint64 // number of the last grant
}

// waiter is a call of Acquire that has to wait.
type waiter struct {
	job
	n       int64
	granted chan struct{}
}

// NewQueue returns a queue of size units, of which a quarter, but at least one if there are several, is kept for urgent jobs. what
// names the units in errors.
func NewQueue(what string, size int64) *Queue {
	kept := max(size/4, min(size-1, 1))
	return &Queue{what: what, size: size, background: size - kept, tenants: map[string]*tenant{}}
}

// Acquire waits until the job of ctx may have n units more, and returns what gives them back, which is to be called once.
func (q *Queue) Acquire(ctx context.Context, n int64) (release func(), err error) {
	j := jobOf(ctx)
	if n > q.size {
		return nil, fmt.Errorf("%d %s are needed at once, and there are %d: raise the limit", n, q.what, q.size)
	}
	if err := q.await(ctx, q.enter(j, n)); err != nil {
		return nil, err
	}
	return func() { q.release(j, n) }, nil
}

// TryAcquire takes n units if that keeps nobody waiting: nobody waits now, what is kept for urgent jobs stays free, and a quarter of
// the rest. Whatever the job's priority, the units are taken as a background job's.
func (q *Queue) TryAcquire(ctx context.Context, n int64) (release func(), ok bool) {
	j := job{jobOf(ctx).workspace, Background}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 || q.usedBy[Background]+n > q.background-q.background/4 || q.used+n > q.background {
		return nil, false
	}
	q.grant(j, n)
	return func() { q.release(j, n) }, true
}

// Yield gives back n of the units that the job of ctx has, and waits until it may have them again: it is the turn of those who wait and
// have less. It has them after an error, too.
func (q *Queue) Yield(ctx context.Context, n int64) error {
	j := jobOf(ctx)
	q.release(j, n)
	err := q.await(ctx, q.enter(j, n))
	if err != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.grant(j, n) // more than there are, for as long as it takes to end
	}
	return err
}

// Crowded says whether somebody waits.
func (q *Queue) Crowded() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0
}

// Waiting is the number of calls that wait on behalf of a workspace.
func (q *Queue) Waiting(workspace string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tenants[workspace]; t != nil {
		return t.waits
	}
	return 0
}

func (q *Queue) enter(j job, n int64) *waiter {
	w := &waiter{job: j, n: n, granted: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, w)
	q.tenant(j.workspace).waits++
	q.dispatch()
	return w
}

func (q *Queue) await(ctx context.Context, w *waiter) error {
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	q.leave(w)
	return fmt.Errorf("wait for %d of %d %s: %w", w.n, q.size, q.what, context.Cause(ctx))
}

// leave ends a wait in vain. What was granted in the last moment goes back.
func (q *Queue) leave(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.remove(w) {
		q.giveBack(w.job, w.n)
	}
	q.forget(w.workspace)
	q.dispatch()
}

func (q *Queue) release(j job, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.giveBack(j, n)
	q.forget(j.workspace)
	q.dispatch()
}

// dispatch serves those who wait until the next one has to go on waiting: nobody overtakes him, or large wishes would never come
// true.
func (q *Queue) dispatch() {
	for {
		w, contested := q.next()
		if w == nil || q.used+w.n > q.size {
			return
		}
		if q.row++; !contested {
			q.row = 0
		}
		q.remove(w)
		q.grant(w.job, w.n)
		close(w.granted)
	}
}

// next returns whose turn it is, nil if nobody's, and whether that is an urgent job that a background one lets go first. Background
// jobs have a turn only as long as they have not too much together; that one alone wishes for more is all right.
func (q *Queue) next() (w *waiter, contested bool) {
	urgent, other := q.first(Urgent), q.first(Background)
	if other != nil && q.usedBy[Background] > 0 && q.usedBy[Background]+other.n > q.background {
		other = nil
	}
	if urgent == nil || other != nil && q.row >= urgentInRow {
		return other, false
	}
	return urgent, other != nil
}

// first returns the waiter of a priority that comes first.
func (q *Queue) first(p Priority) *waiter {
	var best *waiter
	for _, w := range q.waiting {
		if w.priority == p && (best == nil || q.order(w, best) < 0) {
			best = w
		}
	}
	return best
}

func (q *Queue) order(a, b *waiter) int {
	x, y := q.tenants[a.workspace], q.tenants[b.workspace]
	return cmp.Or(cmp.Compare(x.held, y.held), cmp.Compare(x.served, y.served))
}

func (q *Queue) tenant(workspace string) *tenant {
	t := q.tenants[workspace]
	if t == nil {
		t = &tenant{}
		q.tenants[workspace] = t
	}
	return t
}

// forget drops a tenant that has nothing and waits for nothing.
func (q *Queue) forget(workspace string) {
	if t := q.tenants[workspace]; t != nil && t.held == 0 && t.waits == 0 {
		delete(q.tenants, workspace)
	}
}

func (q *Queue) grant(j job, n int64) {
	t := q.tenant(j.workspace)
	q.served++
	t.held, t.served = t.held+n, q.served
	q.used += n
	q.usedBy[j.priority] += n
}

func (q *Queue) giveBack(j job, n int64) {
	q.tenant(j.workspace).held -= n
	q.used -= n
	q.usedBy[j.priority] -= n
}

// remove reports whether the waiter still waited.
func (q *Queue) remove(w *waiter) bool {
	i := slices.Index(q.waiting, w)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.tenants[w.workspace].waits--
	return true
}
