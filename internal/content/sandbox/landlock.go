package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What may be done with files, as the kernel names it.
const (
	fsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fsWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	// fsNever is allowed nowhere.
	fsNever = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK
	// fsFile is what makes sense for a file that is no directory.
	fsFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
	fsAll = fsRead | fsWrite | fsNever | unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// Versions of the interface in which the kernel learnt something.
const (
	abiRefer    = 2
	abiTruncate = 3
	abiNetwork  = 4
	abiScopes   = 6
)

// ruleset is a set of rules that is not in force yet; fd is -1 where the kernel has no Landlock.
type ruleset struct {
	fd      int
	handled uint64
}

// landlockRules says what a task may do with which files. Where the kernel has no Landlock, it returns rules that say nothing.
func landlockRules(s setup, dir string, program *os.File, missing func(lack)) (ruleset, error) {
	abi, _, errno := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == 0 && s.skip(Landlock) {
		errno = syscall.ENOSYS
	}
	if errno != 0 || abi < abiNetwork || s.skip(Connections) {
		missing(lack{Connections, "the kernel cannot keep a program to a port (Landlock of Linux 6.7 can)"})
	}
	if errno != 0 {
		missing(lack{Landlock, "the kernel does not offer it: " + errno.Error()})
		return ruleset{fd: -1}, nil
	}
	attr := handled(int(abi), s.Network)
	fd, _, errno := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), attrSize(int(abi)), 0) //nolint:gosec // the kernel reads it
	if errno != 0 {
		return ruleset{}, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	r := ruleset{int(fd), attr.Handled_access_fs}
	return r, r.fill(s, dir, program)
}

// handled lists what is forbidden unless a rule allows it. Servers are not for tasks; clients are, if they use the network.
func handled(abi int, network bool) unix.LandlockRulesetAttr {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: fsAll}
	if abi < abiRefer {
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi < abiTruncate {
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= abiNetwork {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP
		if !network {
			attr.Handled_access_net |= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if abi >= abiScopes {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return attr
}

// attrSize is what a kernel of this version expects: it grew with the fields.
func attrSize(abi int) uintptr {
	switch {
	case abi < abiNetwork:
		return 8
	case abi < abiScopes:
		return 16
	}
	return 24
}

func (r ruleset) fill(s setup, dir string, program *os.File) error {
	content := uint64(fsRead | fsWrite)
	if s.ReadOnly {
		content = fsRead
	}
	const run = fsRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	if err := errors.Join(r.allow(dir, content), r.allowFile(int(program.Fd()), run&fsFile)); err != nil {
		return err
	}
	dirs, files := settings()
	for access, paths := range map[uint64][]string{
		run: append(programs(), s.Visible...), fsRead: append(append(dirs, files...), "/etc/passwd", "/etc/group", "/proc"),
		fsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE: devices(),
	} {
		for _, path := range paths {
			if err := r.allow(path, access); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	scratch := s.Scratch
	if s.Flags&unix.CLONE_NEWNS != 0 {
		scratch = "/tmp" // its own
	}
	return r.allow(scratch, fsRead|fsWrite)
}

func (r ruleset) allow(path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fsFile
	}
	if err := r.allowFile(fd, access); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (r ruleset) allowFile(fd int, access uint64) error {
	attr := unix.LandlockPathBeneathAttr{Allowed_access: access & r.handled, Parent_fd: int32(fd)}
	_, _, errno := syscall.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0) //nolint:gosec // the kernel reads it
	if errno != 0 {
		return os.NewSyscallError("landlock_add_rule", errno)
	}
	return nil
}

// landlockNetPort is what the kernel calls a rule for a port.
const landlockNetPort = 2

// OnlyConnectTo has this thread, and all that it becomes or starts, connect to one TCP port and to no other. Where the kernel cannot do
// that, [Connections] is missing, and nothing changes. The caller has locked the goroutine to the thread.
func OnlyConnectTo(port uint64) error {
	abi, _, errno := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if known := errno == 0 && int(abi) >= abiNetwork; !known {
		return nil
	}
	attr := unix.LandlockRulesetAttr{Handled_access_net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}
	fd, _, errno := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), attrSize(abiNetwork), 0) //nolint:gosec // the kernel reads it
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	rule := struct{ access, port uint64 }{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, port}
	if _, _, errno := syscall.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, landlockNetPort, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 { //nolint:gosec // the kernel reads it
		return os.NewSyscallError("landlock_add_rule", errno)
	}
	return ruleset{fd: int(fd)}.enforce()
}

// enforce puts the rules in force for this thread and all that it starts.
func (r ruleset) enforce() error {
	if r.fd < 0 {
		return nil
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return unix.Close(r.fd)
}
