package quota

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// obeyLimits takes CAP_SYS_RESOURCE, for which no limit holds on ext4, from this process for good: from all its threads, and
// from what they may run. Nothing in the daemon needs it. A thread alone would not do: what is written by whom is not known
// here, and goroutines move between threads.
func obeyLimits() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	const bit = uint32(1) << unix.CAP_SYS_RESOURCE
	if (data[0].Effective|data[0].Permitted)&bit == 0 {
		return nil
	}
	data[0].Effective &^= bit
	data[0].Permitted &^= bit
	data[0].Inheritable &^= bit
	// A program with C code in it cannot do this (ENOTSUP).
	_, _, dropped := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0)
	_, _, set := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0) //nolint:gosec // the kernel reads them
	for call, errno := range map[string]syscall.Errno{"prctl": dropped, "capset": set} {
		if errno != 0 {
			return fmt.Errorf("give up the capability SYS_RESOURCE, for which no limit holds on ext4: %w: run the daemon without it",
				os.NewSyscallError(call, errno))
		}
	}
	return nil
}
