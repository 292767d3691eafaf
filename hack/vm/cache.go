package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/hack/process"
)

// cache is the directory in which images and the files of runs lie.
type cache struct{ dir string }

func openCache() (cache, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return cache{}, fmt.Errorf("find cache directory: %w", err)
	}
	c := cache{filepath.Join(dir, "ws-daemon", "vm")}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return cache{}, fmt.Errorf("create cache directory: %w", err)
	}
	return c, nil
}

func (c cache) path(name string) string { return filepath.Join(c.dir, name) }

// lock waits until it is the only holder of a lock. The kernel releases it if the process is killed.
func (c cache) lock(ctx context.Context, name string, log io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(c.path(name+".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	for said := false; ; said = true {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !said {
			say(log, "waiting for another process (%s)", file.Name())
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = process.Pause(ctx, 200*time.Millisecond)
		}
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock cache: %w", err)
		}
	}
}

// runPrefix is how the names of directories of runs begin.
const runPrefix = "run-"

// newRun makes a directory for the files of one run, and removes those of runs that were killed. The directory is locked
// until done is called, which removes it.
func (c cache) newRun(ctx context.Context, log io.Writer) (dir string, done func(), err error) {
	unlock, err := c.lock(ctx, "runs", log)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	if err := c.sweep(); err != nil {
		return "", nil, err
	}
	dir, err = os.MkdirTemp(c.dir, runPrefix)
	if err != nil {
		return "", nil, fmt.Errorf("create directory of run: %w", err)
	}
	held, err := lockDir(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func() {
		_ = os.RemoveAll(dir)
		_ = held.Close()
	}, nil
}

// sweep removes directories of runs that nobody holds.
func (c cache) sweep() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("find old runs: %w", err)
	}
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), runPrefix) {
			continue
		}
		held, err := lockDir(c.path(entry.Name()))
		if err != nil {
			continue
		}
		err = os.RemoveAll(held.Name())
		_ = held.Close()
		if err != nil {
			return fmt.Errorf("remove old run: %w", err)
		}
	}
	return nil
}

// lockDir locks a directory, without waiting.
func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return dir, nil
}

// say prints a line of progress.
func say(log io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(log, "vm: "+format+"\n", args...)
}

// since gives a time span as it is printed.
func since(start time.Time) string { return seconds(time.Since(start)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
