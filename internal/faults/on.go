//go:build faults

package faults

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var (
	mu    sync.Mutex
	seen  = map[string]int{}
	trace = os.Getenv("WS_DAEMON_FAULT_TRACE")
	once  = os.Getenv("WS_DAEMON_FAULT_ONCE")
	name  = os.Getenv("WS_DAEMON_FAULT")
)

// Point kills the process if the environment asks for it, see the package comment.
func Point(point string) {
	mu.Lock()
	defer mu.Unlock()
	seen[point]++
	if trace != "" {
		record(point)
	}
	want, count := target()
	if point != want || seen[point] != count || !first() {
		return
	}
	fmt.Fprintf(os.Stderr, "fault point %s reached for the %d. time: killed\n", point, count)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way; nothing after the point may run
}

func target() (string, int) {
	want, count, found := strings.Cut(name, ":")
	if !found {
		return want, 1
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		panic("WS_DAEMON_FAULT: " + err.Error())
	}
	return want, n
}

func first() bool {
	if once == "" {
		return true
	}
	f, err := os.OpenFile(once, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func record(point string) {
	f, err := os.OpenFile(trace, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic("WS_DAEMON_FAULT_TRACE: " + err.Error())
	}
	defer f.Close()
	fmt.Fprintln(f, point)
}
