package volume

import (
	"context"
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
	usage, err := Measure(ctx, v.dir)
	if err != nil {
		return Usage{}, fmt.Errorf("measure volume %s: %w", id, err)
	}
	return usage, nil
}

// Measure reads a tree and sums up what is in it, the directory itself included.
func Measure(ctx context.Context, dir *os.File) (Usage, error) {
	m := &meter{linked: map[[2]uint64]bool{}}
	err := Walk(ctx, dir, m.count)
	return m.usage, err
}

// Walk visits every directory of a tree, with its own descriptor and the name "", and everything else, with the descriptor of
// the directory that it lies in. It crosses no mount and follows no link; what vanishes meanwhile is passed over.
func Walk(ctx context.Context, dir *os.File, visit func(dir *os.File, name string, st unix.Statx_t) error) error {
	w := &walker{visit: visit}
	defer w.close()
	return w.walk(ctx, int(dir.Fd()))
}

// meter counts what a tree takes.
type meter struct {
	usage  Usage
	linked map[[2]uint64]bool
}

func (m *meter) count(_ *os.File, _ string, st unix.Statx_t) error {
	if st.Nlink > 1 && !isDir(st) {
		file := [2]uint64{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
		if m.linked[file] {
			return nil
		}
		m.linked[file] = true
	}
	m.usage.Inodes++
	m.usage.Bytes += int64(st.Blocks) * 512
	return nil
}
