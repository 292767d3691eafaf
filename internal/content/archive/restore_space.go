package archive

import (
	"fmt"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// SpaceError says that a restore cannot fit.
type SpaceError struct {
	Bytes, FreeBytes   int64
	Inodes, FreeInodes int64 // FreeInodes is -1 if the filesystem has no limit
}

func (e *SpaceError) Error() string {
	inodes := "without limit"
	if e.FreeInodes >= 0 {
		inodes = fmt.Sprint(e.FreeInodes)
	}
	return fmt.Sprintf("it needs at least %d bytes and %d inodes, free are %d and %s: make the volume larger, or free some space",
		e.Bytes, e.Inodes, e.FreeBytes, inodes)
}

// Is makes errors.Is(err, unix.ENOSPC) true.
func (e *SpaceError) Is(target error) bool { return target == unix.ENOSPC }

// checkSpace refuses early what cannot fit. Filesystems that compress may need less than the sizes, so they are not asked.
func (r *restorer) checkSpace() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(r.fd, &st); err != nil {
		return fmt.Errorf("look for space: %w", err)
	}
	switch uint32(st.Type) {
	case unix.XFS_SUPER_MAGIC, unix.EXT4_SUPER_MAGIC, unix.TMPFS_MAGIC:
	default:
		return nil
	}
	e := &SpaceError{FreeBytes: int64(st.Bfree) * st.Bsize, FreeInodes: int64(st.Ffree)}
	e.Bytes, e.Inodes = r.plan.needs()
	if st.Files == 0 {
		e.FreeInodes = -1
	}
	if st.Blocks > 0 && e.Bytes > e.FreeBytes || e.FreeInodes >= 0 && e.Inodes > e.FreeInodes {
		return e
	}
	return nil
}

// needs returns the least that a tree takes: bytes of content and inodes.
func (p *plan) needs() (bytes, inodes int64) {
	inodes = int64(len(p.dirs) - 1)
	p.files(func(_ uint32, e *format.Entry, further bool) {
		if further || e.Flags&format.FlagUnreadable != 0 {
			return
		}
		inodes++
		if hasContent(e) {
			bytes += e.Size
		}
		for _, piece := range piecesOf(e) {
			bytes += int64(piece.Len)
		}
	})
	return bytes, inodes
}
