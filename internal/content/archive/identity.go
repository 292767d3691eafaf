package archive

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// identity tells on which tree an index is worth anything: by the inode of its top, and the nanosecond in which that was made. Both
// stay when a disk gets another device number, at the next start for example, and in copies of a whole file system: images of one
// moment, and volumes that begin as a copy of another. Where a file system does not tell births, it is the device number.
func identity(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return 0, fmt.Errorf("look at the top of the tree: %w", err)
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
	}
	return mix(mix(st.Ino) + uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec)), nil
}

// mix spreads the bits of a number.
func mix(n uint64) uint64 {
	n ^= n >> 31
	n *= 0x9e3779b97f4a7c15
	return n ^ n>>29
}
