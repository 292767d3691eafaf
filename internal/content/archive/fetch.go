package archive

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

const (
	// rangeSize is how much one request reads at most, unless a single frame is larger. What needs few connections has
	// cheap requests, and gets smaller ones.
	rangeSize      = 8 << 20
	smallRangeSize = 1 << 20
	fewConnections = 2
	// firstRange is the size of the first request; the next ones double it, so that work begins early.
	firstRange = 1 << 20
	// rangeGap is how much of no use is read to save a request.
	rangeGap = 256 << 10
	// maxConnections bounds the requests that run at once.
	maxConnections = 8
	// spareBuffers are those that are worked on while all connections fill others: one for each worker, up to this many.
	spareBuffers = 3
	// patience is how long a worker waits before it opens another connection: a local store never needs many.
	patience = 3 * time.Millisecond
)

// frameHandler gets the stored bytes of a frame, or why they could not be read. An error ends the reading.
type frameHandler func(ctx context.Context, worker, frame int, stored []byte, err error) error

// frameReader reads frames by few requests into few buffers, and hands them to several workers as they come. Neighbours go
// to the same worker as long as there is enough for all: what they hold is likely to go into the same directory.
type frameReader struct {
	source   Source
	share    *memory.Share  // nil: there is enough
	frames   []format.Frame // in the order of their places in the packs
	limit    int            // of connections; 0: maxConnections
	gap      int64          // how much of no use is read to save a request
	atOnce   bool           // few frames are wanted: the first request may be as large as any
	oneByOne bool           // where a range cannot be read, its frames are tried one by one

	workers int
	spans   []span
	size    int64 // of a buffer
	ready   chan *chunk
	free    chan []byte
	large   chan struct{} // the right to one buffer for a frame that fits into no other
	wg      sync.WaitGroup
	mu      sync.Mutex
	next    int // span
	open    int // connections
	opened  int // connections ever
	made    int // buffers
	grown   []func()
	work    []*chunk
}

// span is a stretch of a pack that one request reads.
type span struct {
	from, to int // frames
	offset   int64
	length   int64
}

// chunk is a span that was read. Workers take its frames one after the other.
type chunk struct {
	span
	data []byte
	errs []error // of each frame; nil if there are none
	next atomic.Int64
	left atomic.Int64
	done func() // gives the memory back
}

// take returns the next frame, or false if all are taken.
func (c *chunk) take() (int, bool) {
	i := c.from + int(c.next.Add(1)) - 1
	return i, i < c.to
}

// taken reports whether all frames are taken.
func (c *chunk) taken() bool { return int(c.next.Load()) >= c.to-c.from }

func (c *chunk) release() {
	if c.left.Add(-1) == 0 {
		c.done()
	}
}

func (c *chunk) err(frame int) error {
	if c.errs == nil {
		return nil
	}
	return c.errs[frame-c.from]
}

// run gives each frame to one of the workers, in no certain order.
func (r *frameReader) run(ctx context.Context, workers int, handle frameHandler) error {
	if len(r.frames) == 0 {
		return ctx.Err()
	}
	r.plan()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var working sync.WaitGroup
	r.workers = workers
	for w := range workers {
		working.Go(func() {
			if err := r.serve(ctx, w, handle); err != nil {
				cancel(err)
			}
		})
	}
	working.Wait()
	err := context.Cause(ctx)
	cancel(nil)
	r.wg.Wait()
	r.putBack()
	return err
}

// putBack gives back all buffers. After an error some may still be in use.
func (r *frameReader) putBack() {
	for len(r.free) > 0 {
		r.share.Put(<-r.free)
	}
	for _, shrink := range r.grown {
		shrink()
	}
}

// plan cuts the frames into spans.
func (r *frameReader) plan() {
	if r.limit <= 0 || r.limit > maxConnections {
		r.limit = maxConnections
	}
	if r.share == nil {
		r.share = unbounded()
	}
	limit, most := int64(firstRange), int64(rangeSize)
	switch {
	case r.atOnce:
		limit = most
	case r.limit <= fewConnections:
		most = smallRangeSize
	}
	for i := range r.frames {
		f := &r.frames[i]
		end := int64(f.Offset) + int64(f.Stored)
		if n := len(r.spans); n > 0 && r.joins(&r.spans[n-1], f, limit) {
			last := &r.spans[n-1]
			last.to, last.length = i+1, max(last.length, end-last.offset)
		} else {
			if n > 0 {
				limit = min(2*limit, most)
			}
			r.spans = append(r.spans, span{from: i, to: i + 1, offset: int64(f.Offset), length: int64(f.Stored)})
		}
		r.size = max(r.size, min(r.spans[len(r.spans)-1].length, rangeSize))
	}
	r.ready = make(chan *chunk, maxConnections+spareBuffers) // as many as there are buffers: nobody waits to hand one over
	r.free = make(chan []byte, maxConnections+spareBuffers)
	r.large = make(chan struct{}, 1)
}

func (r *frameReader) joins(s *span, f *format.Frame, limit int64) bool {
	offset := int64(f.Offset)
	return r.frames[s.from].Pack == f.Pack && offset-(s.offset+s.length) <= r.gap && offset+int64(f.Stored)-s.offset <= limit
}

