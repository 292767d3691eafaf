package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// WriterError says that a process has a file open for writing in content that nobody should use any more.
type WriterError struct {
	// Path of the directory with the content, and name of the file in its directory.
	Path, Name string
}

// Error names the file and says what to do.
func (e *WriterError) Error() string {
	return fmt.Sprintf("a process that belongs to no known pod has %q below %s open for writing: find it (fuser -v) and end it", e.Name, e.Path)
}

// CheckWriters fails with a *WriterError if any regular file below path is open for writing, or mapped so. Neither changed
// times nor the absence of pods would tell: the kernel does, by refusing a read lease. What cannot be read says nothing, and is
// named by the backup.
func CheckWriters(ctx context.Context, path string) error {
	dir, err := os.OpenFile(path, dirFlags, 0)
	if err != nil {
		return fmt.Errorf("look for writers: %w", err)
	}
	defer dir.Close()
	w := &walker{lenient: true, visit: func(dir *os.File, name string, st unix.Statx_t) error {
		if name == "" || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
		open, err := staysWritten(ctx, int(dir.Fd()), name)
		if err == nil && open {
			err = &WriterError{Path: path, Name: name}
		}
		return err
	}}
	defer w.close()
	if err := w.walk(ctx, int(dir.Fd())); err != nil {
		return fmt.Errorf("look for writers: %w", err)
	}
	return nil
}

// staysWritten says whether a file is open for writing and stays so for a moment: a process that is being started has the
// descriptors of the one that starts it, until it is itself.
func staysWritten(ctx context.Context, dir int, name string) (open bool, err error) {
	const looks, pause = 40, 25 * time.Millisecond
	for range looks {
		if open, err = written(dir, name); err != nil || !open {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
	return true, nil
}

// written says whether somebody has a file open for writing. A file that cannot be opened, or a filesystem without leases, says
// nothing; that we may not ask is an error.
func written(dir int, name string) (bool, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil // it is not there any more, or reading it has been reported
	}
	defer func() { _ = unix.Close(fd) }() // gives the lease back
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EACCES) {
		return false, fmt.Errorf("ask whether %q is open for writing: %w: the daemon needs the capability LEASE", name, err)
	}
	return errors.Is(err, unix.EAGAIN), nil
}
