package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// scratch is a directory in which a tree is made before it gets its final name, so that nobody takes half of it for all. A lock on it
// tells other processes that somebody works in it; the kernel gives that up with the process.
type scratch struct {
	path string
	lock *os.File
}

// newScratch makes an empty directory in parent, and removes those of the same prefix that killed processes left there.
func newScratch(parent, prefix string) (*scratch, error) {
	if err := sweepScratch(parent, prefix); err != nil {
		return nil, err
	}
	for range scratchAttempts - 1 {
		if s, err := tryScratch(parent, prefix); err == nil {
			return s, nil
		}
	}
	return tryScratch(parent, prefix)
}

// scratchAttempts is how often a directory is made: another process that sweeps may take one for left over that is not locked yet.
const scratchAttempts = 5

func tryScratch(parent, prefix string) (*scratch, error) {
	path, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), os.RemoveAll(path))
	}
	if _, err := os.Lstat(path); err != nil { // it was swept between the two
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), lock.Close())
	}
	return &scratch{path: path, lock: lock}, nil
}

// sweepScratch removes our own directories that nobody has locked any more.
func sweepScratch(parent, prefix string) error {
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
		lock, err := lockDir(path)
		if err != nil {
			continue // somebody works in it, or it is not ours
		}
		errs = append(errs, removeTree(path), lock.Close())
	}
	return errors.Join(errs...)
}

// lockDir locks a directory of the caller's own; it does not wait.
func lockDir(path string) (*os.File, error) {
	dir, err := flockDir(path)
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

// flockDir locks any directory; it does not wait: [unix.EWOULDBLOCK] if somebody else has.
func flockDir(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// publish gives the directory its final name, where there may be an empty directory, once everything in it is on the disk.
func (s *scratch) publish(ctx context.Context, path string) error {
	if err := volume.Flush(ctx, s.path); err != nil {
		return err
	}
	if err := unix.Rename(s.path, path); err != nil { // unlike os.Rename, it replaces a directory that is empty
		return fmt.Errorf("rename %s to %s: %w", s.path, path, err)
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close(), s.lock.Close())
}

// remove removes the directory with everything in it.
func (s *scratch) remove() error { return errors.Join(removeTree(s.path), s.lock.Close()) }

// removeTree removes a directory, also if it has some that may not be written to: an ordinary user may restore or import them.
func removeTree(path string) error {
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