// serve is one worker.
func (r *frameReader) serve(ctx context.Context, worker int, handle frameHandler) error {
	w := frameWorker{r: r}
	for {
		c, frame, err := w.take(ctx)
		if c == nil || err != nil {
			return err
		}
		f := &r.frames[frame]
		at := int64(f.Offset) - c.offset
		err = handle(ctx, worker, frame, c.data[at:at+int64(f.Stored)], c.err(frame))
		c.release()
		if err != nil {
			return err
		}
	}
}

// frameWorker takes frames for one worker.
type frameWorker struct {
	r   *frameReader
	own *chunk // that it began
}

// take returns a frame: of the worker's own chunk, of a new one, or of what another one works on. Without a chunk there are
// no more. Whoever has to wait opens connections, one after the other.
func (w *frameWorker) take(ctx context.Context) (*chunk, int, error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if c, frame := w.pick(); c != nil {
		return c, frame, nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		w.r.connect(ctx)
		select {
		case c, ok := <-w.r.ready:
			if ok {
				w.begin(c)
			}
			if c, frame := w.pick(); c != nil || !ok {
				return c, frame, nil
			}
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		case <-timer.C:
			timer.Reset(patience)
		}
	}
}

// pick returns a frame that need not be waited for.
func (w *frameWorker) pick() (*chunk, int) {
	for {
		if w.own != nil {
			if frame, ok := w.own.take(); ok {
				return w.own, frame
			}
		}
		select {
		case c, ok := <-w.r.ready:
			if ok {
				w.begin(c)
				continue
			}
		default:
		}
		return w.r.help()
	}
}

func (w *frameWorker) begin(c *chunk) {
	w.own = c
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.work = append(slices.DeleteFunc(w.r.work, (*chunk).taken), c)
}

// help returns a frame of a chunk that somebody works on.
func (r *frameReader) help() (*chunk, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.work {
		if frame, ok := c.take(); ok {
			return c, frame
		}
	}
	return nil, 0
}

func (r *frameReader) connect(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == r.limit || r.next == len(r.spans) {
		return
	}
	r.open++
	r.opened = max(r.opened, r.open)
	r.wg.Go(func() { r.fetch(ctx) })
}

// fetch reads spans until there are no more.
func (r *frameReader) fetch(ctx context.Context) {
	defer r.disconnect()
	for {
		buf, err := r.buffer(ctx)
		if err != nil {
			return
		}
		i, ok := r.claim()
		if !ok {
			r.free <- buf
			return
		}
		if !r.fetchSpan(ctx, &r.spans[i], buf) {
			return
		}
	}
}

func (r *frameReader) disconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	if r.open == 0 && r.next == len(r.spans) {
		close(r.ready)
	}
}

func (r *frameReader) claim() (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == len(r.spans) {
		return 0, false
	}
	r.next++
	return r.next - 1, true
}

// buffer returns a free buffer, or a new one if there may be more.
func (r *frameReader) buffer(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-r.free:
		return buf, nil
	default:
	}
	if r.another() {
		return r.share.Get(int(r.size)), nil
	}
	select {
	case buf := <-r.free:
		return buf, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// another says whether there may be one more buffer: the first one in any case, others as long as nobody needs the memory.
func (r *frameReader) another() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made >= r.opened+min(r.workers, spareBuffers) {
		return false
	}
	if r.made > 0 {
		shrink, ok := r.share.Grow(r.size)
		if !ok {
			return false
		}
		r.grown = append(r.grown, shrink)
	}
	r.made++
	return true
}

// fetchSpan reads a span and hands it over; false means that nobody wants it any more.
func (r *frameReader) fetchSpan(ctx context.Context, s *span, buf []byte) bool {
	c := &chunk{span: *s, data: buf, done: func() { r.free <- buf }}
	c.left.Store(int64(s.to - s.from))
	if s.length > int64(len(buf)) {
		select {
		case r.large <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		c.data = make([]byte, s.length)
		c.done = func() { <-r.large; r.free <- buf }
	}
	c.data = c.data[:s.length]
	if err := r.source.ReadPack(ctx, r.frames[s.from].Pack, s.offset, c.data); err != nil {
		r.share.Forget(buf) // it may still be written to
		buf = r.share.Get(int(r.size))
		r.failed(ctx, c, err)
	}
	select {
	case r.ready <- c:
		return true
	case <-ctx.Done():
		return false
	}
}

// failed notes what could not be read, perhaps after trying each frame on its own, into memory that nobody else writes to.
func (r *frameReader) failed(ctx context.Context, c *chunk, err error) {
	c.errs, c.data = make([]error, c.to-c.from), make([]byte, c.length)
	for i := range c.errs {
		c.errs[i] = err
		if f := &r.frames[c.from+i]; r.oneByOne && len(c.errs) > 1 {
			at := int64(f.Offset) - c.offset
			c.errs[i] = r.source.ReadPack(ctx, f.Pack, int64(f.Offset), c.data[at:at+int64(f.Stored)])
		}
	}
}
