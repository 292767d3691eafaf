package archive

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

// parent is the backup that a new one starts from.
type parent struct {
	root   *Root
	key    *format.Key
	refs   []format.PageRef
	stored [][]byte // the pages as they are stored
	stamps []stamp  // of its rows; nil if this node knows nothing of them
	tree   uint64   // that the stamps are of, see [identity]
}

// openParent takes the pages from the index, or else from the store. Without a parent it is nil.
func openParent(ctx context.Context, o *CreateOptions, join func(context.Context) (*memory.Share, error)) (*parent, error) {
	if o.Parent == nil {
		return nil, nil //nolint:nilnil // There is none, and that is all right.
	}
	p := &parent{root: o.Parent, key: o.Key}
	var err error
	if p.refs, err = openTable(*o.Parent, o.Key); err != nil {
		return nil, err
	}
	rows := 0
	for i := range p.refs {
		rows += int(p.refs[i].Entries)
	}
	if ix := o.Index; ix.describes(o.Parent) && len(ix.pages) == len(p.refs) && len(ix.stamps) <= rows {
		p.stored = ix.pages
		if !o.Reread {
			p.stamps, p.tree = ix.stamps, ix.tree
		}
		return p, nil
	}
	share, err := join(ctx)
	if err != nil {
		return nil, err
	}
	return p, p.fetch(ctx, o.Source, share)
}

// fetch reads the pages from the store.
func (p *parent) fetch(ctx context.Context, source Source, share *memory.Share) error {
	if source == nil {
		return fmt.Errorf("read the manifest of the backup before: there is no store to read from")
	}
	r := &pageReader{source: source, key: p.key, share: share, refs: p.refs, gap: rangeGap, keep: true, each: func(page readPage) error {
		p.stored = append(p.stored, page.stored)
		return page.err
	}}
	return r.run(ctx)
}

// parentPage is a page of the parent, or why there is none.
type parentPage struct {
	number int
	page   *format.Page
	err    error
}

// parentAhead is how many pages each decoder decodes in advance.
const parentAhead = 4

// parentCursor walks through the rows of the parent in tree order. Without a parent it is at the end from the beginning.
type parentCursor struct {
	pages  []chan parentPage // one for each decoder; they take turns
	stop   context.CancelFunc
	cause  func() error // why the decoders have stopped
	wg     sync.WaitGroup
	number int          // of the page
	page   *format.Page // nil at the end
	dir    int          // in the page
	entry  int          // in the directory; -1: at the directory itself
	row    int          // in the tree
	seen   int          // rows of this page behind the cursor
	total  int
	err    error
}

func newParentCursor(ctx context.Context, p *parent) *parentCursor {
	c := &parentCursor{number: -1}
	ctx, c.stop = context.WithCancel(ctx)
	c.cause = func() error { return context.Cause(ctx) }
	if p == nil {
		return c
	}
	c.total = len(p.refs)
	c.pages = make([]chan parentPage, min(runtime.GOMAXPROCS(0), 8, c.total))
	for i := range c.pages {
		c.pages[i] = make(chan parentPage, parentAhead)
	}
	for i := range c.pages {
		c.wg.Go(func() { c.decode(ctx, p, i) })
	}
	c.turn()
	return c
}

func (c *parentCursor) close() {
	c.stop()
	c.wg.Wait()
}

// decode decodes the pages whose turn is that of a decoder. Its channel ends early if the context does.
func (c *parentCursor) decode(ctx context.Context, p *parent, turn int) {
	defer close(c.pages[turn])
	d, err := format.NewDecoder()
	if err == nil {
		defer d.Close()
	}
	for i := turn; i < len(p.refs); i += len(c.pages) {
		out := parentPage{number: i, err: err}
		if err == nil {
			out.page, out.err = d.Page(p.key, p.refs[i], p.stored[i])
		}
		select {
		case c.pages[turn] <- out:
		case <-ctx.Done():
			return
		}
	}
}

// turn goes to the next page.
func (c *parentCursor) turn() {
	before := c.page
	c.number++
	c.page, c.dir, c.entry, c.seen = nil, 0, -1, 0
	if c.number >= c.total || c.err != nil {
		return
	}
	next, ok := <-c.pages[c.number%len(c.pages)]
	if c.err = next.err; !ok {
		c.err = c.cause()
	}
	if c.err != nil {
		return
	}
	if c.err = next.page.Follows(before); c.err != nil {
		return
	}
	c.page = next.page
	if c.page.Dirs[0].Continued {
		c.entry = 0
	}
}

// directory returns the directory that the cursor stands at, nil at the end.
func (c *parentCursor) directory() *format.Dir {
	if c.page == nil {
		return nil
	}
	return &c.page.Dirs[c.dir]
}

// enter passes the directory that the cursor stands at.
func (c *parentCursor) enter() {
	c.row++
	c.seen++
	c.entry = 0
	c.settle()
}

// settle finds the place after an entry, which may be in the next page.
func (c *parentCursor) settle() {
	if c.entry < len(c.page.Dirs[c.dir].Entries) {
		return
	}
	c.dir, c.entry = c.dir+1, -1
	if c.dir == len(c.page.Dirs) {
		c.turn()
	}
}

// current returns the entry that the cursor stands at, nil if the directory that was entered has no more.
func (c *parentCursor) current() *format.Entry {
	if c.page == nil || c.entry < 0 {
		return nil
	}
	return &c.page.Dirs[c.dir].Entries[c.entry]
}

// step passes an entry.
func (c *parentCursor) step() {
	c.row++
	c.seen++
	c.entry++
	c.settle()
}

// leave passes the entries that are left, and reports whether there were any.
func (c *parentCursor) leave() bool {
	left := c.current() != nil
	for c.current() != nil {
		c.step()
	}
	return left
}

// seek goes to a directory, and reports whether the parent has it and whether others were passed.
func (c *parentCursor) seek(path []byte) (found, passed bool) {
	for d := c.directory(); d != nil; d = c.directory() {
		if d.Path == string(path) {
			return true, passed
		}
		if format.ComparePaths(d.Path, string(path)) > 0 {
			return false, passed
		}
		passed = true
		c.enter()
		c.leave()
	}
	return false, passed
}
