package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	// measureTimeout is how long the disk of a class may take to tell how full it is.
	measureTimeout = 20 * time.Second
	// firstLook is how long a new workspace waits for the first look at the disks without saying so.
	firstLook = 5 * time.Second
)

// errTimedOut is why a disk cannot be used that did not answer.
var errTimedOut = fmt.Errorf("the disk did not answer within %s: look at its device, and for LVM at what lvs says on the node: %w",
	measureTimeout, context.DeadlineExceeded)

// guard keeps new workspaces off disks that have no room for them. It knows what the reconciler of the node measured last.
type guard struct {
	mu    sync.Mutex
	known bool
	disks disks
	asked time.Time // when a workspace asked before anything was known
	safe  bool      // whether the node may go
}

// last returns what was measured last, and whether anything was.
func (g *guard) last() (disks, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.disks, g.known
}

// set takes what was measured now, and says whether a disk is usable again, or has room again, that was not or had none: then
// those that wait for it should try again.
func (g *guard) set(now disks) (relief bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	relief = !g.known || eases(g.disks.area, now.area)
	for name, d := range now.classes {
		relief = relief || eases(g.disks.classes[name], d)
	}
	g.known, g.disks = true, now
	return relief
}

func eases(before, now disk) bool {
	return len(before.short) > len(now.short) || (before.err != nil && now.err == nil)
}

// report takes note of what was found about the node besides.
func (g *guard) report(f findings) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.safe = f.safe.ok
}

func (g *guard) isSafe() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.safe
}

// waitsSince returns since when workspaces wait for the first look at the disks.
func (g *guard) waitsSince(now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asked.IsZero() {
		g.asked = now
	}
	return g.asked
}

// stepRoom keeps a new workspace off a node that has no room for it. What the node holds, or has on its disk, goes on.
func (r *WorkspaceReconciler) stepRoom(_ context.Context, s *scope) (bool, error) {
	if s.held(r.Node) || s.seen.Exists() || decideClaim(s, r.Node).wait != nil {
		return false, nil
	}
	disks, known := r.guard.last()
	if !known {
		s.ready = found(v1.ReasonPending, "the disks of node %s have not been measured yet", r.Node)
		s.quiet = s.now.Sub(r.guard.waitsSince(s.now)) < firstLook
		s.after(firstLook)
		return true, nil
	}
	refusal := disks.refusal(s.ws.Spec.Volume.Class, r.Settings.Node.Pressure)
	if refusal == "" {
		return false, nil
	}
	s.volume = found(v1.ReasonInsufficientCapacity, "node %s takes no new workspaces of class %s: %s. Remove or stop workspaces on it, "+
		"enlarge the disk, or choose another node", r.Node, s.ws.Spec.Volume.Class, refusal)
	s.after(nodeInterval)
	return true, nil
}

// measure looks at all disks at once; one that does not answer keeps nobody waiting for the others.
func measure(ctx context.Context, k *content.Keeper, before disks, limits config.Pressure) disks {
	now := disks{classes: map[string]disk{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	for class := range k.Volumes {
		group.Go(func() {
			c, err := capacityInTime(ctx, k, class)
			d := seen(c, err, before.classes[class], limits)
			mu.Lock()
			defer mu.Unlock()
			now.classes[class] = d
		})
	}
	room, err := k.AreaRoom()
	now.area = seen(volume.Capacity{Room: room}, err, before.area, limits)
	group.Wait()
	return now
}

// capacityInTime measures the disk of a class, and says so if it does not answer.
func capacityInTime(ctx context.Context, k *content.Keeper, class string) (volume.Capacity, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, measureTimeout, errTimedOut)
	defer cancel()
	c, err := k.Capacity(ctx, class)
	if err != nil && errors.Is(context.Cause(ctx), errTimedOut) && !errors.Is(err, errTimedOut) {
		err = fmt.Errorf("%w (%w)", errTimedOut, err)
	}
	return c, err
}

// seen makes something of what was measured. What a disk was short of that cannot be measured, it is short of still.
func seen(c volume.Capacity, err error, before disk, limits config.Pressure) disk {
	if err != nil {
		return disk{err: err, short: before.short}
	}
	return disk{Capacity: c, short: decidePressure(c, before.short, limits)}
}

// remembered returns what the last report said that the disks are short of: the daemon may have been restarted since.
func remembered(status *v1.WorkspaceNodeStatus) disks {
	d := disks{classes: map[string]disk{}}
	if status.WorkingArea != nil {
		d.area.short = status.WorkingArea.Pressure
	}
	for _, c := range status.Classes {
		d.classes[c.Name] = disk{short: c.Pressure}
	}
	return d
}
