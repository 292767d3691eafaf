package archive

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// maxOpen limits the directories held open at once, however deep the tree is.
	maxOpen = 64
	// maxPath is four times what a system call takes as one path. It bounds memory, which grows with the square of the depth.
	maxPath = 16 << 10
	// maxLooks is how often a name is looked at that changes its type between two system calls.
	maxLooks = 16
)

var (
	// errSwapped asks the walker to look at a name again.
	errSwapped  = errors.New("was replaced while it was read")
	errMoved    = errors.New("was moved while it was read")
	errTooLong  = errors.New("the path is longer than 256 KiB")
	errXDev     = errors.New("another filesystem is mounted here")
	errVanished = errors.New("vanished")
)

// handler is told what a walker finds, in order: a directory before its content, names sorted bytewise.
type handler interface {
	// dir gets an O_PATH descriptor that is closed later.
	dir(fd int, path string, st *unix.Stat_t) error
	// leaf gets everything else; it returns errSwapped if it found a directory.
	leaf(parent int, name, path string, st *unix.Stat_t) error
	// problem is told what could not be looked at; an error ends the walk.
	problem(path string, err error) error
}

// walker walks a tree that may change meanwhile and never leaves it. What vanishes is not there.
type walker struct {
	root  int
	h     handler
	stack []frame
}

// frame is a directory on the way down.
type frame struct {
	path     string
	fd       int // -1 while closed to save descriptors
	dev, ino uint64
	names    []string // still to do
}

func walk(ctx context.Context, root int, h handler) error {
	w := &walker{root: root, h: h}
	defer w.close()
	fd, err := unix.Openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := w.enter(fd, "."); err != nil {
		return err
	}
	for len(w.stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.next(); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) close() {
	for _, f := range w.stack {
		if f.fd >= 0 {
			_ = unix.Close(f.fd)
		}
	}
}

// next does one name of the innermost directory, or leaves it.
func (w *walker) next() error {
	top := &w.stack[len(w.stack)-1]
	if len(top.names) == 0 {
		w.leave()
		return nil
	}
	if top.fd < 0 {
		if err := w.reopen(top); err != nil {
			top.names = nil
			return w.h.problem(top.path, err)
		}
	}
	name := top.names[0]
	top.names = top.names[1:]
	return w.look(top, name)
}

func (w *walker) look(top *frame, name string) error {
	path := join(top.path, name)
	if len(path) > maxPath {
		return w.h.problem(path, errTooLong)
	}
	for range maxLooks {
		err := w.lookOnce(top.fd, name, path)
		switch {
		case errors.Is(err, errSwapped):
			continue
		case errors.Is(err, errVanished):
			return nil
		}
		return err
	}
	return w.h.problem(path, errSwapped)
}

func (w *walker) lookOnce(parent int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.failed(path, err)
	}
	if fileType(&st) != unix.S_IFDIR {
		return w.h.leaf(parent, name, path, &st)
	}
	fd, err := openBelow(parent, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return w.failed(path, err)
	}
	return w.enter(fd, path)
}

// failed sorts what a system call on a name said.
func (w *walker) failed(path string, err error) error {
	if err := raced(err); err != nil {
		return err
	}
	if errors.Is(err, unix.EXDEV) {
		err = errXDev
	}
	return w.h.problem(path, err)
}

// raced returns errVanished or errSwapped if that is what an error means.
func raced(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return errVanished
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return errSwapped
	}
	return nil
}

// enter hands over a directory and makes it the innermost one.
func (w *walker) enter(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return w.h.problem(path, err)
	}
	if err := w.h.dir(fd, path, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	names, err := listNames(fd)
	if err != nil && !errors.Is(err, unix.ENOENT) { // a directory that is being removed has no names
		if err := w.h.problem(path, err); err != nil {
			_ = unix.Close(fd)
			return err
		}
	}
	slices.Sort(names)
	w.stack = append(w.stack, frame{path: path, fd: fd, dev: st.Dev, ino: st.Ino, names: names})
	if len(w.stack) > maxOpen {
		outer := &w.stack[len(w.stack)-1-maxOpen]
		_ = unix.Close(outer.fd)
		outer.fd = -1
	}
	return nil
}

// leave closes the innermost directory, after using it to find the way back up.
func (w *walker) leave() {
	top := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	if len(w.stack) > 0 && top.fd >= 0 {
		outer := &w.stack[len(w.stack)-1]
		if outer.fd < 0 && len(outer.names) > 0 {
			fd, err := unix.Openat(top.fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			outer.adopt(fd, err)
		}
	}
	if top.fd >= 0 {
		_ = unix.Close(top.fd)
	}
}

// reopen finds a directory again from the root.
func (w *walker) reopen(f *frame) error {
	fd, err := openBelow(w.root, f.path, unix.O_PATH|unix.O_DIRECTORY)
	if !f.adopt(fd, err) {
		return errMoved
	}
	return nil
}

// adopt takes a descriptor only if it is the very directory whose names are being done: the tree may have been moved.
func (f *frame) adopt(fd int, err error) bool {
	if err != nil {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Dev != f.dev || st.Ino != f.ino {
		_ = unix.Close(fd)
		return false
	}
	f.fd = fd
	return true
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
