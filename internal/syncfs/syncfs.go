// Package syncfs writes out whole filesystems.
package syncfs

import (
	"context"

	"golang.org/x/sys/unix"
)

// Sync writes out what is in memory only of the filesystem that a descriptor is on, which is much faster than flushing many files
// one by one. Nobody can interrupt the kernel in it: when ctx ends it goes on in its goroutine, with a descriptor of its own.
func Sync(ctx context.Context, fd int) error {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer unix.Close(own)
		done <- unix.Syncfs(own)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
