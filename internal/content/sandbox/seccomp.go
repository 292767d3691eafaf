package sandbox

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterSystemCalls lets no task change what it is confined by, watch others, load code into the kernel, leave its process group, or
// speak protocols that it does not need. Calls that are newer than this program do not exist for it.
func filterSystemCalls(s setup, missing func(lack)) error {
	if arch == 0 || s.skip(SystemCalls) {
		missing(lack{SystemCalls, "there is no filter for this processor"})
		return nil
	}
	program := filter(s.Network)
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))) //nolint:gosec // the kernel reads it
	switch errno {
	case 0:
		return nil
	case unix.ENOSYS, unix.EINVAL:
		missing(lack{SystemCalls, "the kernel does not offer filters: " + errno.Error()})
		return nil
	default:
		return os.NewSyscallError("seccomp", errno)
	}
}

// Offsets in what a filter sees: the number of the call, the processor, and the lower half of the first arguments.
const (
	atCall = 0
	atArch = 4
	atArg0 = 16
	atArg1 = 24
	atArg2 = 32
)

const (
	allow = unix.SECCOMP_RET_ALLOW
	kill  = unix.SECCOMP_RET_KILL_PROCESS
)

func fail(errno syscall.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

// The flags and requests that are refused.
const (
	cloneNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
		unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME
	setFlags    = 0x40086602 // FS_IOC_SETFLAGS: chattr, as immutable
	setXattr    = 0x401c5820 // FS_IOC_FSSETXATTR: the project that a quota counts
	typeTerm    = 0x5412     // TIOCSTI
	typeConsole = 0x541c     // TIOCLINUX
)

// filter is the program that the kernel runs at each system call.
func filter(network bool) []unix.SockFilter {
	p := []unix.SockFilter{
		load(atArch), jump(unix.BPF_JEQ, arch, 1, 0), ret(kill),
		load(atCall), jump(unix.BPF_JGT, newest, 0, 1), ret(fail(unix.ENOSYS)),
	}
	for _, n := range refused() {
		p = append(p, jump(unix.BPF_JEQ, n, 0, 1), ret(fail(unix.EPERM)))
	}
	p = append(p, jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), ret(fail(unix.ENOSYS))) // its flags cannot be seen; clone does the same
	p = append(p, when(unix.SYS_CLONE, load(atArg0), jump(unix.BPF_JSET, cloneNamespaces, 0, 1), ret(fail(unix.EPERM)))...)
	p = append(p, when(unix.SYS_IOCTL, oneOf(atArg1, fail(unix.EPERM), setFlags, setXattr, typeTerm, typeConsole)...)...)
	for n, arg := range makesNodes() {
		p = append(p, when(n, load(arg), and(unix.S_IFMT), jump(unix.BPF_JEQ, unix.S_IFCHR, 1, 0), jump(unix.BPF_JEQ, unix.S_IFBLK, 0, 1),
			ret(fail(unix.EPERM)))...)
	}
	p = append(p, when(unix.SYS_SOCKET, sockets(network)...)...)
	return append(p, ret(allow))
}

// sockets allows the internet, if the task may use it, and to ask the kernel for the addresses of this machine.
func sockets(network bool) []unix.SockFilter {
	refuse := ret(fail(unix.EAFNOSUPPORT))
	if !network {
		return []unix.SockFilter{refuse}
	}
	return []unix.SockFilter{
		load(atArg0), jump(unix.BPF_JEQ, unix.AF_INET, 5, 0), jump(unix.BPF_JEQ, unix.AF_INET6, 4, 0),
		jump(unix.BPF_JEQ, unix.AF_NETLINK, 0, 2), load(atArg2), jump(unix.BPF_JEQ, unix.NETLINK_ROUTE, 1, 0),
		refuse, ret(allow),
	}
}

// when runs a block for one call only, and ends with what is allowed.
func when(call uint32, block ...unix.SockFilter) []unix.SockFilter {
	p := append([]unix.SockFilter{jump(unix.BPF_JEQ, call, 0, uint8(len(block)+1))}, block...)
	return append(p, ret(allow))
}

// oneOf refuses some values of an argument.
func oneOf(arg uint32, refuse uint32, values ...uint32) []unix.SockFilter {
	p := make([]unix.SockFilter, 0, 1+2*len(values))
	p = append(p, load(arg))
	for _, v := range values {
		p = append(p, jump(unix.BPF_JEQ, v, 0, 1), ret(refuse))
	}
	return p
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

func jump(condition uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | condition | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func ret(what uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what}
}

// refused lists what every processor has.
func refused() []uint32 {
	return append([]uint32{
		// what a task is confined by
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
		unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
		unix.SYS_SETSID, unix.SYS_SETPGID, unix.SYS_PERSONALITY, unix.SYS_OPEN_TREE_ATTR, unix.SYS_FILE_SETATTR, unix.SYS_LISTNS,
		// other processes
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
		unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES, unix.SYS_PERF_EVENT_OPEN, unix.SYS_FANOTIFY_INIT,
		// the kernel
		unix.SYS_BPF, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_KEYCTL, unix.SYS_ADD_KEY,
		unix.SYS_REQUEST_KEY, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_SYSLOG,
		unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_VHANGUP, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
		unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_NFSSERVCTL, unix.SYS_VMSPLICE,
	}, refusedHere()...)
}
