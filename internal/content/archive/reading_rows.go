package archive

import (
	"context"
	"crypto/sha256"
	"errors"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

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
		w.unreadableAttributes(d, &d.self, "", nil, err)
		return nil
	}
	var now row
	now.set(&w.st, w.tree)
	d.self.take(&now)
	w.attributes(d, &d.self, "", fd, false)
	return nil
}

// unreadableAttributes notes which attributes could be read before an error.
func (w *readWorker) unreadableAttributes(d *dirNode, r *row, name string, attrs []format.Xattr, err error) {
	r.flags |= rowSuspect
	r.extra = w.extras.add(&rowExtra{Extra: format.Extra{Xattrs: attrs}, partial: true})
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
		w.unreadableAttributes(d, r, name, attrs, err)
	} else if len(attrs) > 0 {
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

var errBecameDir = errors.New("became a directory while the tree was read")

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
	case now.kind() == unix.S_IFDIR: // nobody has listed it
		return false, errBecameDir
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
