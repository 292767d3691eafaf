package archive

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

// pageReader reads pages of a manifest and hands them over in their order.
type pageReader struct {
	source  Source
	key     *format.Key
	share   *memory.Share // nil: there is enough
	refs    []format.PageRef
	limit   int   // of connections; 0: the usual one
	gap     int64 // how much of no use is read to save a request
	atOnce  bool  // few are wanted: the first request may be as large as any
	keep    bool  // hand over the stored bytes, too
	salvage bool  // hand over errors instead of ending
	each    func(page readPage) error

	order []int // of refs, by place
	mu    sync.Mutex
	done  []*readPage
	next  int
}

// readPage is a page that was read, or why it was not.
type readPage struct {
	number int // in the refs
	page   *format.Page
	stored []byte
	err    error
}

// openTable decodes the page table of a root and checks that its pages can be where it says.
func openTable(root Root, key *format.Key) ([]format.PageRef, error) {
	d, err := format.NewDecoder()
	if err != nil {
		return nil, fmt.Errorf("start decoder: %w", err)
	}
	defer d.Close()
	refs, err := d.Table(key, root.Table)
	if err != nil {
		return nil, fmt.Errorf("read page table: %w", err)
	}
	if len(refs) == 0 {
		return nil, damagedf("read page table: it has no pages")
	}
	p := newPlanner(root, nil).plan
	if len(p.packs) < len(root.Packs) {
		return nil, damagedf("read page table: a pack is listed twice")
	}
	for i := range refs {
		if err := p.checkFrame(&refs[i].Frame); err != nil {
			return nil, fmt.Errorf("read page table: page %d: %w", i, err)
		}
	}
	return refs, nil
}

func (r *pageReader) run(ctx context.Context) error {
	frames := r.sort()
	r.done = make([]*readPage, len(r.refs))
	workers := min(runtime.GOMAXPROCS(0), len(frames), maxConnections)
	decoders := make([]*format.Decoder, workers)
	for i := range decoders {
		d, err := format.NewDecoder()
		if err != nil {
			return fmt.Errorf("start decoder: %w", err)
		}
		defer d.Close()
		decoders[i] = d
	}
	fr := frameReader{source: r.source, share: r.share, frames: frames, limit: r.limit, gap: r.gap, atOnce: r.atOnce, oneByOne: r.salvage}
	return fr.run(ctx, workers, func(_ context.Context, w, frame int, stored []byte, err error) error {
		return r.decode(decoders[w], r.order[frame], stored, err)
	})
}

// sort returns the frames of the pages by place.
func (r *pageReader) sort() []format.Frame {
	rank := map[format.PackID]int{}
	r.order = make([]int, len(r.refs))
	for i := range r.refs {
		r.order[i] = i
		if _, known := rank[r.refs[i].Frame.Pack]; !known {
			rank[r.refs[i].Frame.Pack] = i
		}
	}
	slices.SortFunc(r.order, func(a, b int) int {
		x, y := &r.refs[a].Frame, &r.refs[b].Frame
		return cmp.Or(cmp.Compare(rank[x.Pack], rank[y.Pack]), cmp.Compare(x.Offset, y.Offset))
	})
	frames := make([]format.Frame, len(r.refs))
	for i, n := range r.order {
		frames[i] = r.refs[n].Frame
	}
	return frames
}

func (r *pageReader) decode(d *format.Decoder, number int, stored []byte, err error) error {
	out := &readPage{number: number}
	ref := &r.refs[number]
	if err == nil {
		out.page, err = d.Page(r.key, *ref, stored)
	}
	if err != nil {
		err = fmt.Errorf("read the page of %s (frame %d of pack %v): %w", display(ref.First), ref.Frame.Index, ref.Frame.Pack, err)
		out.err = &PackError{ref.Frame.Pack, err}
		if !r.salvage {
			return out.err
		}
	}
	if r.keep {
		out.stored = slices.Clone(stored)
	}
	return r.deliver(out)
}

// deliver hands over what is complete in order.
func (r *pageReader) deliver(p *readPage) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[p.number] = p
	for r.next < len(r.done) && r.done[r.next] != nil {
		ready := r.done[r.next]
		r.done[r.next] = nil
		r.next++
		if err := r.each(*ready); err != nil {
			return err
		}
	}
	return nil
}
