package sandbox

import "golang.org/x/sys/unix"

const (
	arch = unix.AUDIT_ARCH_AARCH64
	// newest is the last system call that this filter knows.
	newest = unix.SYS_RSEQ_SLICE_YIELD
)

// refusedHere lists what only this processor has.
func refusedHere() []uint32 { return []uint32{unix.SYS_KEXEC_FILE_LOAD, unix.SYS_LOOKUP_DCOOKIE} }

// makesNodes says which argument is the type of what a call makes.
func makesNodes() map[uint32]uint32 { return map[uint32]uint32{unix.SYS_MKNODAT: atArg2} }
