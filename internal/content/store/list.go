package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func (f *filesystem) List(ctx context.Context, prefix, after string, limit int) ([]Object, error) {
	objects, err := f.list(ctx, prefix, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list %q in %s: %w", prefix, f, err)
	}
	return objects, nil
}

func (f *filesystem) list(ctx context.Context, prefix, after string, limit int) ([]Object, error) {
	dir, name, err := splitPrefix(prefix)
	if err != nil {
		return nil, err
	}
	root, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	l := &lister{prefix: dir + name, after: after, limit: limit}
	if err := l.descend(ctx, root, dir+".", dir); err != nil {
		return nil, err
	}
	// Last, because the directory may have been removed under the walk.
	return l.objects, f.confirm(root)
}

// lister walks directories in the order of the keys below them and reads only those that hold keys asked for.
type lister struct {
	prefix, after string
	limit         int
	objects       []Object
}

func (l *lister) full() bool {
	return l.limit > 0 && len(l.objects) >= l.limit
}

// descend visits the directory at path, relative to parent; base is what the keys below it begin with.
func (l *lister) descend(ctx context.Context, parent *os.File, path, base string) error {
	dir, err := openBeneath(parent, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	keys, err := l.read(dir, base)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", base, err)
	}
	for _, key := range keys {
		if l.full() {
			return nil
		}
		if err := l.visit(ctx, dir, base, key); err != nil {
			return err
		}
	}
	return nil
}

// read returns the keys in a directory in order, subdirectories with a slash at the end: that is what sorts their keys.
func (l *lister) read(dir *os.File, base string) ([]string, error) {
	entries, err := dir.ReadDir(-1)
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		key := base + e.Name()
		if e.IsDir() {
			key += "/"
		}
		if (e.IsDir() || e.Type().IsRegular()) && l.wanted(key) && checkComponent(e.Name()) == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys) // some file systems tell of a name twice while a directory changes
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the directory was removed meanwhile
	}
	return keys, err
}

// wanted reports whether an object of that key, or one below that directory, can be asked for.
func (l *lister) wanted(key string) bool {
	if !strings.HasPrefix(key, l.prefix) || len(key) > maxKey {
		return false
	}
	if strings.HasSuffix(key, "/") && strings.HasPrefix(l.after, key) {
		return true
	}
	return key > l.after
}

func (l *lister) visit(ctx context.Context, dir *os.File, base, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := strings.TrimPrefix(key, base)
	if sub, isDir := strings.CutSuffix(name, "/"); isDir {
		return l.descend(ctx, dir, sub, key)
	}
	var st unix.Stat_t
	err := unix.Fstatat(descriptor(dir), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if absent(err) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("stat %s: %w", key, err)
	}
	l.objects = append(l.objects, describe(key, &st))
	return nil
}
