package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxOpenFiles  = 4096
	watchInterval = 100 * time.Millisecond
	niceness      = 10
)

// limit sets the kernel's limits of this process and of all that it starts. The kernel counts memory for each process, and
// processes for each user of a namespace of users; watch adds them up.
func limit(s setup) error {
	size := uint64(unix.RLIM_INFINITY)
	if s.Limits.FileSize > 0 {
		size = uint64(s.Limits.FileSize)
	}
	limits := map[int]uint64{
		unix.RLIMIT_CORE:   0, // it would contain credentials
		unix.RLIMIT_NOFILE: maxOpenFiles, unix.RLIMIT_FSIZE: size, unix.RLIMIT_MEMLOCK: 64 << 10,
	}
	if !shadowed {
		limits[unix.RLIMIT_DATA] = uint64(s.Limits.Memory)
	}
	if s.Flags&unix.CLONE_NEWUSER != 0 { // else all processes of this user on the node would count
		limits[unix.RLIMIT_NPROC] = uint64(s.Limits.Processes) * threadsPerProcess
	}
	for resource, n := range limits {
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			return os.NewSyscallError("getrlimit", err)
		}
		n = min(n, now.Max)
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit resource %d to %d: %w", resource, n, err)
		}
	}
	// If memory is short, tasks go before the daemon.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return err
	}
	unix.Umask(0o022)
	// If processors are short, what the daemon does itself comes first: a stop waits for a backup, and nobody waits for all clones at once.
	return os.NewSyscallError("setpriority", unix.Setpriority(unix.PRIO_PROCESS, 0, niceness))
}

// threadsPerProcess: the kernel counts threads.
const threadsPerProcess = 16

// watch ends the task when all its processes together take too much, and says why on the channel, which it closes in any case. It runs in
// the daemon: what is watched cannot stop it, nor keep it from the processors for long.
func (p *process) watch(ctx context.Context) <-chan string {
	why := make(chan string, 1)
	go func() {
		defer close(why)
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if text := p.limits.exceeded(taken(p.cmd.Process.Pid, p.limits)); text != "" {
				why <- text
				_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // it has not been waited for yet, so the number is still its own
				return
			}
		}
	}()
	return why
}

// exceeded says which limit is, "" if none is.
func (l Limits) exceeded(processes int, memory int64) string {
	switch {
	case memory > l.Memory:
		return fmt.Sprintf("it took %d MiB of memory, %d MiB are allowed", memory>>20, l.Memory>>20)
	case processes > l.Processes:
		return fmt.Sprintf("it had %d processes, %d are allowed", processes, l.Processes)
	}
	return ""
}

// taken counts the processes of a group and their memory, without pages of files, until it is more than enough.
func taken(group int, enough Limits) (processes int, memory int64) {
	proc, err := os.Open("/proc")
	if err != nil {
		return 0, 0
	}
	defer func() { _ = proc.Close() }()
	for {
		names, err := proc.Readdirnames(256)
		if err != nil {
			return processes, memory
		}
		for _, name := range names {
			if name[0] < '0' || name[0] > '9' || groupOf(name) != group {
				continue
			}
			processes++
			memory += anonymous(name)
			if processes > enough.Processes || memory > enough.Memory {
				return processes, memory
			}
		}
	}
}

// groupOf returns the process group of a process, 0 if it is gone. The name of its program may hold anything, blanks and brackets too.
func groupOf(pid string) int {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 3 {
		return 0
	}
	group, _ := strconv.Atoi(fields[2])
	return group
}

func anonymous(pid string) int64 {
	statm, err := os.ReadFile("/proc/" + pid + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 3 {
		return 0
	}
	resident, _ := strconv.ParseInt(fields[1], 10, 64)
	shared, _ := strconv.ParseInt(fields[2], 10, 64)
	return (resident - shared) * int64(os.Getpagesize())
}
