package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestExecute(t *testing.T) {
	g := NewWithT(t)
	took, output, err := execute(t.Context(), `echo "$GREETING" | tr a-z A-Z; echo unseen >&2`, "GREETING=hello")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(output)).To(Equal("HELLO\n"))
	g.Expect(took.Wall).To(BeNumerically(">", 0))
	g.Expect(took.Memory).To(And(BeNumerically(">", 1<<20), BeNumerically("<", 100<<20)))
}

// The memory of the benchmark itself must not appear as that of a tool.
func TestExecuteCountsTheToolOnly(t *testing.T) {
	g := NewWithT(t)
	own := make([]byte, 96<<20)
	for i := 0; i < len(own); i += 4096 {
		own[i] = 1
	}
	took, _, err := execute(t.Context(), "true")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(took.Memory).To(BeNumerically("<", 64<<20))
	g.Expect(own[4096]).To(Equal(byte(1)))
}

func TestExecuteFailures(t *testing.T) {
	for script, want := range map[string]string{
		"echo it is full >&2; exit 4": "it is full",
		"false | cat":                 "exit status 1",
		"false; true":                 "exit status 1",
		"no-such-program-anywhere":    "command not found",
	} {
		t.Run(script, func(t *testing.T) {
			_, _, err := execute(t.Context(), script)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(want)))
		})
	}
}

// What a script started ends with it: the pipe has no writer any more.
func TestExecuteKillsEverything(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := execute(ctx, `cd "$DIR"; (tail -f /dev/null & echo $! > child.new; mv child.new child; wait) | cat`, "DIR="+dir)
		ended <- err
	}()
	child := filepath.Join(dir, "child")
	g.Eventually(func() error { _, err := os.Stat(child); return err }).WithTimeout(10 * time.Second).Should(Succeed())
	pid, err := os.ReadFile(child)
	g.Expect(err).NotTo(HaveOccurred())
	cancel()
	g.Eventually(ended).WithTimeout(10 * time.Second).Should(Receive(HaveOccurred()))
	g.Eventually(func() string { return state(string(pid)) }).WithTimeout(10 * time.Second).Should(BeElementOf("", "Z"))
}

// state of a process: one letter, empty if there is none.
func state(pid string) string {
	line := field(filepath.Join("/proc", pid[:len(pid)-1], "status"), "State")
	if line == "" {
		return ""
	}
	return line[:1]
}
