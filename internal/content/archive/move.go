package archive

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

// mover copies what is needed of old frames into new ones. One goroutine reads the old frames in order and fills blocks, so
// what lies in which is always the same; the others compress and store them.
type mover struct {
	c    *creation
	k    *compaction
	cur  movedBlock
	raw  []byte // the old frame at hand
	free chan []byte
	full chan movedBlock
}

// movedBlock is a new frame, decoded.
type movedBlock struct {
	frame uint32
	data  []byte
}

// move stores the content anew. It is false if that was not possible: then everything stays where it is, and the backup is
// as good as the one before.
func (k *compaction) move(ctx context.Context, c *creation) (bool, error) {
	shrink, ok := c.share.Grow(moverMemory)
	if !ok {
		return false, nil // there will be other backups
	}
	defer shrink()
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers, done := c.movers()
	defer done()
	m := &mover{c: c, k: k, free: make(chan []byte, workers+1), full: make(chan movedBlock, workers)}
	for range workers + 1 {
		m.free <- nil
	}
	var storing sync.WaitGroup
	for range workers {
		storing.Go(func() {
			if err := m.store(inner); err != nil {
				cancel(err)
			}
		})
	}
	if err := m.gather(inner); err != nil {
		cancel(err)
	}
	close(m.full)
	storing.Wait()
	faults.Point("archive.create.moved")
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return context.Cause(inner) == nil, nil
}

// movers returns how many workers there is memory for, and what gives it back.
func (c *creation) movers() (n int, done func()) {
	var grown []func()
	for len(grown)+1 < runtime.GOMAXPROCS(0) {
		shrink, ok := c.share.Grow(readerMemory)
		if !ok {
			break
		}
		grown = append(grown, shrink)
	}
	return len(grown) + 1, func() {
		for _, shrink := range grown {
			shrink()
		}
	}
}

// gather reads the old frames and fills blocks.
func (m *mover) gather(ctx context.Context) error {
	frames := make([]format.Frame, len(m.k.frames))
	for i, n := range m.k.frames {
		frames[i] = m.c.places.frames.list[n]
	}
	r, err := newOrderedReader(ctx, m.c.share, m.c.options.Source, m.c.options.Key, frames)
	if err != nil {
		return err
	}
	defer r.close()
	for _, n := range m.k.frames {
		if m.raw, err = r.read(ctx, m.raw); err != nil {
			return err
		}
		extents := m.k.extents[n]
		for i := range extents {
			if err := m.take(ctx, &extents[i]); err != nil {
				return err
			}
		}
	}
	return m.flush(ctx)
}

// take puts a stretch of the old frame at hand into the block at hand, or into a new one.
func (m *mover) take(ctx context.Context, x *movedExtent) error {
	data := m.raw[x.from:x.to]
	if len(m.cur.data)+len(data) > format.BlockSize {
		if err := m.flush(ctx); err != nil {
			return err
		}
	}
	if len(m.cur.data) == 0 {
		if err := m.begin(ctx, len(data)); err != nil {
			return err
		}
	}
	x.frame, x.off = m.cur.frame, uint32(len(m.cur.data))
	m.cur.data = append(m.cur.data, data...)
	return nil
}

// begin waits for a free buffer. Other writers may make frames that are larger than a block.
func (m *mover) begin(ctx context.Context, size int) error {
	select {
	case buf := <-m.free:
		if buf == nil || cap(buf) < size {
			buf = make([]byte, 0, max(size, format.BlockSize))
		}
		m.cur = movedBlock{frame: m.c.places.newFrame(), data: buf[:0]}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flush hands over the block at hand.
func (m *mover) flush(ctx context.Context) error {
	if len(m.cur.data) == 0 {
		return nil
	}
	select {
	case m.full <- m.cur:
		m.cur = movedBlock{}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// store is one worker that compresses and stores blocks.
func (m *mover) store(ctx context.Context) error {
	enc, err := format.NewEncoder()
	if err != nil {
		return fmt.Errorf("start encoder: %w", err)
	}
	var zstd []byte
	for b := range m.full {
		zstd = enc.Compress(zstd[:0], b.data)
		f, _, err := m.c.packer.put(ctx, format.FrameData, len(b.data), zstd, false)
		if err != nil {
			return err
		}
		m.c.places.setFrame(b.frame, f)
		m.free <- b.data[:0]
	}
	return nil
}
