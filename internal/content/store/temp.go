package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// temp is a file without a key, written before it gets one. Where the file system can, it has no name until then: whoever is killed
// leaves nothing.
type temp struct {
	file *os.File
	dir  *os.File // where its name is; nil: it has none
	name string
}

// newTemp makes a file that has a name only if it must.
func newTemp(root *os.File) (*temp, error) {
	fd, err := unix.Openat(descriptor(root), ".", unix.O_WRONLY|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	switch {
	case err == nil:
		return &temp{file: newFile(fd, "a temporary file")}, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR): // as network file systems say it, and old ones
		return newNamedTemp(root)
	}
	return nil, fmt.Errorf("create a temporary file: %w", err)
}

func newNamedTemp(root *os.File) (*temp, error) {
	err := unix.Mkdirat(descriptor(root), tempDir, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make directory %s: %w", tempDir, err)
	}
	dir, err := openBeneath(root, tempDir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	name := tempPrefix + strings.ToLower(rand.Text())
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(descriptor(dir), name, flags, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create a temporary file: %w", err), dir.Close())
	}
	return &temp{dir: dir, file: newFile(fd, name), name: name}, nil
}

// write stores all data durably.
func (t *temp) write(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := t.file.Write(data[:min(len(data), writeChunk)])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.file.Sync()
}

func (t *temp) modified() (time.Time, error) {
	st, err := t.stat()
	return time.Unix(st.Mtim.Unix()).UTC(), err
}

func (t *temp) stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(descriptor(t.file), &st)
	return st, err
}

// link gives the file its final name unless that is taken.
func (t *temp) link(parent *os.File, name string) error {
	err := t.linkat(parent, name)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// A network file system repeats a request whose answer got lost and then finds its own work: a second link of a file
	// nobody else knows is ours.
	if st, statErr := t.stat(); statErr == nil && t.dir != nil && st.Nlink > 1 {
		return nil
	}
	return ErrExists
}

func (t *temp) linkat(parent *os.File, name string) error {
	if t.dir != nil {
		return unix.Linkat(descriptor(t.dir), t.name, descriptor(parent), name, 0)
	}
	err := unix.Linkat(descriptor(t.file), "", descriptor(parent), name, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOENT) { // so the kernel says that this is for root only
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", descriptor(t.file)), descriptor(parent), name, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		return err
	}
	return t.file.Sync() // that it has a name is news to the disk
}

// remove ignores errors: a file that stays is swept later.
func (t *temp) remove() {
	_ = t.file.Close()
	if t.dir != nil {
		_ = unix.Unlinkat(descriptor(t.dir), t.name, 0)
		_ = t.dir.Close()
	}
}

// sweep removes files that killed writers left behind, by the store's clock, which this one tells.
func (t *temp) sweep(ctx context.Context, root *os.File) error {
	now, err := t.modified()
	if err != nil {
		return err
	}
	dir, err := openBeneath(root, tempDir, unix.O_RDONLY|unix.O_DIRECTORY)
	if absent(err) {
		return nil // nobody ever had to give one a name
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = errors.Join(err, sweepOne(dir, name, now.Add(-tempAge)))
	}
	return err
}

// sweepOne removes a temporary file that was written last before a time. Other nodes sweep, too.
func sweepOne(dir *os.File, name string, before time.Time) error {
	var st unix.Stat_t
	err := unix.Fstatat(descriptor(dir), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && strings.HasPrefix(name, tempPrefix) && time.Unix(st.Mtim.Unix()).Before(before) {
		err = unix.Unlinkat(descriptor(dir), name, 0)
	}
	if absent(err) {
		return nil
	}
	return err
}
