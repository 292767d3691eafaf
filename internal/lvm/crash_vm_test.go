//go:build vm

package lvm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

const childVariable = "WS_DAEMON_TEST_CHILD"

// errand is what a process does before it is killed.
type errand struct {
	Class Class
	Name  string
	ID    string
}

// operation is something that may be interrupted anywhere.
type operation struct {
	// size of the volume that there is before, 0 for none.
	size int64
	// staged says that users have not seen its content yet, template that there is one.
	staged, template bool
	// do is called again until it gets to its end.
	do func(ctx context.Context, d *Driver, id string) error
	// done is what there is then: the size, 0 for no volume, and where the content is.
	done int64
	at   volume.Position
	// kept says that there is a template then.
	kept bool
}

func operations() map[string]operation {
	const size, larger = 400 * mebibyte, 500 * mebibyte
	return map[string]operation{
		"create": {do: func(ctx context.Context, d *Driver, id string) error {
			_, err := d.Ensure(ctx, volume.Spec{ID: id, Size: size})
			return err
		}, done: size, at: volume.None},
		"grow": {size: size, do: func(ctx context.Context, d *Driver, id string) error {
			_, err := d.Resize(ctx, volume.Spec{ID: id, Size: larger, Inodes: 1000})
			return err
		}, done: larger, at: volume.Published},
		"snapshot": {size: size, do: func(ctx context.Context, d *Driver, id string) error {
			view, err := d.Snapshot(ctx, id)
			if err != nil {
				return err
			}
			return view.Close()
		}, done: size, at: volume.Published},
		"clone": {do: func(ctx context.Context, d *Driver, id string) error {
			_, err := d.Clone(ctx, neighbour, volume.Spec{ID: id, Size: larger})
			return err
		}, done: larger, at: volume.Staged},
		"keep": {size: size, staged: true, do: func(ctx context.Context, d *Driver, id string) error {
			return d.KeepTemplate(ctx, id, template)
		}, done: size, at: volume.Staged, kept: true},
		"begin": {template: true, do: func(ctx context.Context, d *Driver, id string) error {
			_, err := d.CloneTemplate(ctx, template, volume.Spec{ID: id, Size: larger}, prepared)
			return err
		}, done: larger, at: volume.Staged, kept: true},
		"evict": {size: size, template: true, do: func(ctx context.Context, d *Driver, _ string) error {
			return d.DropTemplate(ctx, template)
		}, done: size, at: volume.Published},
		"withdraw": {size: size, do: func(ctx context.Context, d *Driver, id string) error {
			return d.Withdraw(ctx, id)
		}, done: size, at: volume.Withdrawn},
		"remove": {size: size, do: func(ctx context.Context, d *Driver, id string) error {
			return d.Remove(ctx, id)
		}},
	}
}

// template is the name of the one there may be, made of a volume like the others.
const template = "abc123"

// prepared says of a clone what it began with.
func prepared(of volume.Marker, _ string) (volume.Marker, error) {
	return volume.Marker{UID: "clone", Prepared: of.Content}, nil
}

// neighbour is a volume in the same pool, of which clones are made, and to which nothing may happen.
const neighbour = "neighbour"

// TestChild is what TestS5_EveryCrashLeadsToOneRightEnd runs and kills; without its environment it does nothing.
func TestChild(t *testing.T) {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	g := NewWithT(t)
	var e errand
	g.Expect(json.Unmarshal([]byte(text), &e)).To(Succeed())
	d := newDriver(t, e.Class)
	g.Expect(operations()[e.Name].do(t.Context(), d, e.ID)).To(Succeed())
}

// A process that works on a volume is killed at every point of each operation; and at one of them, or all, the power of the disk is cut
// besides. The next process sweeps and gets to the end; nothing is left, and nothing happens to the neighbour.
func TestS5_EveryCrashLeadsToOneRightEnd(t *testing.T) {
	binary := faultstest.Build(t)
	class, disk := newCutClass(t, "xfs")
	published(t, newDriver(t, class), volume.Spec{ID: neighbour, Size: 400 * mebibyte})
	for _, name := range []string{"create", "grow", "snapshot", "clone", "keep", "begin", "evict", "withdraw", "remove"} {
		c := crash{operation: operations()[name], binary: binary, class: class, name: name}
		points := c.points(t)
		for i, point := range points {
			t.Run(name+"/killed/"+point, func(t *testing.T) { c.run(t, fmt.Sprintf("%s-%d", name, i), point) })
		}
		c.reboot = func(t *testing.T) { t.Helper(); reboot(t, class, disk) }
		for i, point := range volumetest.Some(t, "power cut during "+name, points) {
			t.Run(name+"/cut/"+point, func(t *testing.T) { c.run(t, fmt.Sprintf("%s-cut-%d", name, i), point) })
		}
	}
}

