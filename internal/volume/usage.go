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
	m := &meter{linked: map[[2]uint64]bool{}}
	w := &walker{visit: m.count}
	defer w.close()
	if err := w.walk(ctx, int(v.dir.Fd())); err != nil {
		return Usage{}, fmt.Errorf("measure volume %s: %w", id, err)
	}
	return m.usage, nil
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
