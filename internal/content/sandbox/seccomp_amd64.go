package sandbox

import "golang.org/x/sys/unix"

const (
	arch = unix.AUDIT_ARCH_X86_64
	// newest is the last system call that this filter knows. The numbers of the x32 interface are above it.
	newest = unix.SYS_RSEQ_SLICE_YIELD
)

// refusedHere lists what only this processor has.
func refusedHere() []uint32 {
	return []uint32{
		unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL, unix.SYS_CREATE_MODULE,
		unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_LOOKUP_DCOOKIE,
	}
}

// makesNodes says which argument is the type of what a call makes.
func makesNodes() map[uint32]uint32 {
	return map[uint32]uint32{unix.SYS_MKNOD: atArg1, unix.SYS_MKNODAT: atArg2}
}
