package archive

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

var (
	errMount    = errors.New("another filesystem is mounted here")
	errTooDeep  = errors.New("the path is longer than 256 KiB")
	errTooMany  = errors.New("the directory has too many entries")
	errLongName = errors.New("the name is longer than 255 bytes")
	errSwapping = errors.New("was replaced again and again while it was read")
)

// scan looks at everything below a directory.
func scan(ctx context.Context, dir string) (*scanTree, error) {
	t := &scanTree{root: &dirNode{hash: format.RootHash}, began: time.Now()}
	path, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(path) }()
	if t.fd, err = unix.Openat(path, ".", dirFlags&^unix.O_NOATIME, 0); err != nil {
		return nil, err
	}
	var st unix.Statx_t
	if err = statxFD(t.fd, &st); err == nil {
		t.dev = unix.Mkdev(st.Dev_major, st.Dev_minor)
		t.rootXattrs, t.rootErr = readXattrs(xattrsOf(t.fd))
		t.id, err = identity(t.fd)
	}
	if err == nil {
		err = t.run(ctx)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *scanTree) run(ctx context.Context) error {
	s := &scanner{tree: t, todo: []scanTask{{dir: t.root}}}
	s.idle = sync.NewCond(&s.mu)
	meters := make([]usageMeter, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range meters {
		wg.Go(func() { s.work(ctx, &meters[i]) })
	}
	wg.Wait()
	t.usage = total(meters)
	if s.err != nil {
		return s.err
	}
	t.settle()
	t.limitPaths()
	return nil
}

// scanner is the work that the goroutines of a scan share.
type scanner struct {
	tree *scanTree
	mu   sync.Mutex
	idle *sync.Cond
	todo []scanTask // the last one is done next
	busy int
	err  error
}

// scanTask is a directory to list.
type scanTask struct{ dir *dirNode }

// next returns a directory, or false if the scan is over.
func (s *scanner) next() (scanTask, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.todo) == 0 && s.busy > 0 && s.err == nil {
		s.idle.Wait()
	}
	if len(s.todo) == 0 || s.err != nil {
		return scanTask{}, false
	}
	task := s.todo[len(s.todo)-1]
	s.todo = s.todo[:len(s.todo)-1]
	s.busy++
	return task, true
}

// done hands over the subdirectories that were found.
func (s *scanner) done(found []*dirNode, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if err != nil && s.err == nil {
		s.err = err
	}
	for _, d := range slices.Backward(found) {
		s.todo = append(s.todo, scanTask{dir: d})
	}
	if len(found) > 1 || s.busy == 0 || s.err != nil {
		s.idle.Broadcast()
	}
}

// notDir notes that a directory is to be left out, what stands in its place, and what is to be reported, if anything.
func (s *scanner) notDir(d *dirNode, instead *row, p *problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.gone = true
	if instead != nil {
		d.parent.late = append(d.parent.late, lateRow{d.name, *instead})
	}
	if p != nil {
		d.parent.problems = append(d.parent.problems, *p)
	}
}

func (s *scanner) work(ctx context.Context, meter *usageMeter) {
	w := &scanWorker{scanner: s, opener: newOpener(s.tree.root, s.tree.fd), dents: make([]byte, 128<<10), meter: meter}
	defer w.opener.close()
	for {
		task, ok := s.next()
		if !ok {
			return
		}
		err := ctx.Err()
		if err == nil {
			err = w.directory(ctx, task.dir)
		}
		s.done(task.dir.dirs, err)
	}
}

// scanWorker is one goroutine of a scan.
type scanWorker struct {
	*scanner
	opener *opener
	dents  []byte
	names  []byte // of the directory at hand, as they come
	found  []foundName
	long   []problem // names that nothing but this filesystem can have
	st     unix.Statx_t
	mem    slabs
	meter  *usageMeter
}

// foundName is a directory entry.
type foundName struct {
	key uint64 // the first eight bytes, so that most comparisons need no look at the name
	off uint32 // in names
	len uint8
	typ uint8
}

// directory fills in a directory. An error ends the scan.
func (w *scanWorker) directory(ctx context.Context, d *dirNode) error {
	fd, err := w.open(d)
	for range maxLooks {
		if !swapped(err) || !w.isDirectory(d) {
			break
		}
		fd, err = w.open(d)
	}
	if err != nil {
		return w.notOpened(d, err)
	}
	d.self.set(&w.st, w.tree)
	w.meter.count(w.tree, &w.st)
	if err := w.list(fd); err != nil && !vanished(err) { // a directory that is being removed has no names
		d.problems = append(d.problems, problem{err: err})
	}
	d.problems = append(d.problems, w.long...)
	return w.fill(ctx, d, fd)
}

// open opens a directory and looks at it.
func (w *scanWorker) open(d *dirNode) (int, error) {
	fd, err := w.opener.dir(d)
	if err != nil {
		return -1, err
	}
	return fd, statxFD(fd, &w.st)
}

// look looks at a directory by its name.
func (w *scanWorker) look(d *dirNode) error {
	fd, err := w.opener.dir(d.parent)
	if err != nil {
		return err
	}
	name := append([]byte(d.name), 0)
	return statx(fd, &name[0], &w.st)
}

