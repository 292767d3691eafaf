package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Withdraw moves published content out of the users' reach, and makes sure that nobody has kept hold of it: for a moment, the
// volume is mounted nowhere. If somebody has it, the content goes back to its users, and that is ErrInUse.
func (d *Driver) Withdraw(ctx context.Context, id string) error {
	if err := check(ctx, id); err != nil {
		return err
	}
	lock := d.lock(id)
	lock.Lock()
	defer lock.Unlock()
	before, err := d.withOpened(ctx, id, func(v *volume.Opened) (volume.Position, error) {
		at, err := v.Position()
		return at, errors.Join(err, v.Withdraw())
	})
	if err != nil {
		return fmt.Errorf("withdraw content of volume %s: %w", id, err)
	}
	err = d.takeAway(ctx, d.point(id), d.devicePath(nameOf(id)))
	faults.Point("lvm.away")
	err = errors.Join(err, d.mountAgain(id))
	if errors.Is(err, volume.ErrInUse) && before == volume.Published {
		_, back := d.withOpened(context.WithoutCancel(ctx), id, func(v *volume.Opened) (volume.Position, error) { return volume.None, v.Publish() })
		err = errors.Join(err, back)
	}
	if err != nil {
		return fmt.Errorf("withdraw content of volume %s: %w", id, err)
	}
	return nil
}

func (d *Driver) withOpened(ctx context.Context, id string, do func(*volume.Opened) (volume.Position, error)) (volume.Position, error) {
	v, err := d.opened(ctx, id)
	if err != nil {
		return volume.None, err
	}
	defer v.Close()
	return do(v)
}

// mountAgain mounts a volume unless it is mounted.
func (d *Driver) mountAgain(id string) error {
	is, err := d.isMounted(d.point(id), nameOf(id))
	if err != nil || is {
		return err
	}
	return d.mountVolume(id)
}

// Remove wipes a volume and removes it, once nobody has it.
func (d *Driver) Remove(ctx context.Context, id string) error {
	if err := check(ctx, id); err != nil {
		return err
	}
	lock := d.lock(id)
	lock.Lock()
	defer lock.Unlock()
	if err := d.remove(ctx, id); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	faults.Point("volume.remove.done")
	return nil
}

func (d *Driver) remove(ctx context.Context, id string) error {
	r, err := d.report(ctx)
	if err != nil {
		return err
	}
	l, err := d.find(r, id)
	if err != nil {
		return err
	}
	if l.name == "" {
		return removePoint(d.point(id))
	}
	if l.kind() == "" {
		if err := d.mayGo(ctx, id); err != nil {
			return err
		}
		if err := d.tag(ctx, l.name, "", tagGoing); err != nil {
			return errors.Join(err, d.stay(ctx, id))
		}
	}
	return d.finishRemoval(ctx, l)
}

// stay takes back that a volume is going, and mounts it again. An order that was killed may have been carried out all the same; if somebody
// used the volume then, the next start would remove it.
func (d *Driver) stay(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(d.tag(ctx, nameOf(id), tagGoing, ""), d.mountAgain(id))
}

// mayGo makes sure that nothing but the volume's own content lies in it, and that nobody has it. After that it is not mounted. One
// that was not mounted before stays: whoever wants it to be removed cannot have looked into it.
func (d *Driver) mayGo(ctx context.Context, id string) error {
	v, err := d.opened(ctx, id)
	if err != nil {
		return err
	}
	at, err := v.Position()
	if err == nil && at != volume.Published {
		err = v.Vacant()
	}
	v.Close()
	if err != nil {
		return err
	}
	err = d.takeAway(ctx, d.point(id), d.devicePath(nameOf(id)))
	faults.Point("lvm.away")
	if err != nil {
		return errors.Join(err, d.mountAgain(id))
	}
	return nil
}

