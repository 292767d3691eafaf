package volume

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openLevels is how many directories are held open above the one that is read; hostile trees can be deeper than a process
// has descriptors.
const openLevels = 64

// walker visits a tree depth first, with a stack of its own. What vanishes meanwhile is passed over, and so is what is mounted.
type walker struct {
	// visit is called with a directory's own descriptor and the name "", and for everything else that lies in it.
	visit func(dir *os.File, name string, st unix.Statx_t) error
	// lenient passes over what cannot be looked at.
	lenient bool
	stack   []level
}

// level is a directory on the way down.
type level struct {
	dir     *os.File // nil when it was closed to save descriptors
	is      unix.Statx_t
	pending []string
}

func (w *walker) walk(ctx context.Context, dir int) error {
	if err := w.push(ctx, dir, "."); err != nil {
		return err
	}
	for len(w.stack) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		top := &w.stack[len(w.stack)-1]
		if len(top.pending) == 0 {
			if err := w.pop(); err != nil {
				return err
			}
			continue
		}
		name := top.pending[len(top.pending)-1]
		top.pending = top.pending[:len(top.pending)-1]
		if err := w.push(ctx, int(top.dir.Fd()), name); err != nil {
			return err
		}
	}
	return nil
}

// push enters a directory, and visits it and all that lies in it.
func (w *walker) push(ctx context.Context, dir int, name string) error {
	f, err := openFile(dir, name, dirFlags)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil && w.lenient {
		return nil
	}
	if err != nil {
		return err
	}
	l := level{dir: f}
	l.is, err = stat(int(f.Fd()), "")
	if err == nil {
		err = w.visit(f, "", l.is)
	}
	if err == nil {
		l.pending, err = w.entries(ctx, f)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	w.stack = append(w.stack, l)
	if above := len(w.stack) - 1 - openLevels; above >= 0 {
		_ = w.stack[above].dir.Close()
		w.stack[above].dir = nil
	}
	return nil
}

// entries visits everything in a directory but the directories, whose names it returns.
func (w *walker) entries(ctx context.Context, dir *os.File) ([]string, error) {
	var dirs []string
	for ctx.Err() == nil {
		names, err := dir.Readdirnames(batch)
		if len(names) == 0 && w.lenient {
			return dirs, nil
		}
		if len(names) == 0 {
			return dirs, atEnd(err)
		}
		for _, name := range names {
			st, err := stat(int(dir.Fd()), name)
			if errors.Is(err, unix.ENOENT) || err != nil && w.lenient {
				continue
			}
			if err != nil {
				return nil, err
			}
			if isDir(st) {
				dirs = append(dirs, name)
				continue
			}
			if err := w.visit(dir, name, st); err != nil {
				return nil, err
			}
		}
	}
	return nil, context.Cause(ctx)
}

// pop leaves a directory. If the one above was closed it is opened again from below, and has to be the same one: a
// directory that was moved meanwhile could lead anywhere.
func (w *walker) pop() error {
	last := len(w.stack) - 1
	left := w.stack[last].dir
	defer left.Close()
	w.stack = w.stack[:last]
	if last == 0 || w.stack[last-1].dir != nil {
		return nil
	}
	fd, err := unix.Openat(int(left.Fd()), "..", dirFlags, 0)
	if err != nil {
		return err
	}
	above := os.NewFile(uintptr(fd), "..")
	w.stack[last-1].dir = above
	st, err := stat(fd, "")
	if err != nil {
		return err
	}
	if !sameFile(st, w.stack[last-1].is) {
		return errors.New("a directory was moved while the tree was walked: try again")
	}
	return nil
}

func (w *walker) close() {
	for _, l := range w.stack {
		if l.dir != nil {
			_ = l.dir.Close()
		}
	}
}
