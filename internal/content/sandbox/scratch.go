package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"wsdaemon.dev/ws-daemon/internal/content/scratch"
)

const (
	scratchPrefix = "ws-daemon-task-"
	// scratchTask is the directory in it that the task's user has.
	scratchTask = "tmp"
)

// scratch makes a directory for temporary files of a task that cannot have one of its own; nil for the others.
func (s *Sandbox) scratch(job Job) (*scratch.Dir, error) {
	if s.flags&syscall.CLONE_NEWNS != 0 {
		return nil, nil
	}
	made, err := scratch.Make(os.TempDir(), scratchPrefix)
	if err != nil {
		return nil, err
	}
	task := taskPath(made)
	err = errors.Join(os.Chmod(made.Path(), 0o711), os.Mkdir(task, 0o700), os.Chown(task, int(job.UID), int(job.GID))) //nolint:gosec // the task passes here
	if err != nil {
		return nil, errors.Join(err, made.Remove())
	}
	return made, nil
}

// taskPath is what the task is told of its directory.
func taskPath(d *scratch.Dir) string {
	if d == nil {
		return ""
	}
	return filepath.Join(d.Path(), scratchTask)
}
