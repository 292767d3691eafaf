package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Usage reads the whole tree, because nothing else counts what a plain directory uses.
func (d *Directory) Usage(ctx context.Context, id string) (Usage, error) {
	v, err := d.volume(ctx, id)
	if err != nil {
		return Usage{}, err
	}
	defer v.Close()
	m := &meter{linked: map[[2]uint64]bool{}}
	defer m.close()
	if err := m.measure(ctx, int(v.dir.Fd())); err != nil {
		return Usage{}, fmt.Errorf("measure volume %s: %w", id, err)
	}
	return m.usage, nil
}

// openLevels is how many directories are held open above the one that is read; hostile trees can be deeper than a process
// has descriptors.
const openLevels = 64

// meter walks a tree depth first, with a stack of its own.
type meter struct {
	usage  Usage
	linked map[[2]uint64]bool
	stack  []level
}

// level is a directory on the way down.
type level struct {
	dir     *os.File // nil when it was closed to save descriptors
	is      unix.Statx_t
	pending []string
}

func (m *meter) measure(ctx context.Context, dir int) error {
	if err := m.push(ctx, dir, "."); err != nil {
		return err
	}
	for len(m.stack) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		top := &m.stack[len(m.stack)-1]
		if len(top.pending) == 0 {
			if err := m.pop(); err != nil {
				return err
			}
			continue
		}
		name := top.pending[len(top.pending)-1]
		top.pending = top.pending[:len(top.pending)-1]
		if err := m.push(ctx, int(top.dir.Fd()), name); err != nil {
			return err
		}
	}
	return nil
}

// push enters a directory, and counts it and all that lies in it. What vanished is not counted, nor what is mounted.
func (m *meter) push(ctx context.Context, dir int, name string) error {
	f, err := openFile(dir, name, dirFlags)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	l := level{dir: f}
	l.is, err = stat(int(f.Fd()), "")
	if err == nil {
		m.count(l.is)
		l.pending, err = m.entries(ctx, f)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	m.stack = append(m.stack, l)
	if above := len(m.stack) - 1 - openLevels; above >= 0 {
		_ = m.stack[above].dir.Close()
		m.stack[above].dir = nil
	}
	return nil
}

// entries counts everything in a directory but the directories, whose names it returns.
func (m *meter) entries(ctx context.Context, dir *os.File) ([]string, error) {
	var dirs []string
	for ctx.Err() == nil {
		names, err := dir.Readdirnames(batch)
		if len(names) == 0 {
			return dirs, atEnd(err)
		}
		for _, name := range names {
			st, err := stat(int(dir.Fd()), name)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if isDir(st) {
				dirs = append(dirs, name)
				continue
			}
			m.count(st)
		}
	}
	return nil, context.Cause(ctx)
}

func (m *meter) count(st unix.Statx_t) {
	if st.Nlink > 1 && !isDir(st) {
		file := [2]uint64{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
		if m.linked[file] {
			return
		}
		m.linked[file] = true
	}
	m.usage.Inodes++
	m.usage.Bytes += int64(st.Blocks) * 512
}

// pop leaves a directory. If the one above was closed it is opened again from below, and has to be the same one: a
// directory that was moved meanwhile could lead anywhere.
func (m *meter) pop() error {
	last := len(m.stack) - 1
	left := m.stack[last].dir
	defer left.Close()
	m.stack = m.stack[:last]
	if last == 0 || m.stack[last-1].dir != nil {
		return nil
	}
	fd, err := unix.Openat(int(left.Fd()), "..", dirFlags, 0)
	if err != nil {
		return err
	}
	above := os.NewFile(uintptr(fd), "..")
	m.stack[last-1].dir = above
	st, err := stat(fd, "")
	if err != nil {
		return err
	}
	if !sameFile(st, m.stack[last-1].is) {
		return errors.New("a directory was moved while it was measured: try again")
	}
	return nil
}

func (m *meter) close() {
	for _, l := range m.stack {
		if l.dir != nil {
			_ = l.dir.Close()
		}
	}
}
