package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tempDir    = ".tmp"
	tempPrefix = ".tmp-"
	tempAge    = 24 * time.Hour
	writeChunk = 4 << 20
)

// filesystem is a store in a directory. It keeps no descriptor between calls: that would hide an unmount, or prevent it.
type filesystem struct {
	dir   string
	sweep sync.Once
	temp  func(root *os.File) (*temp, error)
}

// NewFilesystem returns the store in an existing directory, given by its absolute path. The directory is never created:
// a missing one is a missing mount. All of it must be on one file system that has hard links.
func NewFilesystem(dir string) (Store, error) {
	if !filepath.IsAbs(dir) || strings.ContainsRune(dir, 0) {
		return nil, fmt.Errorf("open store %q: the path must be absolute", dir)
	}
	f := &filesystem{dir: filepath.Clean(dir), temp: newTemp}
	root, err := f.root()
	if err != nil {
		return nil, err
	}
	return f, root.Close()
}

func (f *filesystem) String() string {
	return (&url.URL{Scheme: "file", Path: f.dir}).String()
}

func (f *filesystem) Put(ctx context.Context, key string, data []byte) error {
	if err := CheckKey(key); err != nil {
		return fmt.Errorf("put into %s: %w", f, err)
	}
	if err := f.put(ctx, key, data); err != nil {
		return fmt.Errorf("put %s into %s: %w", key, f, advised(err))
	}
	return nil
}

// advised says what to do about a file system that takes nothing more.
func advised(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return &RefusedError{Err: err, Advice: "the store is full: give it more room, or raise its quota"}
	case errors.Is(err, unix.EROFS):
		return &RefusedError{Err: err, Advice: "mount the store such that it can be written to"}
	}
	return err
}

func (f *filesystem) put(ctx context.Context, key string, data []byte) error {
	root, err := f.confirmed(ctx, key)
	if err != nil {
		return err
	}
	defer root.Close()
	tmp, err := f.temp(root)
	if err != nil {
		return err
	}
	defer tmp.remove()
	f.sweep.Do(func() { _ = tmp.sweep(ctx, root) }) // housekeeping
	if err := tmp.write(ctx, data); err != nil {
		return err
	}
	parent, err := makeParents(root, key)
	if err != nil {
		return err
	}
	defer parent.Close()
	return publish(ctx, tmp, parent, path.Base(key))
}

// publish gives a complete temporary file its name.
func publish(ctx context.Context, tmp *temp, parent *os.File, name string) error {
	// Last look: a call that its caller gave up, and whose data may have been changed since, must not publish.
	if err := ctx.Err(); err != nil {
		return err
	}
	linkErr := tmp.link(parent, name)
	if linkErr != nil && !errors.Is(linkErr, ErrExists) {
		return linkErr
	}
	// Also if the name was taken: its writer may have died before this, and callers rely on what exists.
	if err := parent.Sync(); err != nil {
		return err
	}
	return linkErr
}

func (f *filesystem) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	file, o, err := f.object(ctx, "get", key, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if o.Size > limit {
		return nil, fmt.Errorf("get %s from %s: %w: %d bytes, at most %d are allowed", key, f, ErrTooLarge, o.Size, limit)
	}
	data := make([]byte, o.Size)
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, fmt.Errorf("get %s from %s: %w", key, f, err)
	}
	return data, nil
}

func (f *filesystem) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	file, o, err := f.object(ctx, "read", key, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer file.Close()
	if offset < 0 || offset > o.Size-int64(len(buf)) {
		return fmt.Errorf("read %s from %s: it has %d bytes, %d from %d on were asked for: %w",
			key, f, o.Size, len(buf), offset, ErrTooShort)
	}
	if _, err := io.ReadFull(io.NewSectionReader(file, offset, int64(len(buf))), buf); err != nil {
		return fmt.Errorf("read %s from %s: %w", key, f, err)
	}
	return nil
}

func (f *filesystem) Stat(ctx context.Context, key string) (Object, error) {
	file, o, err := f.object(ctx, "stat", key, unix.O_PATH)
	if err != nil {
		return Object{}, err
	}
	return o, file.Close()
}

// object opens and describes one object.
func (f *filesystem) object(ctx context.Context, op, key string, flags int) (*os.File, Object, error) {
	if err := CheckKey(key); err != nil {
		return nil, Object{}, fmt.Errorf("%s from %s: %w", op, f, err)
	}
	root, err := f.open(ctx)
	if err != nil {
		return nil, Object{}, fmt.Errorf("%s %s: %w", op, key, err)
	}
	defer root.Close()
	file, o, err := openObject(root, key, flags)
	if errors.Is(err, ErrNotFound) && key != IdentityKey {
		err = cmp.Or(f.confirm(root), err)
	}
	if err != nil {
		return nil, Object{}, fmt.Errorf("%s %s from %s: %w", op, key, f, err)
	}
	return file, o, nil
}

