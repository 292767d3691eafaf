package archive

import (
	"bufio"
	"container/list"
	"context"
	"fmt"
	"io"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// exportCache is how much decoded content an export keeps, in bytes: an incremental backup has neighbours in several frames.
const exportCache = 32 << 20

// ExportMemory is what an export takes of memory, in bytes, besides the manifest.
const ExportMemory = exportCache + moverMemory

// Export writes the tree of a backup as a tar in the PAX format. It keeps what a tar can keep, and holes and extended
// attributes as GNU tar does; what could not be read when the backup was made is left out. After an error the output is not
// complete, which shows by its missing end.
func Export(ctx context.Context, root Root, source Source, key *format.Key, w io.Writer) error {
	p, err := loadPlan(ctx, root, source, key)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	out := bufio.NewWriterSize(w, 256<<10)
	x := &exporter{plan: p, tar: tarWriter{w: out}, cache: newFrameCache(p, exportCache)}
	if x.frames, err = newOrderedReader(ctx, unbounded(), source, key, p.exportOrder()); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer x.frames.close()
	if err = x.run(ctx); err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// loadPlan reads a whole manifest.
func loadPlan(ctx context.Context, root Root, source Source, key *format.Key) (*plan, error) {
	refs, err := openTable(root, key)
	if err != nil {
		return nil, err
	}
	b := newPlanner(root, nil)
	pr := pageReader{source: source, key: key, refs: refs, gap: rangeGap}
	pr.each = func(p readPage) error { return b.add(p.page) }
	if err := pr.run(ctx); err != nil {
		return nil, err
	}
	p, err := b.finish()
	if err != nil {
		return nil, err
	}
	sum, err := p.digest(ctx)
	if err == nil && sum != root.Digest {
		err = damagedf("the pages are not those of the backup: their digest is %v instead of %v", sum, root.Digest)
	}
	return p, err
}

// exporter writes entries in tree order.
type exporter struct {
	plan   *plan
	tar    tarWriter
	frames *orderedReader
	cache  *frameCache
	spare  []byte // memory for the next frame
	links  int    // that were written
}

func (x *exporter) run(ctx context.Context) error {
	for i := range x.plan.dirs {
		path := x.plan.dirPath(int32(i))
		if err := x.tar.header(dirHeader(path, &x.plan.dirs[i].Meta)); err != nil {
			return err
		}
		for _, s := range x.plan.stretchesOf(int32(i)) {
			for j := range s.entries {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := x.entry(ctx, path, s.first+uint32(j), &s.entries[j]); err != nil {
					return fmt.Errorf("%s: %w", display(join(path, s.entries[j].Name)), err)
				}
			}
		}
	}
	return x.tar.end()
}

func (x *exporter) entry(ctx context.Context, dir string, number uint32, e *format.Entry) error {
	if e.Flags&format.FlagUnreadable != 0 {
		return nil
	}
	h := entryHeader(join(dir, e.Name), e)
	if l := x.plan.links; x.links < len(l) && l[x.links].entry == number {
		h.link(x.plan.path(l[x.links].first))
		x.links++
		return x.tar.header(h)
	}
	if err := x.tar.header(h); err != nil || h.kind != tarFile {
		return err
	}
	return x.content(ctx, h, e)
}

func (x *exporter) content(ctx context.Context, h *tarHeader, e *format.Entry) error {
	if err := x.tar.write(h.sparseMap); err != nil {
		return err
	}
	for _, p := range contentOf(e) {
		raw, err := x.frame(ctx, p.Frame)
		if err != nil {
			return err
		}
		data, err := verifiedPiece(&p, raw)
		if err != nil {
			return err
		}
		if err := x.tar.write(data); err != nil {
			return err
		}
	}
	return x.tar.pad()
}

// frame returns a decoded frame, from the cache if it is there.
func (x *exporter) frame(ctx context.Context, number uint32) ([]byte, error) {
	raw, known := x.cache.use(number)
	if known {
		return raw, nil
	}
	memory := x.spare
	if want := int(x.plan.frames[number].Raw) + decodeSlack; cap(memory) < want {
		memory = make([]byte, 0, max(want, format.BlockSize+decodeSlack))
	}
	raw, err := x.frames.read(ctx, memory)
	if err != nil {
		return nil, err
	}
	x.spare = x.cache.keep(number, raw, memory)
	return raw, nil
}

// exportOrder returns the frames in the order in which an export reads them: each time that the cache will not have it.
func (p *plan) exportOrder() []format.Frame {
	cache := newFrameCache(p, exportCache)
	var order []format.Frame
	p.files(func(_ uint32, e *format.Entry, further bool) {
		if further || e.Kind != format.KindFile || e.Flags&format.FlagUnreadable != 0 {
			return
		}
		for _, piece := range contentOf(e) {
			if _, known := cache.use(piece.Frame); !known {
				order = append(order, p.frames[piece.Frame])
				cache.keep(piece.Frame, nil, nil)
			}
		}
	})
	return order
}

// frameCache keeps the frames that were used last. What it keeps depends on nothing but the order of use.
type frameCache struct {
	plan   *plan
	room   int64
	recent *list.List // of cachedFrame, the last one used in front
	places map[uint32]*list.Element
}

type cachedFrame struct {
	number uint32
	raw    []byte
	memory []byte // that raw lies in
}

func newFrameCache(p *plan, size int64) *frameCache {
	return &frameCache{plan: p, room: size, recent: list.New(), places: map[uint32]*list.Element{}}
}

func (c *frameCache) use(number uint32) ([]byte, bool) {
	place, ok := c.places[number]
	if !ok {
		return nil, false
	}
	c.recent.MoveToFront(place)
	return place.Value.(*cachedFrame).raw, true
}

// keep adds a frame and returns the memory of one that had to go.
func (c *frameCache) keep(number uint32, raw, memory []byte) (spare []byte) {
	c.places[number] = c.recent.PushFront(&cachedFrame{number, raw, memory})
	c.room -= int64(c.plan.frames[number].Raw)
	for c.room < 0 && c.recent.Len() > 1 {
		last := c.recent.Remove(c.recent.Back()).(*cachedFrame)
		delete(c.places, last.number)
		c.room += int64(c.plan.frames[last.number].Raw)
		spare = last.memory
	}
	return spare
}