func (w *scanWorker) isDirectory(d *dirNode) bool {
	return d.parent != nil && w.look(d) == nil && w.st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// notOpened notes what is there instead of a directory.
func (w *scanWorker) notOpened(d *dirNode, err error) error {
	switch {
	case errOurs(err), d.parent == nil:
		return err
	case vanished(err):
		w.notDir(d, nil, nil)
		return nil
	case errors.Is(err, unix.EXDEV):
		err = errMount
	case swapped(err):
		return w.replaced(d)
	}
	w.notDir(d, &row{mode: unix.S_IFREG, flags: rowUnreadable}, &problem{d.name, err})
	return nil
}

// replaced notes what has come in the place of a directory.
func (w *scanWorker) replaced(d *dirNode) error {
	err := w.look(d)
	var r row
	r.set(&w.st, w.tree)
	switch {
	case errOurs(err):
		return err
	case err != nil: // it, or what it was in, is gone
		w.notDir(d, nil, nil)
	case r.kind() == unix.S_IFDIR:
		w.notDir(d, &row{mode: unix.S_IFREG, flags: rowUnreadable}, &problem{d.name, errSwapping})
	case kept(&w.st):
		w.notDir(d, &r, nil)
	default:
		w.notDir(d, nil, &problem{name: d.name})
	}
	return nil
}

// kept tells files, links, FIFOs and whiteouts from sockets and devices.
func kept(st *unix.Statx_t) bool {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK, unix.S_IFIFO:
		return true
	case unix.S_IFCHR: // the one kind of device that is content: overlayfs' mark for a deleted name
		return st.Rdev_major == 0 && st.Rdev_minor == 0
	}
	return false
}

// list collects the names in a directory. Those that came before an error stay.
func (w *scanWorker) list(fd int) error {
	w.names, w.found, w.long = w.names[:0], w.found[:0], w.long[:0]
	for {
		n, err := unix.Getdents(fd, w.dents)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		if err := w.parse(w.dents[:n]); err != nil {
			return err
		}
	}
}

// parse takes the entries from what the kernel wrote: inode (8), offset (8), length (2), type (1), name.
func (w *scanWorker) parse(b []byte) error {
	for len(b) > 19 {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		typ, name := b[18], b[19:size]
		b = b[size:]
		name = name[:max(0, bytes.IndexByte(name, 0))]
		if len(name) == 0 || string(name) == "." || string(name) == ".." {
			continue
		}
		if len(name) > 255 {
			w.long = append(w.long, problem{string(name), errLongName})
			continue
		}
		if len(w.names) > math.MaxUint32-512 {
			return errTooMany
		}
		var key [8]byte
		copy(key[:], name)
		w.found = append(w.found, foundName{binary.BigEndian.Uint64(key[:]), uint32(len(w.names)), uint8(len(name)), typ})
		w.names = append(append(w.names, name...), 0)
	}
	return nil
}

// sort sorts the names, and keeps one of those that are equal: a listing has a name twice if it was removed and made again
// between two of the calls.
func (w *scanWorker) sort() {
	compare := func(a, b foundName) int {
		if a.key != b.key {
			return cmp.Compare(a.key, b.key)
		}
		return bytes.Compare(w.name(a), w.name(b))
	}
	slices.SortFunc(w.found, compare)
	w.found = slices.CompactFunc(w.found, func(a, b foundName) bool { return compare(a, b) == 0 })
}

func (w *scanWorker) name(f foundName) []byte { return w.names[f.off : f.off+uint32(f.len)] }

// fill makes rows and subdirectories of the names that were listed.
func (w *scanWorker) fill(ctx context.Context, d *dirNode, fd int) error {
	w.sort()
	subs, size := 0, 0
	for _, f := range w.found {
		if f.typ == unix.DT_DIR {
			subs++
		} else {
			size += int(f.len) + 1
		}
	}
	d.names = w.mem.bytes(size)[:0]
	d.rows = w.mem.rows(len(w.found) - subs)[:0]
	d.dirs = make([]*dirNode, 0, subs)
	for i, f := range w.found {
		if i%1024 == 1023 && ctx.Err() != nil {
			return ctx.Err()
		}
		if f.typ == unix.DT_DIR {
			w.subdirectory(d, string(w.name(f)))
			continue
		}
		if err := w.leaf(d, fd, f); err != nil {
			return err
		}
	}
	return nil
}

func (w *scanWorker) subdirectory(d *dirNode, name string) {
	sub := w.mem.node()
	*sub = dirNode{parent: d, name: name, depth: d.depth + 1, pathLen: d.pathLen + int32(len(name))}
	if d.parent != nil {
		sub.pathLen++
	}
	if sub.pathLen > maxPathLen {
		w.unreadable(d, name, errTooDeep)
		return
	}
	d.dirs = append(d.dirs, sub)
}

func (w *scanWorker) unreadable(d *dirNode, name string, err error) {
	d.late = append(d.late, lateRow{name, row{mode: unix.S_IFREG, flags: rowUnreadable}})
	d.problems = append(d.problems, problem{name, err})
}

// leaf looks at a name that is no directory. An error ends the scan.
func (w *scanWorker) leaf(d *dirNode, fd int, f foundName) error {
	r := row{name: uint32(len(d.names)), nameLen: f.len}
	d.names = append(append(d.names, w.name(f)...), 0)
	err := statx(fd, &d.names[r.name], &w.st)
	if err == nil && w.st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		err = errMount
	}
	switch {
	case err == nil:
	case errOurs(err):
		return err
	case vanished(err):
		return nil
	default:
		r.mode, r.flags = unix.S_IFREG, rowUnreadable
		d.problems = append(d.problems, problem{strings.Clone(string(w.name(f))), err})
		d.rows = append(d.rows, r)
		return nil
	}
	r.set(&w.st, w.tree)
	if r.kind() != unix.S_IFDIR {
		w.meter.count(w.tree, &w.st)
	}
	switch {
	case r.kind() == unix.S_IFDIR:
		w.subdirectory(d, string(w.name(f)))
	case kept(&w.st):
		d.rows = append(d.rows, r)
	default:
		d.problems = append(d.problems, problem{name: string(w.name(f))})
	}
	return nil
}
