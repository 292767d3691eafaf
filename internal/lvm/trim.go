package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

var _ volume.Trimmer = (*Driver)(nil)

const (
	fileSystemTrim = 0xc018_5879 // FITRIM of linux/fs.h
	// trimStep is how much is trimmed between two looks at the context.
	trimStep = 1 << 30
)

// Trim gives blocks back to the pool that files had which were removed. File systems tell nobody of them unless they are asked to.
func (d *Driver) Trim(ctx context.Context) error {
	r, err := d.report(ctx)
	if err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	var errs []error
	for _, id := range r.ids("") {
		err := d.With(ctx, id, "trim", func(v *volume.Opened) error { return trim(ctx, v.Descriptor()) })
		if !errors.Is(err, volume.ErrNotFound) { // it went meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// trim gives back what is free in a mounted file system.
func trim(ctx context.Context, root *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return err
	}
	for at, size := uint64(0), st.Blocks*uint64(st.Bsize); at < size; at += trimStep {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		area := [3]uint64{at, min(trimStep, size-at), 0}
		if err := ioctl(root, fileSystemTrim, unsafe.Pointer(&area)); err != nil { //nolint:gosec // the kernel reads or fills it
			return err
		}
	}
	return nil
}
