package archive

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

const (
	// maxReads is how often a file that changes is read.
	maxReads = 3
	// maxLooks is how often a name is looked at that changes its type between two system calls.
	maxLooks = 16
	// maxBatch is how many files a worker takes at once, however small they are.
	maxBatch = 4096
)

// reading reads what has to be read. Its workers take files in tree order, as many as fit into a block.
type reading struct {
	tree     *scanTree
	places   *places
	versions versions
	packer   *packer // nil: contents are only hashed
	share    *memory.Share
	progress Progress
	extras   extras
	openFile func(dir int, name *byte, how *unix.OpenHow) (int, error) // replaced in tests

	mu    sync.Mutex // held while work is given out
	dir   int        // in the order of the tree
	row   int        // in the directory; -1: the directory itself
	large *largeFile // that is given out block by block

	tellMu       sync.Mutex
	files, bytes int64
	bytesRead    atomic.Int64
	troubleMu    sync.Mutex // of the problems of all directories
}

// rowExtra is what few rows have.
type rowExtra struct {
	format.Extra
	hash    format.Hash // of a file of pieces
	partial bool        // not all extended attributes could be read
}

// extras are those of a tree, numbered from 1.
type extras struct {
	mu   sync.Mutex
	list []*rowExtra
}

func (e *extras) add(x *rowExtra) uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, x)
	return uint32(len(e.list))
}

// get returns nil for number 0.
func (e *extras) get(n uint32) *rowExtra {
	if n == 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.list[n-1]
}

// run reads everything that is marked.
func (g *reading) run(ctx context.Context, fail context.CancelCauseFunc) error {
	g.row = -1
	var wg sync.WaitGroup
	for i := range runtime.GOMAXPROCS(0) {
		done, ok := func() {}, true
		if i > 0 { // the first one is certain
			done, ok = g.share.Grow(g.workerMemory())
		}
		if !ok {
			break
		}
		wg.Go(func() {
			defer done()
			if err := g.work(ctx, i > 0); err != nil {
				fail(err)
			}
		})
	}
	wg.Wait()
	if g.large != nil {
		_ = unix.Close(g.large.fd)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (g *reading) workerMemory() int64 {
	if g.packer == nil {
		return blockBuffer
	}
	return readerMemory
}

func (g *reading) tell(files, bytes int64) {
	g.tellMu.Lock()
	defer g.tellMu.Unlock()
	g.files += files
	g.bytes += bytes
	if g.progress != nil {
		g.progress(g.files, g.bytes)
	}
}

// trouble notes something that is not kept.
func (g *reading) trouble(d *dirNode, p problem) {
	g.troubleMu.Lock()
	defer g.troubleMu.Unlock()
	d.problems = append(d.problems, p)
}

// unit is what a worker does at a time: a block of a large file, or all that is marked from one row to another.
type unit struct {
	large    *largeFile
	block    int64
	from, to position
}

type position struct{ dir, row int }

// readWorker is one goroutine. Its block is filled by files in the order in which they are read.
type readWorker struct {
	*reading
	opener *opener
	how    unix.OpenHow
	enc    *format.Encoder
	buf    []byte
	fill   int
	frame  uint32
	framed bool
	zstd   []byte
	chunks []byte // what is cut by content, if anything is
	st     unix.Statx_t
	names  [256]byte
	hash   format.FileHasher
}

func (g *reading) newWorker() (*readWorker, error) {
	enc, err := format.NewEncoder()
	if err != nil {
		return nil, err
	}
	how := unix.OpenHow{Flags: fileFlags, Resolve: beneath}
	return &readWorker{reading: g, opener: newOpener(g.tree.root, g.tree.fd), how: how, enc: enc}, nil
}

func (w *readWorker) close() {
	w.opener.close()
	w.share.Put(w.buf)
	w.share.Put(w.zstd)
	if w.zstd != nil { // it has compressed
		w.share.Waste(encoderMemory)
	}
}

// work reads until there is nothing more to read, or, with its block empty, until others need the memory of a worker that can be spared.
func (g *reading) work(ctx context.Context, spare bool) error {
	w, err := g.newWorker()
	if err != nil {
		return err
	}
	defer w.close()
	for w.fill > 0 || !spare || !w.share.Crowded() {
		u, ok, err := w.next(ctx)
		if err != nil {
			return err
		}
		if !ok && w.fill == 0 {
			return nil
		}
		if ok {
			err = w.unit(ctx, &u)
		} else {
			err = w.flush(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// room is how much fits into the block.
func (w *readWorker) room() int64 { return int64(format.BlockSize - w.fill) }

// next returns work that fits into the block, or false if there is none.
func (w *readWorker) next(ctx context.Context) (unit, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return unit{}, false, context.Cause(ctx)
		}
		if w.large != nil {
			if u, ok := w.nextBlock(); ok || w.large != nil {
				return u, ok, nil
			}
		}
		u, opened, err := w.nextRows(ctx)
		if err != nil {
			return unit{}, false, err
		}
		if !opened {
			return u, u.from != u.to, nil
		}
	}
}

// nextRows returns rows that fit into the block. If the next one is a large file it is opened instead.
func (w *readWorker) nextRows(ctx context.Context) (u unit, opened bool, err error) {
	sum, count := int64(0), 0
	u.from = position{w.dir, w.row}
	for ; w.dir < len(w.tree.order); w.dir, w.row = w.dir+1, -1 {
		d := w.tree.order[w.dir]
		if w.row < 0 {
			if d.self.has(rowTodo) {
				count++
			}
			w.row = 0
		}
		for ; w.row < len(d.rows); w.row++ {
			r := &d.rows[w.row]
			if !r.has(rowTodo) {
				continue
			}
			if count > 0 && (r.isLarge() || count == maxBatch) || !r.isLarge() && sum+r.size > w.room() {
				u.to = position{w.dir, w.row}
				return w.trim(u, count), false, nil
			}
			if r.isLarge() {
				err := w.openLarge(ctx, d, r)
				w.row++
				return unit{}, true, err
			}
			sum += r.size
			count++
		}
	}
	u.to = position{w.dir, w.row}
	return w.trim(u, count), false, nil
}

// trim makes a unit without work an empty one.
func (w *readWorker) trim(u unit, count int) unit {
	if count == 0 {
		u.from = u.to
	}
	return u
}

// isLarge reports whether a file is cut into pieces. Its state may be another one by the time it is read.
func (r *row) isLarge() bool { return r.isFile() && (r.size > format.BlockSize || r.has(rowSparse)) }

func (w *readWorker) unit(ctx context.Context, u *unit) error {
	if u.large != nil {
		return w.largeUnit(ctx, u)
	}
	files, bytes := int64(0), int64(0)
	for p := u.from; p != u.to; {
		d := w.tree.order[p.dir]
		if p.row < 0 {
			if err := w.directory(d); err != nil {
				return err
			}
			p.row = 0
		}
		end := len(d.rows)
		if p.dir == u.to.dir {
			end = u.to.row
		}
		for i := p.row; i < end; i++ {
			r := &d.rows[i]
			if !r.has(rowTodo) {
				continue
			}
			if err := w.read(ctx, d, r); err != nil {
				return err
			}
			files, bytes = files+1, bytes+r.size
		}
		if p.dir == u.to.dir {
			break
		}
		p = position{p.dir + 1, -1}
	}
	w.tell(files, bytes)
	return nil
}
