// Package memory bounds what the large buffers of a node's jobs take together.
package memory

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
)

// Budget is the memory that buffers may take together. A nil Budget has no bound.
//
// Buffers are used again by the next job, since whatever is left to the garbage collector stays in memory until it runs. What
// cannot be used again (it is too small, or somebody may still write to it) is collected before the budget is exceeded.
type Budget struct {
	queue *fair.Queue
	size  int64

	mu    sync.Mutex
	jobs  int
	rests int64 // bytes that jobs hold while they wait for their turn
	used  int64 // bytes of buffers in use
	idle  [][]byte
	kept  int64 // bytes of idle ones
	loose int64 // bytes let go since the last collection, at most: some of it may have been collected
}

// New returns a budget of limit bytes. An eighth of it is for what comes along with buffers and cannot be counted.
func New(limit int64) *Budget {
	size := limit - limit/8
	return &Budget{queue: fair.NewQueue("bytes of memory", size), size: size}
}

// Join waits until a job may use size bytes, which must be enough for all of it: it gets more only while nobody else needs it. A
// job joins before it holds anything that others wait for, and only once at a time, so that jobs never wait for each other in
// a circle. Who is served first is in ctx: see [fair.With].
func (b *Budget) Join(ctx context.Context, size int64) (*Share, error) {
	s := &Share{budget: b, ctx: context.WithoutCancel(ctx)}
	if b == nil {
		return s, nil
	}
	release, err := b.queue.Acquire(ctx, size)
	if err != nil {
		return nil, err
	}
	s.releases, s.held = append(s.releases, release), size
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs++
	return s, nil
}

// Waiting is how many jobs of a workspace wait.
func (b *Budget) Waiting(workspace string) int {
	if b == nil {
		return 0
	}
	return b.queue.Waiting(workspace)
}

// part notes that a job has ended. After the last one nobody may need buffers for long.
func (b *Budget) part() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs--; b.jobs == 0 {
		b.loose, b.kept, b.idle = b.loose+b.kept, 0, nil
	}
}

// rest notes that a job goes on holding so many bytes while it waits for others. All who do may hold half of the budget together: the other
// half is enough for each of them to go on.
func (b *Budget) rest(held int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rests+held > b.size/2 {
		return false
	}
	b.rests += held
	return true
}

func (b *Budget) goOn(held int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rests -= held
}

// take returns a buffer of that length. Of those that are idle it takes one that is not much too large.
func (b *Budget) take(size int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.collect()
	i := slices.IndexFunc(b.idle, func(buf []byte) bool { return cap(buf) >= size && cap(buf) <= size+size/4 })
	if i < 0 {
		b.makeRoom(int64(size))
		return make([]byte, size)
	}
	buf := b.idle[i]
	b.idle = slices.Delete(b.idle, i, i+1)
	b.kept -= int64(cap(buf))
	b.used += int64(cap(buf))
	b.collect()
	return buf[:size]
}

// makeRoom drops idle buffers, the oldest first, if there would be too much with size bytes more.
func (b *Budget) makeRoom(size int64) {
	for len(b.idle) > 0 && b.used+b.kept+size > b.size {
		n := int64(cap(b.idle[0]))
		b.kept, b.loose = b.kept-n, b.loose+n
		b.idle = slices.Delete(b.idle, 0, 1)
	}
	b.used += size
	b.collect()
}

// collect runs the garbage collector if what was let go would make it too much. Otherwise it would wait until the heap has doubled.
func (b *Budget) collect() {
	if b.loose > 0 && b.used+b.kept+b.loose > b.size {
		runtime.GC()
		b.loose = 0
	}
}

// waste notes memory that was no buffer and was let go.
func (b *Budget) waste(size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loose += size
}

// give takes back a buffer; one that somebody may still use is only let go.
func (b *Budget) give(buf []byte, reusable bool) {
	size := int64(cap(buf))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= size
	if !reusable {
		b.loose += size
		return
	}
	b.kept += size
	b.idle = append(b.idle, buf[:size])
}
