package quota

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// limits of a project in bytes and inodes, 0 for none.
type limits struct{ bytes, inodes int64 }

// account is what the kernel knows of a project.
type account struct {
	id     uint32
	limits limits
	// bytes and inodes that are used, with what is promised to writes that have not reached the disk.
	bytes, inodes int64
}

// free says whether nobody has anything to do with the project.
func (a account) free() bool { return a.limits == limits{} && a.empty() }

// empty says whether no file counts for the project.
func (a account) empty() bool { return a.bytes == 0 && a.inodes == 0 }

// diskQuota is struct fs_disk_quota of linux/dqblk_xfs.h, which both filesystems understand.
type diskQuota struct {
	version              int8
	flags                int8
	fields               uint16
	id                   uint32
	blockHard, blockSoft uint64
	inodeHard, inodeSoft uint64
	blocks, inodes       uint64
	_                    [56]byte
}

// quotaState is struct fs_quota_statv of linux/dqblk_xfs.h.
type quotaState struct {
	version int8
	_       uint8
	flags   uint16
	_       [156]byte
}

const (
	commandSetLimits = 0x5804 // Q_XSETQLIM
	commandGet       = 0x5803 // Q_XGETQUOTA
	commandGetNext   = 0x5809 // Q_XGETNEXTQUOTA
	commandState     = 0x5808 // Q_XGETQSTATV
	projectQuota     = 2      // PRJQUOTA

	structVersion  = 1   // FS_DQUOT_VERSION, FS_QSTATV_VERSION1
	accountProject = 2   // FS_PROJ_QUOTA
	limitFields    = 0xf // FS_DQ_LIMIT_MASK: both limits of blocks and inodes
	stateAccounted = 1 << 4
	stateEnforced  = 1 << 5

	basicBlock = 512 // the unit of blocks in diskQuota
)

// control asks the kernel about the filesystem on which f lies.
func control(f *os.File, command int, id uint32, data unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command)<<8|projectQuota, uintptr(id), uintptr(data), 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EPERM:
			return fmt.Errorf("quota of %s: %w: the daemon needs the capability SYS_ADMIN", f.Name(), errno)
		default:
			return fmt.Errorf("quota of %s: %w", f.Name(), errno)
		}
	}
}

// accountOf reads what a project uses and may use.
func accountOf(f *os.File, id uint32) (account, error) {
	a, err := read(f, commandGet, id)
	if errors.Is(err, unix.ENOENT) { // XFS has never heard of it
		return account{id: id}, nil
	}
	return a, err
}

// nextAccount reads the first project from an id on that uses anything or has limits. ENOENT if there is none.
func nextAccount(f *os.File, id uint32) (account, error) { return read(f, commandGetNext, id) }

func read(f *os.File, command int, id uint32) (account, error) {
	var q diskQuota
	if err := control(f, command, id, unsafe.Pointer(&q)); err != nil { //nolint:gosec // the kernel fills it
		return account{}, err
	}
	return account{
		id:     q.id,
		limits: limits{bytes: int64(q.blockHard) * basicBlock, inodes: int64(q.inodeHard)},
		bytes:  int64(q.blocks) * basicBlock, inodes: int64(q.inodes),
	}, nil
}

// setLimits sets the hard limits of a project; there are no soft ones. Bytes are rounded down to 512.
func setLimits(f *os.File, id uint32, l limits) error {
	q := diskQuota{
		version: structVersion, flags: accountProject, fields: limitFields, id: id,
		blockHard: uint64(l.bytes / basicBlock), inodeHard: uint64(l.inodes),
	}
	return control(f, commandSetLimits, id, unsafe.Pointer(&q)) //nolint:gosec // the kernel reads it
}

// stateOf tells whether the filesystem counts what projects use, and whether it stops them.
func stateOf(f *os.File) (accounted, enforced bool, err error) {
	s := quotaState{version: structVersion}
	if err := control(f, commandState, 0, unsafe.Pointer(&s)); err != nil { //nolint:gosec // the kernel fills it
		return false, false, err
	}
	return s.flags&stateAccounted != 0, s.flags&stateEnforced != 0, nil
}

// hasControl tells whether the kernel has quotactl_fd: with it, a descriptor that is none is a mistake.
func hasControl() bool {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, ^uintptr(0), uintptr(commandState)<<8|projectQuota, 0, 0, 0, 0)
	return errno != unix.ENOSYS
}
