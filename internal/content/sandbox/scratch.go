package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	scratchPrefix = "ws-daemon-task-"
	// scratchAttempts is how often a directory is made: another daemon that starts may take one for left over that is not locked yet.
	scratchAttempts = 5
)

// scratch is a directory for temporary files of a task that cannot have one of its own. It is locked as long as this process lives.
// Nil is none.
type scratch struct {
	dir  string
	lock *os.File
}

func (s *Sandbox) scratch(job Job) (*scratch, error) {
	if s.flags&syscall.CLONE_NEWNS != 0 {
		return nil, nil
	}
	var made *scratch
	var err error
	for range scratchAttempts {
		if made, err = tryScratch(job); err == nil {
			break
		}
	}
	return made, err
}

func tryScratch(job Job) (*scratch, error) {
	dir, err := os.MkdirTemp("", scratchPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := lockScratch(dir)
	if err == nil {
		err = os.Chown(dir, int(job.UID), int(job.GID)) // it fails if the directory was swept before it was locked
	}
	if err != nil {
		return nil, errors.Join(err, (&scratch{dir, lock}).remove())
	}
	return &scratch{dir, lock}, nil
}

func (s *scratch) path() string {
	if s == nil {
		return ""
	}
	return s.dir
}

// remove removes the directory while it is locked: else another daemon could take it for left over.
func (s *scratch) remove() error {
	if s == nil {
		return nil
	}
	err := os.RemoveAll(s.dir)
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

func lockScratch(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweepScratch removes what killed daemons have left: nobody has it locked any more.
func sweepScratch() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), scratchPrefix+"*"))
	for _, dir := range left {
		if lock, err := lockScratch(dir); err == nil {
			_ = (&scratch{dir, lock}).remove()
		}
	}
}
