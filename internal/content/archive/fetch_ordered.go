package archive

import (
	"context"
	"fmt"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

// aheadSpans is how many requests run ahead of what is being read in order.
const aheadSpans = 2

// orderedReader reads frames in a given order, by requests that run ahead.
type orderedReader struct {
	share   *memory.Share
	source  Source
	key     *format.Key
	frames  []format.Frame // in the order in which they are wanted
	decoder *format.Decoder
	cancel  context.CancelFunc
	running sync.WaitGroup
	queue   chan *orderedSpan // in order
	free    chan []byte
	current *orderedSpan
	next    int // frame
}

// orderedSpan is a request that runs, or has ended.
type orderedSpan struct {
	span
	data []byte
	err  error
	done chan struct{}
}

func newOrderedReader(ctx context.Context, share *memory.Share, source Source, key *format.Key, frames []format.Frame) (*orderedReader, error) {
	d, err := format.NewDecoder()
	if err != nil {
		return nil, fmt.Errorf("start decoder: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &orderedReader{share: share, source: source, key: key, frames: frames, decoder: d, cancel: cancel, queue: make(chan *orderedSpan, aheadSpans)}
	r.free = make(chan []byte, aheadSpans+2)
	r.running.Go(func() { r.request(ctx, cutInOrder(frames)) })
	return r, nil
}

func (r *orderedReader) close() {
	r.cancel()
	r.running.Wait()
	for len(r.free) > 0 {
		r.share.Put(<-r.free)
	}
	r.decoder.Close()
}

// cutInOrder joins frames that follow each other in a pack.
func cutInOrder(frames []format.Frame) []span {
	fr := frameReader{frames: frames, gap: rangeGap}
	var spans []span
	for i := range frames {
		f := &frames[i]
		if n := len(spans); n > 0 && int64(f.Offset) >= spans[n-1].offset+spans[n-1].length && fr.joins(&spans[n-1], f, rangeSize) {
			last := &spans[n-1]
			last.to, last.length = i+1, int64(f.Offset)+int64(f.Stored)-last.offset
			continue
		}
		spans = append(spans, span{from: i, to: i + 1, offset: int64(f.Offset), length: int64(f.Stored)})
	}
	return spans
}

// request starts the requests one after the other; those that wait to be read bound their number.
func (r *orderedReader) request(ctx context.Context, spans []span) {
	defer close(r.queue)
	for _, s := range spans {
		o := &orderedSpan{span: s, done: make(chan struct{})}
		select {
		case r.queue <- o:
		case <-ctx.Done():
			return
		}
		r.running.Go(func() {
			defer close(o.done)
			o.data = r.buffer(o.length)
			o.err = r.source.ReadPack(ctx, r.frames[o.from].Pack, o.offset, o.data)
		})
	}
}

// buffer returns one that was used before, if it is large enough.
func (r *orderedReader) buffer(size int64) []byte {
	select {
	case b := <-r.free:
		if int64(cap(b)) >= size {
			return b[:size]
		}
		r.share.Put(b)
	default:
	}
	return r.share.Get(int(max(size, min(int64(len(r.frames))*format.BlockSize, rangeSize))))[:size]
}

// recycle takes back a buffer; when there are enough, it is let go.
func (r *orderedReader) recycle(b []byte) {
	select {
	case r.free <- b:
	default:
		r.share.Put(b)
	}
}

// read returns the next frame, decoded into buf if that is large enough.
func (r *orderedReader) read(ctx context.Context, buf []byte) ([]byte, error) {
	f := &r.frames[r.next]
	if r.current == nil || r.next >= r.current.to {
		if err := r.advance(ctx); err != nil {
			return nil, ofFrame(f, err)
		}
	}
	at := int64(f.Offset) - r.current.offset
	r.next++
	data, err := r.decoder.OpenFrame(buf, r.key, *f, format.FrameData, r.current.data[at:at+int64(f.Stored)])
	if err != nil {
		return nil, &PackError{f.Pack, err}
	}
	return data, nil
}

func (r *orderedReader) advance(ctx context.Context) error {
	if r.current != nil && r.current.err == nil { // else it may still be written to
		r.recycle(r.current.data)
	}
	select {
	case r.current = <-r.queue:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if r.current == nil { // the requests have ended because of the context
		return context.Canceled
	}
	select {
	case <-r.current.done:
		return r.current.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
