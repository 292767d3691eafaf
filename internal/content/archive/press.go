package archive

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// draft is a page that is being put together.
type draft struct {
	page    format.Page
	entries []format.Entry
	rows    int // continued directories do not count
	reuse   int // the page of the parent whose first rows these are, or -1
	users   atomic.Int32
	out     *pageOut
}

// pageOut is what becomes of a page.
type pageOut struct {
	reuse int            // page of the parent that it is, or -1
	ref   format.PageRef // but for its frame
	zstd  []byte
	raw   int
}

// count counts a row before it is added, which is the parent's row at the cursor or is not.
func (d *draft) count(same bool, at *parentCursor) {
	switch {
	case !same:
		d.reuse = -1
	case d.rows == 0 && at.seen == 0:
		d.reuse = at.number
	case d.reuse != at.number || at.seen != d.rows:
		d.reuse = -1
	}
	d.rows++
}

// press computes the digest of the rows and encodes the pages, on all processors.
type press struct {
	refs       []format.PageRef // of the parent
	compaction *compaction      // nil: all pages may be used again
	encode     bool             // false: only the digest is wanted
	fail       context.CancelCauseFunc
	digest     format.Hash
	outs       []*pageOut
	drafts     sync.Pool
	toHash     chan *draft
	toPress    chan *draft
	wg         sync.WaitGroup
}

func newPress(from *parent, k *compaction, encode bool, fail context.CancelCauseFunc) *press {
	p := &press{compaction: k, encode: encode, fail: fail, toHash: make(chan *draft, 8), toPress: make(chan *draft, 8)}
	if from != nil {
		p.refs = from.refs
	}
	p.wg.Go(p.hash)
	if encode {
		for range runtime.GOMAXPROCS(0) {
			p.wg.Go(p.work)
		}
	}
	return p
}

// close waits until everything is done.
func (p *press) close() {
	close(p.toHash)
	close(p.toPress)
	p.wg.Wait()
}

// blank returns an empty page.
func (p *press) blank() *draft {
	d, ok := p.drafts.Get().(*draft)
	if !ok {
		d = &draft{entries: make([]format.Entry, 0, format.MaxPageRows)}
	}
	d.page.Dirs, d.entries, d.rows, d.reuse = d.page.Dirs[:0], d.entries[:0], 0, -1
	return d
}

// add takes a page over, with the frames that its entries name.
func (p *press) add(d *draft, frames []format.Frame) {
	d.page.Frames = frames
	d.out = &pageOut{reuse: -1, ref: d.page.Ref(format.Frame{})}
	if d.reuse >= 0 && p.refs[d.reuse].Entries == d.out.ref.Entries && p.stays(d.reuse) {
		d.out.reuse = d.reuse
	}
	p.outs = append(p.outs, d.out)
	if p.encode && d.out.reuse < 0 {
		d.users.Store(2)
		p.toPress <- d
	} else {
		d.users.Store(1)
	}
	p.toHash <- d
}

// stays reports whether a page of the parent is not to be stored again.
func (p *press) stays(page int) bool {
	return p.compaction == nil || !p.compaction.victims[p.refs[page].Frame.Pack]
}

func (p *press) release(d *draft) {
	if d.users.Add(-1) == 0 {
		p.drafts.Put(d)
	}
}

func (p *press) hash() {
	sum := format.NewDigester()
	for d := range p.toHash {
		for i := range d.page.Dirs {
			dir := &d.page.Dirs[i]
			sum.Dir(dir)
			for j := range dir.Entries {
				sum.Entry(&dir.Entries[j])
			}
		}
		p.release(d)
	}
	p.digest = sum.Sum()
}

func (p *press) work() {
	enc, err := format.NewEncoder()
	if err != nil {
		p.fail(err)
	}
	var buf []byte
	for d := range p.toPress {
		if err == nil {
			if buf, d.out.raw, err = enc.Page(buf[:0], &d.page); err != nil {
				p.fail(err)
			}
			d.out.zstd = slices.Clone(buf)
		}
		p.release(d)
	}
}
