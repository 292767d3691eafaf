package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrReadOnly means that nothing can be written to a disk.
var ErrReadOnly = errors.New("mounted read-only: look for errors of the disk in the kernel's log (dmesg), repair it, and mount it writable")

// Room is what a disk has, and what of it can still be written.
type Room struct {
	// Size of the disk in bytes, without what it keeps for root, and how many of them are free. Their ratio is that of df.
	Size, Free int64
	// Inodes that the disk has, and how many of them are free; both 0 if it does not count them.
	Inodes, FreeInodes int64
}

// Fill is how full a thin pool is, in percent.
type Fill struct{ Data, Metadata float64 }

// Capacity is what a driver's disk offers.
type Capacity struct {
	Room
	// Allocated is the sum of the sizes of all volumes, in bytes.
	Allocated int64
	// Spare is how much may still be promised to volumes, in bytes; nil where it may be more than there is.
	Spare *int64
	// Thin is how full the thin pool is; nil where there is none.
	Thin *Fill
}

// MeasureRoom measures the filesystem that a directory or file lies on; ErrReadOnly if nothing can be written to it.
func MeasureRoom(f *os.File) (Room, error) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(int(f.Fd()), &st) }); err != nil {
		return Room{}, fmt.Errorf("measure %s: %w", f.Name(), err)
	}
	r := Room{
		Size: int64(st.Blocks-st.Bfree+st.Bavail) * st.Frsize, Free: int64(st.Bavail) * st.Frsize,
		Inodes: int64(st.Files), FreeInodes: int64(st.Ffree),
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return r, fmt.Errorf("%s is %w", f.Name(), ErrReadOnly)
	}
	return r, nil
}

// Trimmer is a [Driver] whose disk has to be told what volumes do not need any more.
type Trimmer interface {
	// Trim gives what was removed from volumes in use back to the disk.
	Trim(ctx context.Context) error
}