func openObject(root *os.File, key string, flags int) (*os.File, Object, error) {
	file, err := openBeneath(root, key, flags)
	if absent(err) {
		return nil, Object{}, ErrNotFound
	}
	if err != nil {
		return nil, Object{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(descriptor(file), &st); err != nil {
		return nil, Object{}, errors.Join(err, file.Close())
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return file, describe(key, &st), nil
	case unix.S_IFDIR:
		return nil, Object{}, errors.Join(ErrNotFound, file.Close())
	default:
		return nil, Object{}, errors.Join(errors.New("it is not a regular file"), file.Close())
	}
}

func (f *filesystem) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := CheckKey(key); err != nil {
			return fmt.Errorf("delete from %s: %w", f, err)
		}
	}
	root, err := f.confirmed(ctx, "")
	if err != nil {
		return fmt.Errorf("delete from %s: %w", f, err)
	}
	defer root.Close()
	for _, key := range keys {
		if err := errors.Join(ctx.Err(), remove(root, key)); err != nil {
			return fmt.Errorf("delete %s from %s: %w", key, f, err)
		}
	}
	return nil
}

// remove leaves directories alone, also empty ones: a concurrent Put may be about to use them.
func remove(root *os.File, key string) error {
	parent, err := openBeneath(root, path.Dir(key), unix.O_RDONLY|unix.O_DIRECTORY)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	err = unix.Unlinkat(descriptor(parent), path.Base(key), 0)
	if absent(err) || errors.Is(err, unix.EISDIR) {
		return nil
	}
	return err
}

func (f *filesystem) Now(ctx context.Context) (time.Time, error) {
	root, err := f.confirmed(ctx, "")
	if err != nil {
		return time.Time{}, fmt.Errorf("read the clock of %s: %w", f, err)
	}
	defer root.Close()
	tmp, err := f.temp(root)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the clock of %s: %w", f, err)
	}
	defer tmp.remove()
	now, err := tmp.modified()
	if err != nil {
		return time.Time{}, fmt.Errorf("read the clock of %s: %w", f, err)
	}
	return now, nil
}

// Sweep removes what killed writers left behind.
func (f *filesystem) Sweep(ctx context.Context) error {
	root, err := f.confirmed(ctx, "")
	if err != nil {
		return fmt.Errorf("sweep %s: %w", f, err)
	}
	defer root.Close()
	tmp, err := f.temp(root)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", f, err)
	}
	defer tmp.remove()
	if err := tmp.sweep(ctx, root); err != nil {
		return fmt.Errorf("sweep %s: %w", f, err)
	}
	return nil
}

func (f *filesystem) open(ctx context.Context) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.root()
}

func (f *filesystem) root() (*os.File, error) {
	root, err := os.OpenFile(f.dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open store %s: it must be an existing directory, is it mounted?: %w", f, err)
	}
	return root, nil
}

// confirmed opens the root of an initialized store; the identity itself is written where there is none yet.
func (f *filesystem) confirmed(ctx context.Context, key string) (*os.File, error) {
	root, err := f.open(ctx)
	if err != nil || key == IdentityKey {
		return root, err
	}
	if err := f.confirm(root); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// confirm tells an initialized store from an empty mount point.
func (f *filesystem) confirm(root *os.File) error {
	var st unix.Stat_t
	err := unix.Fstatat(descriptor(root), IdentityKey, &st, unix.AT_SYMLINK_NOFOLLOW)
	if absent(err) {
		return NotInitialized(f.String())
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", IdentityKey, err)
	}
	return nil
}

// makeParents opens the directory of a key, which it creates if need be.
func makeParents(root *os.File, key string) (*os.File, error) {
	parts := strings.Split(key, "/")
	dir, err := openBeneath(root, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	for _, part := range parts[:len(parts)-1] {
		if err != nil {
			return nil, err
		}
		var next *os.File
		next, err = makeDir(dir, part)
		err = errors.Join(err, dir.Close())
		dir = next
	}
	return dir, err
}

func makeDir(parent *os.File, name string) (*os.File, error) {
	err := unix.Mkdirat(descriptor(parent), name, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make directory %s: %w", name, err)
	}
	// Also if it was there: whoever made it may not have got as far as this.
	if err := parent.Sync(); err != nil {
		return nil, err
	}
	return openBeneath(parent, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// openBeneath opens a path below dir. Nothing in the path is followed, so that a link planted in a store leads nowhere.
func openBeneath(dir *os.File, name string, flags int) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(descriptor(dir), name, how)
		if err == nil {
			return newFile(fd, filepath.Join(dir.Name(), name)), nil
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
	}
}

func newFile(fd int, name string) *os.File {
	return os.NewFile(uintptr(fd), name)
}

func descriptor(f *os.File) int {
	return int(f.Fd())
}

// absent reports that a name does not exist; ENOTDIR is what the kernel says below an object.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

func describe(key string, st *unix.Stat_t) Object {
	return Object{Key: key, Size: st.Size, Modified: time.Unix(st.Mtim.Unix()).UTC()}
}
