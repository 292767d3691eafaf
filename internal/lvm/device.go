package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// exclusive opens a device that nothing has mounted, in no mount namespace: the kernel gives it to one holder only. errBusy.
func exclusive(path string, mode int) (*os.File, error) {
	device, err := os.OpenFile(path, mode|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open %s: %w", path, errBusy)
	}
	return device, err
}

// discardStep is how much is discarded between two looks at the context.
const discardStep = 1 << 30

// wipe gives all blocks of a device back: it reads as zeros from then on. The pool passes that on to the disk below, if its
// discards are passdown.
func wipe(ctx context.Context, path string) error {
	device, err := exclusive(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer device.Close()
	size, err := deviceSize(device)
	for at := uint64(0); at < size && err == nil; at += discardStep {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		area := [2]uint64{at, min(discardStep, size-at)}
		err = ioctl(device, unix.BLKDISCARD, unsafe.Pointer(&area)) //nolint:gosec // the kernel reads or fills it
	}
	if err != nil {
		return fmt.Errorf("discard %s: %w", path, err)
	}
	return nil
}

func deviceSize(device *os.File) (uint64, error) {
	var size uint64
	err := ioctl(device, unix.BLKGETSIZE64, unsafe.Pointer(&size)) //nolint:gosec // the kernel reads or fills it
	return size, err
}

// ioctl passes a pointer to a structure of the kernel's.
func ioctl(f *os.File, request uint, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}

// deviceNumber returns the number of the device at a path, 0 if there is none.
func deviceNumber(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Rdev, nil
}
