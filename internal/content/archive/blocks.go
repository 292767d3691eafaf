package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
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
	hash format.Hash // of a file of pieces
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
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			if err := g.work(ctx); err != nil {
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

func (g *reading) work(ctx context.Context) error {
	w, err := g.newWorker()
	if err != nil {
		return err
	}
	defer w.opener.close()
	for {
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

// directory reads the attributes of a directory.
func (w *readWorker) directory(d *dirNode) error {
	if !d.self.has(rowTodo) {
		return nil
	}
	fd, err := w.opener.dir(d)
	if err == nil {
		err = statxFD(fd, &w.st)
	}
	switch {
	case errOurs(err):
		return err
	case err != nil && (vanished(err) || swapped(err)): // it was there: what is known of it stays
		d.self.flags |= rowSuspect
		return nil
	case err != nil:
		w.unreadableAttributes(d, &d.self, "", err)
		return nil
	}
	var now row
	now.set(&w.st, w.tree)
	d.self.take(&now)
	w.attributes(d, &d.self, "", fd, false)
	return nil
}

func (w *readWorker) unreadableAttributes(d *dirNode, r *row, name string, err error) {
	r.flags |= rowSuspect
	w.trouble(d, problem{name, err})
}

// attributes reads the extended attributes of an open file.
func (w *readWorker) attributes(d *dirNode, r *row, name string, fd int, byPath bool) {
	r.extra = 0
	calls := xattrsOf
	if byPath {
		calls = xattrsOfPath
	} else if n, err := unix.Flistxattr(fd, w.names[:]); n == 0 && err == nil || errors.Is(err, unix.ENOTSUP) {
		return // as most files
	}
	attrs, err := readXattrs(calls(fd))
	if err != nil {
		w.unreadableAttributes(d, r, name, err)
	}
	if len(attrs) > 0 {
		r.extra = w.extras.add(&rowExtra{Extra: format.Extra{Xattrs: attrs}})
	}
}

// read reads one row. An error ends everything.
func (w *readWorker) read(ctx context.Context, d *dirNode, r *row) error {
	for range maxLooks {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var err error
		switch r.kind() {
		case unix.S_IFREG:
			err = w.file(ctx, d, r)
		case unix.S_IFLNK:
			err = w.symlink(d, r)
		default:
			err = w.special(d, r)
		}
		if !swapped(err) && !errors.Is(err, unix.ENXIO) {
			return w.failed(d, r, err)
		}
		if again, err := w.lookAgain(d, r); !again {
			return w.failed(d, r, err)
		}
	}
	return w.failed(d, r, errSwapping)
}

// failed notes what became of a row. It returns only errors that end everything.
func (w *readWorker) failed(d *dirNode, r *row, err error) error {
	switch {
	case err == nil:
		return nil
	case errOurs(err), errors.As(err, new(fatalError)):
		return err
	case vanished(err):
		r.flags |= rowGone
		return nil
	case errors.Is(err, unix.EXDEV):
		err = errMount
	}
	w.unreadable(d, r, err)
	return nil
}

func (w *readWorker) unreadable(d *dirNode, r *row, err error) {
	name := string(d.nameOf(r))
	r.take(&row{mode: unix.S_IFREG})
	r.place, r.extra = 0, 0
	r.flags |= rowUnreadable | rowSuspect
	w.trouble(d, problem{name, err})
}

// fatalError is an error that is no property of a file.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

// lookAgain takes a row for what it is now. It is false if that needs no reading.
func (w *readWorker) lookAgain(d *dirNode, r *row) (bool, error) {
	fd, err := w.opener.dir(d)
	if err == nil {
		err = statx(fd, &d.names[r.name], &w.st)
	}
	if err != nil {
		if swapped(err) { // the directory is another thing now
			err = unix.ENOENT
		}
		return false, err
	}
	var now row
	now.set(&w.st, w.tree)
	switch {
	case now.kind() == unix.S_IFDIR:
		r.flags |= rowGone | rowChanged
	case !kept(&w.st):
		r.flags |= rowGone
		w.trouble(d, problem{name: string(d.nameOf(r))})
	default:
		r.take(&now)
		return true, nil
	}
	return false, nil
}

func (w *readWorker) symlink(d *dirNode, r *row) error {
	dir, err := w.opener.dir(d)
	if err != nil {
		return err
	}
	name := string(d.nameOf(r))
	for range maxLooks {
		target, err := grow(256, func(buf []byte) (int, error) {
			n, err := unix.Readlinkat(dir, name, buf)
			if n == len(buf) && err == nil {
				err = unix.ERANGE
			}
			return n, err
		})
		if errors.Is(err, unix.EINVAL) { // not a link any more
			return unix.ELOOP
		}
		if err == nil {
			err = statx(dir, &d.names[r.name], &w.st)
		}
		if err != nil {
			return err
		}
		var now row
		now.set(&w.st, w.tree)
		if now.kind() != unix.S_IFLNK {
			return unix.ELOOP
		}
		if now.sameState(r) {
			r.extra = w.extras.add(&rowExtra{Extra: format.Extra{Target: string(target)}})
			return nil
		}
		r.take(&now)
	}
	return errSwapping
}

// special reads the attributes of a FIFO or a whiteout, which is never opened but as a path.
func (w *readWorker) special(d *dirNode, r *row) error {
	dir, err := w.opener.dir(d)
	if err != nil {
		return err
	}
	fd, err := openName(dir, &d.names[r.name], &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := statxFD(fd, &w.st); err != nil {
		return err
	}
	var now row
	now.set(&w.st, w.tree)
	if now.kind() != r.kind() {
		return unix.ELOOP
	}
	r.take(&now)
	w.attributes(d, r, string(d.nameOf(r)), fd, true)
	return nil
}

// open opens a regular file for reading and looks at it. Anything else is an error for which [swapped] is true.
func (w *readWorker) open(d *dirNode, r *row) (int, error) {
	dir, err := w.opener.dir(d)
	if err != nil {
		return -1, err
	}
	fd, err := w.openFile(dir, &d.names[r.name], &w.how)
	if err != nil {
		return -1, err
	}
	if err = statxFD(fd, &w.st); err == nil && w.st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ELOOP
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// file reads a file that fits into a block.
func (w *readWorker) file(ctx context.Context, d *dirNode, r *row) error {
	fd, err := w.open(d, r)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for try := 1; ; try++ {
		var before, after row
		before.set(&w.st, w.tree)
		if before.isLarge() { // it has become that
			return w.largeAlone(ctx, d, r, fd, &before)
		}
		if before.size > w.room() {
			if err := w.flush(ctx); err != nil {
				return fatalError{err}
			}
		}
		data, err := w.readSmall(fd, before.size)
		if err != nil {
			return err
		}
		w.attributes(d, r, string(d.nameOf(r)), fd, false)
		if err := statxFD(fd, &w.st); err != nil {
			return err
		}
		after.set(&w.st, w.tree)
		calm := after.sameState(&before) && int64(len(data)) == before.size
		if !calm && try < maxReads {
			continue
		}
		before.size = int64(len(data))
		r.take(&before)
		if !calm {
			r.flags |= rowChanged | rowSuspect
		}
		r.place = 0
		if len(data) > 0 {
			sum := format.Hash(sha256.Sum256(data))
			r.place = w.keep(&sum, data)
		}
		return nil
	}
}

// readSmall reads a file behind what is in the block. One byte more than expected shows that the file has grown.
func (w *readWorker) readSmall(fd int, size int64) ([]byte, error) {
	w.needBuffer()
	data := w.buf[w.fill : w.fill+int(size)+1]
	n, err := unix.Pread(fd, data, 0)
	if err != nil || int64(n) < size {
		n, err = preadFull(fd, data, 0)
	}
	w.bytesRead.Add(int64(n))
	return data[:min(n, format.BlockSize)], err
}

// needBuffer makes the buffer when there is something to read at last.
func (w *readWorker) needBuffer() {
	if w.buf == nil {
		w.buf = make([]byte, format.BlockSize+1)
	}
}

// keep stores content that lies behind what is in the block, unless it is stored already, and returns its place.
func (w *readWorker) keep(sum *format.Hash, data []byte) uint32 {
	w.places.mu.Lock()
	defer w.places.mu.Unlock()
	if !w.framed {
		w.frame, w.framed = w.places.frames.reserve(), true
	}
	n, known := w.places.add(sum, w.frame, uint32(w.fill))
	if !known && w.packer != nil {
		w.fill += len(data)
	}
	return n
}

// keepPiece is keep for a piece of a file.
func (w *readWorker) keepPiece(sum *format.Hash, data []byte) (frame, off uint32) {
	p := w.places.get(w.keep(sum, data))
	return p.frame, p.off
}

// flush compresses the block and stores it.
func (w *readWorker) flush(ctx context.Context) error {
	if w.fill == 0 {
		return nil
	}
	w.zstd = w.enc.Compress(w.zstd[:0], w.buf[:w.fill])
	f, _, err := w.packer.put(ctx, format.FrameData, w.fill, w.zstd, false)
	if err != nil {
		return err
	}
	w.places.setFrame(w.frame, f)
	w.fill, w.framed = 0, false
	return nil
}
