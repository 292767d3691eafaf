package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// command is one thing to run and measure.
type command struct {
	argv []string
	dir  string
	env  []string // beside the environment of this process
}

// cost is what a command took.
type cost struct {
	wall, cpu time.Duration
	memory    int64 // bytes: the largest process
	output    []byte
}

// execute runs a command to its end. Its children are counted, as far as it waited for them.
func execute(ctx context.Context, c command) (cost, error) {
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), c.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", strings.Join(c.argv, " "), err, errs.String())
	}
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return cost{
		wall: wall, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), memory: usage.Maxrss << 10, output: out.Bytes(),
	}, nil
}

// shell makes a command of a pipeline; a failure of any part of it counts.
func shell(script string) command {
	return command{argv: []string{"bash", "-e", "-o", "pipefail", "-c", script}}
}
