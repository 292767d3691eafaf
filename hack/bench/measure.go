package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// helperName as the first argument makes this program run a script and tell what that took. It stands between the benchmark and what is
// measured because the kernel counts a parent's peak memory as its child's, and a helper is small.
const helperName = "measure-script"

// cost is what a script took. Processes that it waited for are counted.
type cost struct {
	Wall, CPU time.Duration
	Memory    int64 // bytes: the largest process
}

// execute runs a bash script to its end, or kills it with all it started when the context ends. The output is of standard output. A
// failure of any part of a pipeline counts.
func execute(ctx context.Context, script string, env ...string) (took cost, output []byte, err error) {
	self, err := os.Executable()
	if err != nil {
		return took, nil, err
	}
	result, write, err := os.Pipe()
	if err != nil {
		return took, nil, err
	}
	defer result.Close()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, self, helperName, script)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = append(os.Environ(), env...), &out, &errs, []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	err = cmd.Run()
	write.Close()
	if err != nil {
		return took, nil, fmt.Errorf("run %q: %w\n%s", script, err, errs.String())
	}
	return took, out.Bytes(), decode(result, &took)
}

func decode(from io.Reader, took *cost) error {
	if err := json.NewDecoder(from).Decode(took); err != nil {
		return fmt.Errorf("read what the script took: %w", err)
	}
	return nil
}

// helper runs a script, and writes what it took to descriptor 3. It returns the exit code.
func helper(args []string) int {
	const descriptor = 3
	unix.CloseOnExec(descriptor)
	cmd := exec.CommandContext(context.Background(), "bash", append([]string{"-e", "-o", "pipefail", "-c"}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	began := time.Now()
	err := cmd.Run()
	took := cost{Wall: time.Since(began)}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	took.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		took.Memory = usage.Maxrss << 10
	}
	if err := json.NewEncoder(os.NewFile(descriptor, "result")).Encode(took); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
