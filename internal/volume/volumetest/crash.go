package volumetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	diskVariable = "WS_DAEMON_TEST_DISK"
	goalVariable = "WS_DAEMON_TEST_GOAL"
)

// Crashes kill a process that works on a volume at every fault point, and expect a second one to get to the same end as if
// nothing had happened. The test program needs a test "TestChild" that calls Child.
type Crashes struct {
	// Disk makes an empty disk for one crash, and returns what Open knows it by.
	Disk func(t *testing.T) string
	// Open returns the driver of a disk.
	Open func(disk string) (volume.Driver, error)
	// Reboot, if it is set, cuts the power of a disk right after the process was killed, and gives it back. Then one fault point on each
	// way is walked, unless the build has the tag "long".
	Reboot func(t *testing.T, disk string)
	// Empty expects that nothing is left on a disk after its only volume was removed.
	Empty func(t *testing.T, disk string)
	// Whole expects what else has to be true of the volume "a".
	Whole func(t *testing.T, disk string, d volume.Driver)
}

// crashSize and largeSize are the sizes that the volume is made with and grown to.
const (
	crashSize = 1 << 30
	largeSize = 2 << 30
)

// goal of a process: where the content shall be, and how large the volume.
type goal struct {
	at   volume.Position
	size int64
}

func (g goal) String() string { return fmt.Sprintf("%s/%d", g.at, g.size) }

// way to a goal, by others.
type way struct {
	goal  goal
	first []goal
}

func (w way) String() string {
	return fmt.Sprintf("power cut on the way from %v to %v", w.first, w.goal)
}

func parseGoal(text string) (goal, error) {
	at, size, _ := strings.Cut(text, "/")
	g := goal{at: volume.Position(at)}
	_, err := fmt.Sscan(size, &g.size)
	return g, err
}

// Child does what the environment asks for, as a daemon that was started again: it looks at what there is, and goes on from
// there. Without that environment it does nothing.
func (c Crashes) Child(t *testing.T) {
	t.Helper()
	disk := os.Getenv(diskVariable)
	if disk == "" {
		return
	}
	g := NewWithT(t)
	goal, err := parseGoal(os.Getenv(goalVariable))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(c.reach(t.Context(), disk, goal)).To(Succeed())
}

func (c Crashes) reach(ctx context.Context, disk string, want goal) error {
	d, err := c.Open(disk)
	if err != nil {
		return err
	}
	if err := d.Sweep(ctx); err != nil {
		return err
	}
	switch want.at {
	case volume.None:
		return d.Remove(ctx, "a")
	case volume.Withdrawn:
		return d.Withdraw(ctx, "a")
	case volume.Staged, volume.Published:
	}
	return publish(ctx, d, want.size)
}

func publish(ctx context.Context, d volume.Driver, size int64) error {
	info, err := d.Ensure(ctx, volume.Spec{ID: "a", Size: size})
	if err != nil {
		return err
	}
	if info.Size < size {
		if info, err = d.Resize(ctx, volume.Spec{ID: "a", Size: size}); err != nil {
			return err
		}
	}
	marker, err := volume.ReadMarker(info)
	if err != nil && !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	if marker.Content == nil {
		if err := volume.WriteMarker(info, volume.Marker{UID: "a", Claim: 7}); err != nil {
			return err
		}
		if err := Fill(ctx, d, info, "first"); err != nil {
			return err
		}
	}
	return d.Publish(ctx, "a")
}

// Run walks all points on the way to every goal.
func (c Crashes) Run(t *testing.T) {
	t.Helper()
	binary := faultstest.Build(t)
	published := goal{volume.Published, crashSize}
	withdrawn := goal{volume.Withdrawn, crashSize}
	for _, way := range []way{
		{goal: published},
		{goal: goal{volume.Published, largeSize}, first: []goal{published}},
		{goal: withdrawn, first: []goal{published}},
		{goal: published, first: []goal{published, withdrawn}},
		{goal: goal{volume.None, 0}, first: []goal{published, withdrawn}},
		{goal: goal{volume.None, 0}, first: []goal{published}},
	} {
		crash := crash{Crashes: c, binary: binary, way: way}
		var points []string
		t.Run(way.goal.String()+"/points", func(t *testing.T) { points = crash.points(t) })
		if c.Reboot != nil {
			points = Some(t, way.String(), points)
		}
		for _, point := range points {
			t.Run(fmt.Sprintf("%s/%s", way.goal, point), func(t *testing.T) { crash.run(t, point) })
		}
	}
}

type crash struct {
	Crashes
	way

	binary faultstest.Program
}

// disk returns a disk on which everything before the goal was reached.
func (c crash) disk(t *testing.T) string {
	t.Helper()
	disk := c.Disk(t)
	for _, goal := range c.first {
		NewWithT(t).Expect(c.reach(t.Context(), disk, goal)).To(Succeed())
	}
	return disk
}

func (c crash) child(ctx context.Context, disk, variable string) error {
	return c.binary.Run(ctx, diskVariable+"="+disk, goalVariable+"="+c.goal.String(), variable)
}

// points returns every fault point on the way to the goal, with its count: "name:2".
func (c crash) points(t *testing.T) []string {
	t.Helper()
	disk := c.disk(t)
	return faultstest.Trace(t, func(variable string) error { return c.child(t.Context(), disk, variable) })
}

func (c crash) run(t *testing.T, point string) {
	t.Helper()
	g := NewWithT(t)
	disk := c.disk(t)
	g.Expect(c.child(t.Context(), disk, faultstest.Kill(point))).To(MatchError(ContainSubstring("signal: killed")))
	if c.Reboot != nil {
		c.Reboot(t, disk)
	}
	g.Expect(c.child(t.Context(), disk, faultstest.Kill(""))).To(Succeed())
	if c.goal.at == volume.None {
		c.Empty(t, disk)
		return
	}
	d, err := c.Open(disk)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.Position(t.Context(), "a")).To(Equal(c.goal.at))
	g.Expect(os.ReadFile(filepath.Join(d.Path("a", c.goal.at), "file"))).To(BeEquivalentTo("first"))
	g.Expect(d.Get(t.Context(), "a")).To(HaveField("Size", BeEquivalentTo(c.goal.size)))
	for _, at := range []volume.Position{volume.Published, volume.Withdrawn, volume.Staged} {
		if at != c.goal.at {
			g.Expect(d.Path("a", at)).NotTo(BeADirectory(), "nothing is left")
		}
	}
	c.Whole(t, disk, d)
}
