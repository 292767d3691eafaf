package archive

import (
	"context"
	"encoding/binary"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// place is where content of a certain hash lies.
type place struct {
	hash  format.Hash
	frame uint32
	off   uint32
}

const placeChunk = 4096

// places are all contents that need not be stored again: those of the parent, and those read in this run. A hash here is
// always the SHA-256 of the bytes, of a whole file or of a piece of one.
type places struct {
	mu     sync.Mutex
	chunks [][]place // numbered from 1
	count  uint32
	table  []uint32 // open addressing by the hash; 0 is free
	frames frameSet // in which the places are
}

func newPlaces() *places { return &places{table: make([]uint32, 1<<12)} }

func (p *places) at(n uint32) *place { return &p.chunks[(n-1)/placeChunk][(n-1)%placeChunk] }

// find returns the number of a place, 0 if the content is not known, and where in the table it belongs.
func (p *places) find(h *format.Hash) (n, slot uint32) {
	mask := uint32(len(p.table) - 1)
	slot = binary.LittleEndian.Uint32(h[:]) & mask
	for {
		n = p.table[slot]
		if n == 0 || p.at(n).hash == *h {
			return n, slot
		}
		slot = (slot + 1) & mask
	}
}

// add notes where content lies unless it is known already, and returns its number.
func (p *places) add(h *format.Hash, frame, off uint32) (n uint32, known bool) {
	n, slot := p.find(h)
	if n != 0 {
		return n, true
	}
	if p.count%placeChunk == 0 {
		p.chunks = append(p.chunks, make([]place, placeChunk))
	}
	p.count++
	*p.at(p.count) = place{*h, frame, off}
	p.table[slot] = p.count
	if int(p.count) > len(p.table)*3/4 {
		p.grow()
	}
	return p.count, false
}

func (p *places) grow() {
	p.table = make([]uint32, 2*len(p.table))
	for n := uint32(1); n <= p.count; n++ {
		_, slot := p.find(&p.at(n).hash)
		p.table[slot] = n
	}
}

// newFrame returns the number of a frame that is yet to be stored.
func (p *places) newFrame() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frames.reserve()
}

// setFrame says where a frame is.
func (p *places) setFrame(n uint32, f format.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames.list[n] = f
}

// get returns a place by its number.
func (p *places) get(n uint32) place {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.at(n)
}

// number returns the number of the place of content, 0 if it is not known.
func (p *places) number(h *format.Hash) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, _ := p.find(h)
	return n
}

// know takes in all contents of the parent.
func (p *places) know(ctx context.Context, from *parent) error {
	c := newParentCursor(ctx, from)
	defer c.close()
	for c.page != nil {
		numbers, err := p.knowFrames(c.page.Frames)
		if err != nil {
			return err
		}
		for i := range c.page.Dirs {
			for j := range c.page.Dirs[i].Entries {
				p.knowEntry(&c.page.Dirs[i].Entries[j], numbers)
			}
		}
		c.turn()
	}
	return c.err
}

// knowFrames returns the numbers of the frames of one of the parent's pages.
func (p *places) knowFrames(frames []format.Frame) (numbers []uint32, err error) {
	numbers = make([]uint32, len(frames))
	for i := range frames {
		f := &frames[i]
		numbers[i] = p.frames.add(f)
		if p.frames.list[numbers[i]] != *f {
			err = damagedf("frame %d of pack %v is described in two ways", f.Index, f.Pack)
		}
	}
	return numbers, err
}

func (p *places) knowEntry(e *format.Entry, numbers []uint32) {
	if hasContent(e) {
		p.add(&e.Hash, numbers[e.Frame], e.Off)
		return
	}
	if e.Extra == nil {
		return
	}
	for i := range e.Extra.Pieces {
		piece := &e.Extra.Pieces[i]
		p.add(&piece.Hash, numbers[piece.Frame], piece.Off)
	}
}