type crash struct {
	operation

	binary faultstest.Program
	name   string
	class  Class
	reboot func(t *testing.T) // cuts the power after the kill; nil if there is none
}

func (c crash) prepare(t *testing.T, id string) {
	t.Helper()
	d := newDriver(t, c.class)
	if c.template {
		staged(t, d, volume.Spec{ID: "source", Size: 400 * mebibyte})
		g := NewWithT(t)
		g.Expect(d.KeepTemplate(t.Context(), "source", template)).To(Succeed())
		g.Expect(d.Remove(t.Context(), "source")).To(Succeed())
	}
	switch {
	case c.staged:
		staged(t, d, volume.Spec{ID: id, Size: c.size})
	case c.size > 0:
		published(t, d, volume.Spec{ID: id, Size: c.size})
	}
}

func (c crash) child(ctx context.Context, id, variable string) error {
	text, err := json.Marshal(errand{c.class, c.name, id})
	if err != nil {
		return err
	}
	return c.binary.Run(ctx, childVariable+"="+string(text), variable)
}

// points returns the fault points of this package on the way, with their count: "name:2". Those of package volume are passed in its own
// tests.
func (c crash) points(t *testing.T) []string {
	t.Helper()
	g := NewWithT(t)
	id := c.name + "-trace"
	c.prepare(t, id)
	points := faultstest.Trace(t, func(variable string) error { return c.child(t.Context(), id, variable) })
	points = slices.DeleteFunc(points, func(p string) bool { return !strings.HasPrefix(p, "lvm.") })
	g.Expect(points).NotTo(BeEmpty())
	g.Expect(newDriver(t, c.class).Remove(t.Context(), id)).To(Succeed())
	g.Expect(newDriver(t, c.class).DropTemplate(t.Context(), template)).To(Succeed())
	return points
}

func (c crash) run(t *testing.T, id, point string) {
	t.Helper()
	g := NewWithT(t)
	c.prepare(t, id)
	g.Expect(c.child(t.Context(), id, faultstest.Kill(point))).To(MatchError(ContainSubstring("signal: killed")))
	if c.reboot != nil {
		c.reboot(t)
	}
	d := newDriver(t, c.class)
	g.Expect(d.Sweep(t.Context())).To(Succeed())
	g.Expect(c.do(t.Context(), d, id)).To(Succeed())

	volumes := map[string]int64{neighbour: 400 * mebibyte}
	if c.done > 0 {
		volumes[id] = c.done
		c.whole(t, d, id)
	}
	c.only(t, d, volumes)
	g.Expect(os.ReadFile(filepath.Join(d.Path(neighbour, volume.Published), "file"))).To(BeEquivalentTo("first"))
	g.Expect(d.Remove(t.Context(), id)).To(Succeed())
	g.Expect(d.DropTemplate(t.Context(), template)).To(Succeed())
}

// whole expects the volume to be what it shall be in the end.
func (c crash) whole(t *testing.T, d *Driver, id string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(d.Position(t.Context(), id)).To(Equal(c.at))
	if c.at != volume.None {
		g.Expect(os.ReadFile(filepath.Join(d.Path(id, c.at), "file"))).To(BeEquivalentTo("first"))
	}
	g.Expect(d.Get(t.Context(), id)).To(HaveField("Size", c.done))
	g.Expect(sizeOf(g, d.Dir(id))).To(BeNumerically("~", c.done, c.done/4), "the file system is as large as the device")
}

// only expects logical volumes, mounts and mount points of these volumes, and no others.
func (c crash) only(t *testing.T, d *Driver, volumes map[string]int64) {
	t.Helper()
	g := NewWithT(t)
	r, err := d.report(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	sizes, mounts := map[string]int64{}, []any{}
	for id, l := range r.volumes {
		sizes[id] = l.size
		mounts = append(mounts, d.point(id))
		g.Expect(l.kind()).To(BeEmpty(), id)
	}
	g.Expect(sizes).To(Equal(volumes))
	g.Expect(r.views).To(BeEmpty())
	if c.kept {
		g.Expect(sorted(r.templates)).To(Equal([]string{template}))
	} else {
		g.Expect(r.templates).To(BeEmpty())
	}
	g.Expect(mountsIn(g, c.class)).To(ConsistOf(mounts...))
	g.Expect(pointsIn(g, c.class)).To(BeEmpty(), "mount points that nothing is mounted on")
}
