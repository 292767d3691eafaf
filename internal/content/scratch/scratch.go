// Package scratch makes directories for what is not to stay. A lock on each tells other processes that somebody works in it; the kernel
// gives that up with the process, and then the directory goes with the next sweep.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attempts is how often a directory is made: another process that sweeps may take one for left over that is not locked yet.
const attempts = 5

// Dir is a directory that is locked as long as this process lives. Nil is none.
type Dir struct {
	path string
	lock *os.File
}

// Make makes an empty directory in parent, whose name begins with prefix, for this user only.
func Make(parent, prefix string) (*Dir, error) {
	for range attempts - 1 {
		if d, err := try(parent, prefix); err == nil {
			return d, nil
		}
	}
	return try(parent, prefix)
}

func try(parent, prefix string) (*Dir, error) {
	path, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	lock, err := lockOwn(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), os.RemoveAll(path))
	}
	if _, err := os.Lstat(path); err != nil { // it was swept between the two
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), lock.Close())
	}
	return &Dir{path: path, lock: lock}, nil
}

// Path of the directory.
func (d *Dir) Path() string { return d.path }

// Unlock gives the directory up, which stays if it has another name by now.
func (d *Dir) Unlock() error { return d.lock.Close() }

// Remove removes the directory with everything in it, while it is locked: else another process could take it for left over.
func (d *Dir) Remove() error {
	if d == nil {
		return nil
	}
	return errors.Join(RemoveTree(d.path), d.lock.Close())
}

// Sweep removes this user's directories in parent that have such a name and that nobody has locked any more.
func Sweep(parent, prefix string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		path := filepath.Join(parent, e.Name())
		lock, err := lockOwn(path)
		if err != nil {
			continue // somebody works in it, or it is not ours
		}
		errs = append(errs, RemoveTree(path), lock.Close())
	}
	return errors.Join(errs...)
}

// lockOwn locks a directory of this user; it does not wait.
func lockOwn(path string) (*os.File, error) {
	dir, err := Lock(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(dir.Fd()), &st)
	if err == nil && int(st.Uid) != os.Geteuid() {
		err = fs.ErrPermission
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// Lock locks any directory until it is closed; it does not wait: [unix.EWOULDBLOCK] if somebody else has.
func Lock(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// RemoveTree removes a directory, also if it has some that may not be written to: an ordinary user may have made them.
func RemoveTree(path string) error {
	if os.Geteuid() != 0 {
		_ = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() {
				return os.Chmod(path, 0o700) //nolint:gosec // the user's own directory, of which nobody else knows
			}
			return err
		})
	}
	return os.RemoveAll(path)
}
