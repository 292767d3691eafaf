package quota

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// supported returns nil if limits of projects hold on the filesystem of a directory, for this process too, and else what is
// missing, with [volume.ErrUnlimited].
func supported(dir *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("ask for the file system of %s: %w", dir.Name(), err)
	}
	var missing string
	var err error
	switch st.Type {
	case unix.XFS_SUPER_MAGIC:
		missing, err = missingOnXFS(dir)
	case unix.EXT4_SUPER_MAGIC:
		missing, err = missingOnExt4(dir)
	default:
		missing = "it lies on neither XFS nor ext4"
	}
	switch {
	case err != nil:
		return err
	case missing != "":
		return fmt.Errorf("%w: %s: %s", volume.ErrUnlimited, dir.Name(), missing)
	case st.Type == unix.EXT4_SUPER_MAGIC:
		err = obeyLimits()
	}
	return errors.Join(err, heirless(dir))
}

func missingOnXFS(dir *os.File) (string, error) {
	_, enforced, err := state(dir)
	if err != nil || enforced {
		return "", err
	}
	return "its XFS is mounted without the option prjquota: unmount it and mount it with that, a remount does not do it " +
		"(for the root file system, boot with rootflags=prjquota)", nil
}

func missingOnExt4(dir *os.File) (string, error) {
	accounted, enforced, err := state(dir)
	switch {
	case err != nil || accounted && enforced:
		return "", err
	case accounted:
		return "its ext4 is mounted without the option prjquota: add it, and unmount and mount the file system", nil
	default:
		return "its ext4 has no project quota: unmount it, run tune2fs -O project,quota -Q prjquota on its device, " +
			"and mount it with the option prjquota", nil
	}
}

// state is stateOf, where a filesystem without any quota, which is no error, counts nothing.
func state(dir *os.File) (accounted, enforced bool, err error) {
	accounted, enforced, err = stateOf(dir)
	switch {
	case err == nil:
		return accounted, enforced, nil
	case !hasControl():
		return false, false, fmt.Errorf("%w: this kernel has no quotactl_fd: it needs Linux 5.14 or newer with quota", volume.ErrUnlimited)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return false, false, nil
	default:
		return false, false, fmt.Errorf("%w: %w", volume.ErrUnlimited, err)
	}
}

// heirless refuses a directory that gives a project to what is made in it: volumes could neither get one of their own nor lose
// it.
func heirless(dir *os.File) error {
	p, err := projectOf(dir)
	if err == nil && p.inherit {
		err = fmt.Errorf("%w: %s gives its project id %d to everything in it: use a directory that does not", volume.ErrUnlimited, dir.Name(), p.id)
	}
	return err
}
