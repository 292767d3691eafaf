package volume_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

const (
	rootVariable = "WS_DAEMON_TEST_ROOT"
	goalVariable = "WS_DAEMON_TEST_GOAL"
)

// TestChild is what TestS5_EveryCrashLeadsToOneRightEnd runs and kills; without its environment it does nothing.
func TestChild(t *testing.T) {
	root, goal := os.Getenv(rootVariable), volume.Position(os.Getenv(goalVariable))
	if root == "" {
		return
	}
	NewWithT(t).Expect(reach(t.Context(), root, goal)).To(Succeed())
}

// reach does what a daemon does after its start: it looks at what there is, and goes on from there.
func reach(ctx context.Context, root string, goal volume.Position) error {
	d, err := volume.NewDirectory(root)
	if err != nil {
		return err
	}
	if err := d.Sweep(ctx); err != nil {
		return err
	}
	switch goal {
	case volume.None:
		return d.Remove(ctx, "a")
	case volume.Withdrawn:
		return d.Withdraw(ctx, "a")
	case volume.Staged, volume.Published:
	}
	return publish(ctx, d)
}

func publish(ctx context.Context, d *volume.Directory) error {
	info, err := d.Ensure(ctx, volume.Spec{ID: "a", Size: 5})
	if err != nil {
		return err
	}
	marker, err := volume.ReadMarker(info)
	if err != nil && !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	if marker.Content == nil {
		if err := volume.WriteMarker(info, volume.Marker{UID: "a", Claim: 7}); err != nil {
			return err
		}
		if err := volumetest.Fill(ctx, d, info, "first"); err != nil {
			return err
		}
	}
	return d.Publish(ctx, "a")
}

func TestS5_EveryCrashLeadsToOneRightEnd(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "volume.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "faults", "-o", binary, ".")
	out, err := build.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))

	for _, stage := range []struct {
		goal  volume.Position
		first []volume.Position
	}{
		{goal: volume.Published},
		{goal: volume.Withdrawn, first: []volume.Position{volume.Published}},
		{goal: volume.Published, first: []volume.Position{volume.Published, volume.Withdrawn}},
		{goal: volume.None, first: []volume.Position{volume.Published, volume.Withdrawn}},
		{goal: volume.None, first: []volume.Position{volume.Published}},
	} {
		c := crash{binary: binary, first: stage.first, goal: stage.goal}
		for _, point := range c.points(t) {
			t.Run(fmt.Sprintf("%q/%s", stage.goal, point), func(t *testing.T) { c.at(t, point) })
		}
	}
}

type crash struct {
	binary string
	first  []volume.Position
	goal   volume.Position
}

// root returns a disk on which everything before the goal was reached.
func (c crash) root(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, goal := range c.first {
		NewWithT(t).Expect(reach(t.Context(), root, goal)).To(Succeed())
	}
	return root
}

func (c crash) run(ctx context.Context, root, variable string) error {
	cmd := exec.CommandContext(ctx, c.binary, "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), rootVariable+"="+root, goalVariable+"="+string(c.goal), variable)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// points returns every fault point on the way to the goal, with its count: "name:2".
func (c crash) points(t *testing.T) []string {
	t.Helper()
	g := NewWithT(t)
	trace := filepath.Join(t.TempDir(), "trace")
	g.Expect(c.run(t.Context(), c.root(t), "WS_DAEMON_FAULT_TRACE="+trace)).To(Succeed())
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

func (c crash) at(t *testing.T, point string) {
	t.Helper()
	g := NewWithT(t)
	root := c.root(t)
	g.Expect(c.run(t.Context(), root, "WS_DAEMON_FAULT="+point)).To(MatchError(ContainSubstring("signal: killed")))
	g.Expect(c.run(t.Context(), root, "WS_DAEMON_FAULT=")).To(Succeed())
	if c.goal == volume.None {
		expectEmpty(g, root)
		return
	}
	d, err := volume.NewDirectory(root)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.Position(t.Context(), "a")).To(Equal(c.goal))
	g.Expect(os.ReadFile(filepath.Join(d.Path("a", c.goal), "file"))).To(BeEquivalentTo("first"))
	g.Expect(d.Get(t.Context(), "a")).To(HaveField("Size", BeEquivalentTo(5)))
	for _, at := range []volume.Position{volume.Published, volume.Withdrawn, volume.Staged} {
		if at != c.goal {
			g.Expect(d.Path("a", at)).NotTo(BeADirectory(), "nothing is left")
		}
	}
}
