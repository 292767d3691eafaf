package quota

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// project is what a file or directory says of its project.
type project struct {
	// id that it counts for; 0 for none.
	id uint32
	// inherit gives the id to what is made in a directory.
	inherit bool
}

// attributes is struct fsxattr of linux/fs.h.
type attributes struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

const (
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	flagInherit   = 0x200      // FS_XFLAG_PROJINHERIT
)

// projectOf reads the project of an open file.
func projectOf(f *os.File) (project, error) {
	var a attributes
	if err := ioctl(f, "read project id", getAttributes, &a); err != nil {
		return project{}, err
	}
	return project{id: a.project, inherit: a.flags&flagInherit != 0}, nil
}

// setProject changes the project of an open file, and nothing else.
func setProject(f *os.File, p project) error {
	var a attributes
	if err := ioctl(f, "read project id", getAttributes, &a); err != nil {
		return err
	}
	a.project = p.id
	a.flags &^= flagInherit
	if p.inherit {
		a.flags |= flagInherit
	}
	return ioctl(f, "set project id", setAttributes, &a)
}

func ioctl(f *os.File, what string, request uintptr, a *attributes) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a))) //nolint:gosec // the kernel fills it
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return &os.PathError{Op: what + " of", Path: f.Name(), Err: errno}
		}
	}
}
