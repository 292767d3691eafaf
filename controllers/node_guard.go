package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// firstLook is how long a new workspace waits for the first look at the disks without saying so.
const firstLook = 5 * time.Second

// guard keeps new workspaces off disks that have no room for them. It knows what the reconciler of the node measured last.
type guard struct {
	mu    sync.Mutex
	known bool
	disks disks
	asked time.Time // when a workspace asked before anything was known
	safe  bool      // whether the node may go
	tight bool      // a workspace was too large for what its class may still promise
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
		before := g.disks.classes[name]
		relief = relief || eases(before, d) || g.tight && more(before.Spare, d.Spare)
	}
	g.known, g.disks, g.tight = true, now, g.tight && !relief
	return relief
}

// more says whether more may be promised than before.
func more(before, now *int64) bool { return before != nil && (now == nil || *now > *before) }

// refused takes note that a workspace waits until more may be promised.
func (g *guard) refused() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tight = true
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
	class := s.ws.Spec.Volume.Class
	if err := disks.unusable(class); err != nil {
		s.volume = found(classify(err, v1.ReasonUnusable).reason, "%s", clip(fmt.Sprintf("node %s takes no new workspaces of class %s: %v", r.Node, class, err)))
		s.after(nodeInterval)
		return true, nil
	}
	if refusal := disks.refusal(class, r.Settings.Node.Pressure); refusal != "" {
		s.volume = found(v1.ReasonInsufficientCapacity, "node %s takes no new workspaces of class %s: %s. Remove or stop workspaces on it, "+
			"enlarge the disk, or choose another node", r.Node, class, refusal)
		s.after(nodeInterval)
		return true, nil
	}
	if size := s.ws.Spec.Volume.Size; disks.tooSmall(class, size.Value()) {
		r.guard.refused()
		s.volume = found(v1.ReasonInsufficientCapacity, "node %s may promise %d bytes more to volumes of class %s, and this one shall have %d: remove or stop "+
			"workspaces on it, enlarge the disk, let the class overcommit, or choose another node", r.Node, *disks.classes[class].Spare, class, size.Value())
		s.after(nodeInterval)
		return true, nil
	}
	return false, nil
}

// tooSmall says whether a class may not promise so many bytes more.
func (d disks) tooSmall(class string, size int64) bool {
	spare := d.classes[class].Spare
	return spare != nil && *spare < size
}

// unusable says why nothing new can lie on the disks of a class; nil if it can.
func (d disks) unusable(class string) error {
	if d.area.err != nil {
		return fmt.Errorf("working area: %w", d.area.err)
	}
	return d.classes[class].err
}

// measure looks at all disks at once; one that does not answer keeps nobody waiting for the others.
func measure(ctx context.Context, k *content.Keeper, before disks, limits config.Pressure) disks {
	now := disks{classes: map[string]disk{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	for class := range k.Volumes {
		group.Go(func() {
			c, err := k.Capacity(ctx, class)
			d := seen(c, err, before.classes[class], limits)
			mu.Lock()
			defer mu.Unlock()
			now.classes[class] = d
		})
	}
	room, err := k.AreaRoom(ctx)
	now.area = seen(volume.Capacity{Room: room}, err, before.area, limits)
	group.Wait()
	return now
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