// finishRemoval removes what nobody needs any more: a volume that is going, a view, a clone that was not finished. It goes on
// wherever it was interrupted.
func (d *Driver) finishRemoval(ctx context.Context, l logical) error {
	point := d.privatePoint(l.name)
	if id := l.id(); l.kind() != tagView && l.kind() != tagClone {
		point = d.point(id)
	}
	device := d.devicePath(l.name)
	if l.active {
		if err := d.takeAway(ctx, point, device); err != nil {
			return err
		}
		if !l.readOnly { // a view has nothing of its own to give back
			if err := wipe(ctx, device); err != nil {
				return err
			}
		}
		faults.Point("lvm.wiped")
	}
	if err := d.drop(ctx, l.name); err != nil {
		return err
	}
	return removePoint(point)
}

// Sweep finishes what was interrupted, and mounts all volumes. It is what makes a node whole after a start, before anything else
// is done with volumes.
func (d *Driver) Sweep(ctx context.Context) error {
	r, err := d.report(ctx)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var errs []error
	for _, l := range r.leftovers() {
		errs = append(errs, d.sweepLeftover(ctx, l))
	}
	ids := r.ids("")
	var names []string
	if !r.pool.active { // only then it tells how full it is
		names = append(names, r.pool.name)
	}
	for _, id := range ids {
		if l := r.volumes[id]; !l.active {
			names = append(names, l.name)
		}
	}
	errs = append(errs, d.activate(ctx, names...))
	for _, id := range ids {
		errs = append(errs, d.sweepVolume(ctx, id))
	}
	errs = append(errs, d.sweepPoints(r))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// sweepLeftover removes what nobody needs any more, unless somebody is at work on it.
func (d *Driver) sweepLeftover(ctx context.Context, l logical) error {
	if l.kind() == tagView {
		if _, open := d.views.Load(l.name); open {
			return nil
		}
		return d.finishRemoval(ctx, l)
	}
	lock := d.lock(l.id())
	if !lock.TryLock() {
		return nil
	}
	defer lock.Unlock()
	r, err := d.report(ctx) // whoever was at work may have finished
	if err != nil {
		return err
	}
	if now := r.volumes[l.id()]; now.has(tagOurs) && now.kind() != "" {
		return d.finishRemoval(ctx, now)
	}
	return nil
}

// leftovers returns what nobody needs any more: what is going, views, clones that were not finished, and volumes that have never
// held anything.
func (r report) leftovers() []logical {
	gone := slices.Clone(r.views) // the report may be kept
	for _, kind := range []string{tagGoing, tagClone, tagNew} {
		for _, id := range r.ids(kind) {
			gone = append(gone, r.volumes[id])
		}
	}
	return gone
}

// sweepVolume mounts a volume, and empties its trash.
func (d *Driver) sweepVolume(ctx context.Context, id string) error {
	lock := d.lock(id)
	lock.Lock()
	defer lock.Unlock()
	if err := d.mountAgain(id); err != nil {
		return err
	}
	v, err := volume.Open(id, d.point(id))
	if err != nil {
		return err
	}
	defer v.Close()
	return v.EmptyTrash(ctx)
}

// sweepPoints removes mount points that no volume needs. Only what is empty but for what we put there goes.
func (d *Driver) sweepPoints(r report) error {
	var errs []error
	for _, dir := range []string{d.class.Root, filepath.Join(d.class.Root, privateDir)} {
		entries, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			if !entry.IsDir() || entry.Name() == privateDir || d.needed(r, dir, entry.Name()) {
				continue
			}
			if guarded(path) {
				errs = append(errs, removePoint(path))
			}
		}
	}
	return errors.Join(errs...)
}

// needed says whether something is mounted, or to be mounted, on a mount point.
func (d *Driver) needed(r report, dir, name string) bool {
	if dir != d.class.Root {
		_, open := d.views.Load(name)
		return open
	}
	l, ok := r.volumes[name]
	return ok && l.has(tagOurs) && l.kind() == ""
}

// guarded says whether a directory is a mount point of ours that nothing is mounted on.
func guarded(path string) bool {
	st, err := os.Lstat(filepath.Join(path, guardName))
	return err == nil && st.Mode().IsRegular()
}
