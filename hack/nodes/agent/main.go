// Command agent runs shell scripts in a virtual machine for whoever reaches its port: the machine has no other user.
package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// headerTimeout keeps a client that says nothing from holding its connection.
const headerTimeout = 10 * time.Second

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: agent ADDRESS")
		os.Exit(2)
	}
	server := &http.Server{Addr: os.Args[1], Handler: http.HandlerFunc(run), ReadHeaderTimeout: headerTimeout}
	fmt.Fprintln(os.Stderr, "error:", server.ListenAndServe())
	os.Exit(1)
}

// run runs the script that the parameter of this name is, with the body as its input. What it prints is the answer, and its exit code is in
// the trailer Exit.
func run(w http.ResponseWriter, r *http.Request) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Trailer", "Exit")
	cmd := exec.CommandContext(r.Context(), "bash", "-euo", "pipefail", "-c", r.URL.Query().Get("script"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.Body, w, w
	// What it has started ends with it if the client goes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	code := cmd.ProcessState.ExitCode()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		_, _ = io.WriteString(w, err.Error())
		code = -1
	}
	w.Header().Set("Exit", strconv.Itoa(code))
}
