package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxOpenFiles = 4096
	niceness     = 10
	// threadsPerProcess: the kernel counts threads. Programs that have one for each processor are few among those of a task.
	threadsPerProcess = 4
	// threadsAmongOthers is how many it is where others are counted, too, since pods of the same user start meanwhile.
	threadsAmongOthers = 16
	// mostProcesses is more than any node has: the kernel numbers no further.
	mostProcesses = 1 << 22

	// countInterval is how often a task is counted anyway, lookInterval how often the node is looked at for a reason to count at once.
	countInterval = 100 * time.Millisecond
	lookInterval  = 5 * time.Millisecond
)

// limit sets the kernel's limits of this process and of all that it starts. The kernel counts memory for each process; watch adds it up.
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
	for resource, n := range limits {
		if err := restrict(resource, n); err != nil {
			return err
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

func restrict(resource int, n uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	n = min(n, now.Max)
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		return fmt.Errorf("limit resource %d to %d: %w", resource, n, err)
	}
	return nil
}

// limitProcesses has the kernel start no more than a task may have, however fast they multiply. The caller has become the task's user.
//
// The kernel counts for each user of a namespace of users. Where the task has none of its own, it counts what this user has on the
// whole node, in pods for example: that comes on top, and room for what starts there later. The root of the node is counted nowhere; its
// tasks have only the watch.
func limitProcesses(s setup) error {
	if s.Flags&unix.CLONE_NEWUSER != 0 {
		return restrict(unix.RLIMIT_NPROC, uint64(s.Limits.Processes*threadsPerProcess))
	}
	others, err := processesOfUser()
	if err != nil {
		return err
	}
	return restrict(unix.RLIMIT_NPROC, uint64(others+s.Limits.Processes*threadsAmongOthers))
}

// processesOfUser finds out how many processes and threads this thread's user has on the node, most of which /proc does not show in a
// container: the lowest limit under which the kernel starts one more.
func processesOfUser() (int, error) {
	var hard unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &hard); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	var failed error
	others, found := fewest(int(min(mostProcesses, hard.Max)), func(n int) bool {
		if failed = unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: uint64(n), Max: hard.Max}); failed != nil {
			return true
		}
		_, err := syscall.ForkExec("", []string{""}, nil) // there is no such program: what starts ends at once
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case failed != nil:
		return 0, os.NewSyscallError("setrlimit", failed)
	case !found:
		return 0, fmt.Errorf("start a process: %w: this container, the user or the node has as many as it may", unix.EAGAIN)
	}
	return others, nil
}

// fewest returns the lowest number that is enough, and whether there is one up to most. It asks some thirty times.
func fewest(most int, enough func(int) bool) (int, bool) {
	n := min(1, most)
	for ; !enough(n); n = min(2*n, most) {
		if n == most {
			return 0, false
		}
	}
	return sort.Search(n, enough), true
}

// watch ends the task when all its processes together take too much, and says why on the channel, which it closes in any case. It runs in
// the daemon: what is watched cannot stop it, nor keep it from the processors for long.
func (p *process) watch(ctx context.Context) <-chan string {
	why := make(chan string, 1)
	go func() {
		defer close(why)
		tick := time.NewTicker(lookInterval)
		defer tick.Stop()
		var last census
		last.due(p.limits)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if text := p.count(last.due(p.limits)); text != "" {
				why <- text
				return
			}
		}
	}()
	return why
}

// count says which limit the task exceeds, and kills it, or returns "". The task has not been waited for yet, so its number is still its own.
func (p *process) count(due, grown bool) string {
	if !due {
		return ""
	}
	group := p.cmd.Process.Pid
	if grown { // it stands still while it is counted: as fast as it grows, there would be ten times as many in the end
		_ = unix.Kill(-group, unix.SIGSTOP)
		defer func() { _ = unix.Kill(-group, unix.SIGCONT) }()
	}
	text := p.limits.exceeded(taken("/proc", group, p.limits))
	if text != "" {
		_ = unix.Kill(-group, unix.SIGKILL)
	}
	return text
}

// census is when a task was counted last, and what the node was like.
type census struct {
	at   time.Time
	node unix.Sysinfo_t
}

// due says whether to count again: from time to time, and at once when the node has grown so much that it may be the task. To see that takes
// one system call, however many processes there are.
func (c *census) due(l Limits) (due, grown bool) {
	now := census{at: time.Now()}
	if err := unix.Sysinfo(&now.node); err == nil {
		grown = l.grown(c.node, now.node)
	}
	if due = grown || now.at.Sub(c.at) >= countInterval; due {
		*c = now
	}
	return due, grown
}

// grown says whether the node has got half of a limit more between two looks.
func (l Limits) grown(before, now unix.Sysinfo_t) bool {
	processes := int16(now.Procs - before.Procs) // the kernel's number wraps around as well
	memory := int64(before.Freeram) - int64(now.Freeram)
	return int(processes) >= (l.Processes+1)/2 || memory*int64(now.Unit) >= l.Memory/2
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

// taken counts the processes of a task and their memory, without pages of files, until it is more than enough. Those that have left the
// group, where no filter keeps them from it, are known by their parents: without one they are given to the first process of their
// namespace, which is the task's. The kernel lists them by number, which says nothing of who came first once the numbers have begun again.
func taken(proc string, group int, enough Limits) (processes int, memory int64) {
	dir, err := os.Open(proc)
	if err != nil {
		return 0, 0
	}
	defer func() { _ = dir.Close() }()
	var its []int
	add := func(pid int) (more bool) {
		its = append(its, pid)
		memory += anonymous(filepath.Join(proc, strconv.Itoa(pid)))
		return len(its) <= enough.Processes && memory <= enough.Memory
	}
	children := map[int][]int{} // outside of the group, by their parent
	for names := []string{}; err == nil; names, err = dir.Readdirnames(256) {
		for _, name := range names {
			pid, notOne := strconv.Atoi(name)
			if notOne != nil {
				continue
			}
			parent, of := parentAndGroup(filepath.Join(proc, name))
			if of != group {
				children[parent] = append(children[parent], pid)
			} else if !add(pid) {
				return len(its), memory
			}
		}
	}
	for next := 0; next < len(its); { // it grows
		parent := its[next]
		next++
		for _, pid := range children[parent] {
			if !add(pid) {
				return len(its), memory
			}
		}
	}
	return len(its), memory
}

// parentAndGroup of a process, 0 if it is gone. The name of its program may hold anything, blanks and brackets too.
func parentAndGroup(dir string) (parent, group int) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 3 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(fields[1])
	group, _ = strconv.Atoi(fields[2])
	return parent, group
}

func anonymous(dir string) int64 {
	statm, err := os.ReadFile(filepath.Join(dir, "statm"))
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
