package sandbox

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// place is where a task finds its directory if it has mounts of its own.
const place = "/workspace"

// confine takes from this thread all that a task must not have, and then becomes the second stage. It returns only an error.
// The caller has locked the goroutine to the thread.
func confine(s setup, missing func(lack)) error {
	// Whatever else this process inherited ends here.
	if err := unix.CloseRange(outputFD+1, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	program, err := os.OpenFile("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	args, err := arguments(s)
	if err != nil {
		return err
	}
	dir, err := enclose(s, missing)
	if err != nil {
		return err
	}
	if err := limit(s); err != nil {
		return err
	}
	rules, err := landlockRules(s, dir, program, missing)
	if err != nil {
		return err
	}
	if err := become(s.UID, s.GID); err != nil {
		return err
	}
	if err := limitProcesses(s); err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("%w; every directory above must be open to uid %d (mode 0711)", err, s.UID)
	}
	if err := rules.enforce(); err != nil {
		return err
	}
	if err := filterSystemCalls(s, missing); err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), args, environment(s))
}

// arguments of the second stage: its name and, if it shall have one, the descriptor of a socket that listens. It is made before tasks
// are denied to.
func arguments(s setup) ([]string, error) {
	if !s.Listen {
		return []string{stageTwo}, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) // it is to outlive this program
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return []string{stageTwo, strconv.Itoa(fd)}, nil
}

// environment is all that a task gets of it: where programs are, and how this one behaves.
func environment(s setup) []string {
	scratch := s.Scratch
	if scratch == "" {
		scratch = "/tmp"
	}
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "GOTRACEBACK=none", "TMPDIR=" + scratch}
}

// enclose makes the mounts, if there is a namespace for them, and returns where the task's directory is.
func enclose(s setup, missing func(lack)) (string, error) {
	if s.Flags&unix.CLONE_NEWUTS != 0 {
		if err := unix.Sethostname([]byte("workspace")); err != nil {
			return "", os.NewSyscallError("sethostname", err)
		}
	}
	if s.Flags&unix.CLONE_NEWNS == 0 {
		missing(lack{ProcessView, "without a namespace of mounts, /proc is that of the daemon"})
		return s.Dir, nil
	}
	return place, furnish(s, missing)
}

// become gives this thread to the owner, without any capability and without a way to get one. Only this thread: the calls of the
// library would stop all others first.
func become(uid, gid uint32) error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// Where this is not allowed, no_new_privs and the change of the user do the same.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(no_new_privs)", err)
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return dropCapabilities()
}

// dropCapabilities matters for workspaces that belong to root, who keeps them with a change of the user to itself.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, errno := syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), //nolint:gosec // the kernel reads them
		uintptr(unsafe.Pointer(&none[0])), 0); errno != 0 { //nolint:gosec // the kernel reads them
		return os.NewSyscallError("capset", errno)
	}
	return nil
}

// skip says whether a test wants to do without a protection.
func (s setup) skip(p Protection) bool { return slices.Contains(s.Without, p) }
