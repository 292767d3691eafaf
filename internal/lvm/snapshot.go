package lvm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/quota"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// closeTimeout bounds the removal of a view.
const closeTimeout = 5 * time.Minute

// Snapshot makes a read-only view of the volume as it is now. ErrCapacity if the pool is so full that a view is a risk to others:
// while there is one, blocks that are overwritten take new ones.
func (d *Driver) Snapshot(ctx context.Context, id string) (volume.View, error) {
	if err := check(ctx, id); err != nil {
		return volume.View{}, err
	}
	lock := d.lock(id)
	lock.RLock()
	defer lock.RUnlock()
	view, err := d.snapshot(ctx, id)
	if err != nil {
		return volume.View{}, fmt.Errorf("snapshot volume %s: %w", id, err)
	}
	return view, nil
}

func (d *Driver) snapshot(ctx context.Context, id string) (volume.View, error) {
	at, err := d.withOpened(ctx, id, (*volume.Opened).Position)
	if err != nil {
		return volume.View{}, err
	}
	if at == volume.None {
		return volume.View{}, fmt.Errorf("it holds no content: %w", volume.ErrNotFound)
	}
	r, err := d.report(ctx)
	if err == nil {
		err = d.mayView(r)
	}
	if err != nil {
		return volume.View{}, err
	}
	name := nameOf(id) + viewInfix + strings.ToLower(rand.Text()[:12])
	d.views.Store(name, true)
	leave := func() error {
		defer d.views.Delete(name)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		device, err := deviceNumber(d.devicePath(name)) // an order that was killed may have got anywhere
		return errors.Join(err, d.finishRemoval(ctx, logical{name: name, tags: []string{tagOurs, tagView}, active: device != 0, readOnly: true}))
	}
	if err := d.copy(ctx, nameOf(id), name, tagView, activated("r")...); err != nil {
		return volume.View{}, errors.Join(err, leave())
	}
	if err := d.mountPrivately(name, d.fs.readOnly, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOEXEC); err != nil {
		return volume.View{}, errors.Join(err, leave())
	}
	return volume.View{Path: volume.PathIn(d.privatePoint(name), at), Close: leave}, nil
}

func (d *Driver) mountPrivately(name string, options []string, attributes int) error {
	if err := makePoint(d.privatePoint(name)); err != nil {
		return err
	}
	err := d.mount(d.devicePath(name), d.privatePoint(name), options, attributes)
	faults.Point("lvm.viewed")
	return err
}

// Clone makes a volume from another by a thin copy, which takes the same time whatever is in it. The content is staged in the
// new volume, whose marker says nothing.
func (d *Driver) Clone(ctx context.Context, from string, spec volume.Spec) (volume.Info, error) {
	if err := check(ctx, from); err != nil {
		return volume.Info{}, err
	}
	origin := func(r report) (logical, error) {
		l, err := d.find(r, from)
		if err == nil && (l.name == "" || l.kind() != "") {
			err = fmt.Errorf("volume %s: %w", from, volume.ErrNotFound)
		}
		return l, err
	}
	info, err := d.cloneOf(ctx, spec, origin, func(v *volume.Opened) error { return v.Restage(ctx) })
	if err != nil {
		return volume.Info{}, fmt.Errorf("clone volume %s to %s: %w", from, spec.ID, err)
	}
	return info, nil
}

// cloneOf makes a volume from a logical volume. restage makes what lies in it the new volume's own, where users do not see it.
func (d *Driver) cloneOf(
	ctx context.Context, spec volume.Spec, origin func(report) (logical, error), restage func(*volume.Opened) error,
) (volume.Info, error) {
	if err := errors.Join(check(ctx, spec.ID), d.fits(spec)); err != nil {
		return volume.Info{}, err
	}
	lock := d.lock(spec.ID)
	lock.Lock()
	defer lock.Unlock()
	done, err := d.copyOrigin(ctx, spec, origin)
	if err == nil && !done {
		if err = d.restage(ctx, spec, restage); err == nil {
			err = d.mountVolume(spec.ID)
		}
	}
	if err != nil {
		return volume.Info{}, err
	}
	return d.ensure(ctx, spec)
}

// copyOrigin makes the logical volume of a clone, and says whether it was there and finished.
func (d *Driver) copyOrigin(ctx context.Context, spec volume.Spec, find func(report) (logical, error)) (done bool, err error) {
	release, err := d.take(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	r, err := d.report(ctx)
	if err != nil {
		return false, err
	}
	there, err := d.find(r, spec.ID)
	if err != nil {
		return false, err
	}
	if there.name != "" && there.kind() == "" {
		return true, nil
	}
	origin, err := find(r)
	if err == nil && rounded(spec.Size) < origin.size {
		err = fmt.Errorf("it would have %d bytes, and what it is made from has %d: %w", spec.Size, origin.size, volume.ErrShrink)
	}
	if err != nil {
		return false, err
	}
	if there.name != "" {
		if err := d.finishRemoval(ctx, there); err != nil {
			return false, err
		}
		r.taken -= there.size
	}
	if err := d.admit(r, rounded(spec.Size)); err != nil {
		return false, err
	}
	name := nameOf(spec.ID)
	if err := d.copy(ctx, origin.name, name, tagClone, activated("rw")...); err != nil || rounded(spec.Size) == origin.size {
		return false, err
	}
	return false, d.extend(ctx, name, rounded(spec.Size))
}

// restage makes a copy a volume of its own, while nobody else sees it: as large as it shall be, with limits, a description and content
// of its own. Only then does it lose the tag by which it would be removed.
func (d *Driver) restage(ctx context.Context, spec volume.Spec, do func(*volume.Opened) error) error {
	name := nameOf(spec.ID)
	point := d.privatePoint(name)
	if err := d.mountPrivately(name, d.fs.options, 0); err != nil {
		return err
	}
	if err := d.growAt(point, name); err != nil {
		return err
	}
	if err := d.adopt(spec, point, do); err != nil {
		return err
	}
	if err := patiently(ctx, func() error { return unmount(point) }); err != nil {
		return err
	}
	if err := removePoint(point); err != nil {
		return err
	}
	return d.tag(ctx, name, tagClone, "")
}

func (d *Driver) adopt(spec volume.Spec, point string, do func(*volume.Opened) error) error {
	v, err := volume.Open(spec.ID, point)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := do(v); err != nil {
		return err
	}
	if err := quota.LimitWhole(v, spec.Inodes); err != nil {
		return err
	}
	return v.Finish(spec)
}
