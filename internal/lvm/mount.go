package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// mount mounts a device on a mount point, whose path no user can change. Nothing in it makes a device or gives rights.
func (d *Driver) mount(device, point string, options []string, attributes int) error {
	fs, err := unix.Fsopen(d.fs.name, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("mount %s: file system %s: %w", device, d.fs.name, err)
	}
	defer unix.Close(fs)
	err = unix.FsconfigSetString(fs, "source", device)
	for _, option := range options {
		if err == nil {
			err = unix.FsconfigSetFlag(fs, option)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return fmt.Errorf("mount %s (%s with %s): %w%s", device, d.fs.name, strings.Join(options, ","), err, complaints(fs))
	}
	attributes |= unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOATIME
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return fmt.Errorf("mount %s: %w%s", device, err, complaints(fs))
	}
	defer unix.Close(tree)
	at, err := unix.Open(point, unix.O_PATH|dirFlags, 0)
	if err != nil {
		return fmt.Errorf("mount %s: open %s: %w", device, point, err)
	}
	defer unix.Close(at)
	if err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s on %s: %w", device, point, err)
	}
	return nil
}

// complaints returns the kernel's own words about a mount that failed.
func complaints(fs int) string {
	var text strings.Builder
	line := make([]byte, 4096)
	for {
		n, err := unix.Read(fs, line)
		if err != nil || n <= 0 {
			return text.String()
		}
		text.WriteString(": " + strings.TrimSpace(string(line[:n])))
	}
}

// pauses between two attempts at what others keep from us for a moment: somebody looks at the volume, or a container that is
// being started still has a copy of all mounts.
const (
	attempts = 60
	pause    = 50 * time.Millisecond
)

// patiently repeats what fails because something is in use.
func patiently(ctx context.Context, try func() error) error {
	for range attempts - 1 {
		err := try()
		if !errors.Is(err, errBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
	return try()
}

// unmount takes a mount away; that there is none is no error. errBusy if somebody uses it.
func unmount(point string) error {
	err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("unmount %s: %w", point, errBusy)
	case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil
	default:
		return fmt.Errorf("unmount %s: %w", point, err)
	}
}

// takeAway unmounts a volume and makes sure that nobody has it: no process, no other mount of it, in any namespace. Otherwise
// it is ErrInUse, and the volume may or may not be mounted.
func (d *Driver) takeAway(ctx context.Context, point, device string) error {
	number, err := deviceNumber(device)
	if err != nil {
		return err
	}
	err = patiently(ctx, func() error {
		if err := unmount(point); err != nil {
			return err
		}
		held, err := exclusive(device, os.O_RDONLY)
		if err == nil {
			err = held.Close()
		}
		return err
	})
	if errors.Is(err, errBusy) {
		return fmt.Errorf("%w: %w: %s", volume.ErrInUse, err, holders(number))
	}
	return err
}

// holders names the processes that have a device mounted elsewhere, as far as this process can see them.
func holders(device uint64) string {
	number := fmt.Sprintf(" %d:%d ", unix.Major(device), unix.Minor(device))
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	own, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{own: true}
	var names []string
	for _, table := range tables {
		dir := filepath.Dir(table)
		space, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		data, readErr := os.ReadFile(table)
		if err != nil || readErr != nil || seen[space] || !strings.Contains(string(data), number) {
			continue
		}
		seen[space] = true
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		names = append(names, fmt.Sprintf("%s (%s)", filepath.Base(dir), strings.TrimSpace(string(name))))
	}
	if len(names) == 0 {
		return "a process has it open, or one that cannot be seen from here has it mounted: end it"
	}
	return "it is mounted where these processes are: " + strings.Join(names, ", ") + ": end them"
}
