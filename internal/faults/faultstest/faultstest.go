// Package faultstest has tests kill their own program at the points of package faults.
package faultstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// Program is the path of a test program with fault points. Its test "TestChild" does what the environment asks for.
type Program string

// Build builds the test program of the package that is being tested, with fault points.
func Build(t *testing.T) Program {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "faults.test")
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "faults", "-o", binary, ".").CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))
	return Program(binary)
}

// Run runs "TestChild" with more variables in its environment. The error of one that fails, or is killed, has its output.
func (p Program) Run(ctx context.Context, variables ...string) error {
	cmd := exec.CommandContext(ctx, string(p), "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), variables...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// Kill is the variable that has a program killed at a point, which [Trace] returned; at none if that is empty.
func Kill(point string) string { return "WS_DAEMON_FAULT=" + point }

// Trace has a program run with one more variable, and returns the points that it reached with their counts, as "name:2".
func Trace(t *testing.T, run func(variable string) error) []string {
	t.Helper()
	g := NewWithT(t)
	trace := filepath.Join(t.TempDir(), "trace")
	g.Expect(run("WS_DAEMON_FAULT_TRACE=" + trace)).To(Succeed())
	data, err := os.ReadFile(trace)
	g.Expect(err).NotTo(HaveOccurred())
	seen := map[string]int{}
	names := strings.Fields(string(data))
	points := make([]string, 0, len(names))
	for _, name := range names {
		seen[name]++
		points = append(points, fmt.Sprintf("%s:%d", name, seen[name]))
	}
	g.Expect(points).NotTo(BeEmpty())
	return points
}
