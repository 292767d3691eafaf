package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/scratch"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// target is a directory that a restore makes. Where that is possible the tree is made beside it and then renamed: it is there as a
// whole, verified and on the disk, or not at all. A mount point and the working directory of this process keep their directory: the
// tree is made in it, and what was made is removed if the restore fails. It is locked meanwhile: another restore into it is refused.
type target struct {
	path   string
	mode   fs.FileMode  // of the directory that is there; 0 if there is none
	beside *scratch.Dir // nil if the tree is made in place
	lock   *os.File     // on the directory then
}

func newTarget(path string) (*target, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	t := &target{path: path}
	there, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s is a link to nothing: name a directory", path)
		}
	case err != nil:
		return nil, err
	default:
		if err := t.adopt(there); err != nil {
			return nil, err
		}
	}
	if t.mode == 0 || !t.mustStay(there) {
		t.beside, err = newScratch(filepath.Dir(t.path), filepath.Base(t.path)+".restoring-")
	}
	if t.mode != 0 && errors.Is(err, fs.ErrPermission) {
		err = nil // only the directory itself may be written to
	}
	if err == nil && t.beside == nil {
		err = t.hold()
	}
	return t, err
}

// hold locks the directory, which another restore may have filled since it was looked at.
func (t *target) hold() (err error) {
	t.lock, err = scratch.Lock(t.path)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is locked: another restore into it is at work, wait for it or name another directory", t.path)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", t.path, err)
	}
	if err := expectNothingIn(t.path); err != nil {
		return errors.Join(err, t.lock.Close())
	}
	return nil
}

// adopt looks at the directory that is there already.
func (t *target) adopt(there fs.FileInfo) (err error) {
	if t.path, err = filepath.EvalSymlinks(t.path); err != nil {
		return err
	}
	if !there.IsDir() {
		return fmt.Errorf("%s is not a directory: name one that is empty, or not there yet", t.path)
	}
	t.mode = there.Mode()
	return expectNothingIn(t.path)
}

func expectNothingIn(path string) error {
	names, err := os.ReadDir(path)
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%s is not empty (%s is there): restore into an empty or new directory", path, names[0].Name())
	}
	return err
}

// mustStay says whether another directory cannot take the place of the one that is there.
func (t *target) mustStay(there fs.FileInfo) bool {
	mounted, err := mountinfo.Mounted(t.path)
	if err != nil || mounted {
		return true
	}
	here, err := os.Stat(".")
	return err != nil || os.SameFile(here, there)
}

// dir is where the tree is made.
func (t *target) dir() string {
	if t.beside != nil {
		return t.beside.Path()
	}
	return t.path
}

// finish makes the tree visible and durable, or removes what there is of it if err is not nil.
func (t *target) finish(ctx context.Context, err error) error {
	switch {
	case t.beside != nil && err == nil:
		if err = publish(ctx, t.beside, t.path); err == nil {
			return nil
		}
		return errors.Join(err, t.beside.Remove())
	case t.beside != nil:
		return errors.Join(err, t.beside.Remove())
	case err == nil:
		return errors.Join(volume.Flush(ctx, t.path), t.lock.Close())
	default:
		return errors.Join(err, t.empty(), t.lock.Close())
	}
}

// empty brings a directory back to what it was.
func (t *target) empty() error {
	names, err := os.ReadDir(t.path)
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, scratch.RemoveTree(filepath.Join(t.path, name.Name())))
	}
	return errors.Join(append(errs, os.Chmod(t.path, t.mode))...)
}

// newScratch makes a directory in which a tree is made before it gets its final name, so that nobody takes half of it for all. It removes
// those of the same prefix that killed processes left.
func newScratch(parent, prefix string) (*scratch.Dir, error) {
	if err := scratch.Sweep(parent, prefix); err != nil {
		return nil, err
	}
	return scratch.Make(parent, prefix)
}

// publish gives a directory its final name, where there may be an empty directory, once everything in it is on the disk.
func publish(ctx context.Context, dir *scratch.Dir, path string) error {
	if err := volume.Flush(ctx, dir.Path()); err != nil {
		return err
	}
	if err := unix.Rename(dir.Path(), path); err != nil { // unlike os.Rename, it replaces a directory that is empty
		return fmt.Errorf("rename %s to %s: %w", dir.Path(), path, err)
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close(), dir.Unlock())
}
