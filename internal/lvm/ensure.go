package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/quota"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// extent is what sizes of logical volumes are rounded up to, unless the group has another one.
const extent = 4 << 20

// Ensure makes the logical volume and its file system, and mounts it.
func (d *Driver) Ensure(ctx context.Context, spec volume.Spec) (volume.Info, error) {
	if err := check(ctx, spec.ID); err != nil {
		return volume.Info{}, err
	}
	lock := d.lock(spec.ID)
	lock.Lock()
	defer lock.Unlock()
	info, err := d.ensure(ctx, spec)
	if err != nil {
		return volume.Info{}, fmt.Errorf("make volume %s: %w", spec.ID, err)
	}
	return info, nil
}

func (d *Driver) ensure(ctx context.Context, spec volume.Spec) (volume.Info, error) {
	is, err := d.isMounted(d.point(spec.ID), nameOf(spec.ID))
	fits := false
	if err == nil && !is {
		fits, err = d.bring(ctx, spec)
	}
	if err != nil {
		return volume.Info{}, err
	}
	v, err := volume.Open(spec.ID, d.point(spec.ID))
	if err != nil {
		return volume.Info{}, err
	}
	defer v.Close()
	now, err := v.Spec()
	if err != nil {
		return volume.Info{}, err
	}
	if now.Size == 0 && !fits { // it was not finished, and what was asked for then is not known
		if err := d.sizeAtLeast(ctx, spec); err != nil {
			return volume.Info{}, err
		}
	}
	if now.Size == 0 {
		if err := quota.LimitWhole(v, spec.Inodes); err != nil {
			return volume.Info{}, err
		}
	}
	faults.Point("lvm.limited")
	if err := v.Finish(spec); err != nil {
		return volume.Info{}, err
	}
	faults.Point("lvm.finished")
	return d.info(v)
}

// bring makes a volume unless it is there, and mounts it. It says whether logical volume and file system have just been made as
// large as they shall be.
func (d *Driver) bring(ctx context.Context, spec volume.Spec) (fits bool, err error) {
	l, err := d.obtain(ctx, spec)
	if err != nil {
		return false, err
	}
	if !l.active {
		if err := d.activate(ctx, l.name); err != nil {
			return false, err
		}
	}
	fits = l.kind() == tagNew && l.size == rounded(spec.Size)
	if l.kind() == tagNew {
		if err := d.format(ctx, d.devicePath(l.name)); err != nil {
			return false, err
		}
		if err := d.tag(ctx, l.name, tagNew, ""); err != nil {
			return false, err
		}
	}
	return fits, d.mountVolume(spec.ID)
}

// mountVolume mounts a volume where its users look for it.
func (d *Driver) mountVolume(id string) error {
	if err := makePoint(d.point(id)); err != nil {
		return err
	}
	faults.Point("lvm.pointed")
	if err := d.mount(d.devicePath(nameOf(id)), d.point(id), d.fs.options, 0); err != nil {
		return err
	}
	faults.Point("lvm.mounted")
	return nil
}

// obtain returns the logical volume of an id, and makes it if there is none.
func (d *Driver) obtain(ctx context.Context, spec volume.Spec) (logical, error) {
	release, err := d.take(ctx)
	if err != nil {
		return logical{}, err
	}
	defer release()
	r, err := d.recent(ctx) // lvcreate takes no name that is there
	if err != nil {
		return logical{}, err
	}
	l, err := d.find(r, spec.ID)
	if err != nil {
		return logical{}, err
	}
	if l.kind() == tagGoing || l.kind() == tagClone {
		if err := d.finishRemoval(ctx, l); err != nil {
			return logical{}, err
		}
		r.taken -= l.size
		l = logical{}
	}
	if l.name != "" {
		return l, nil
	}
	if err := errors.Join(d.fits(spec), d.admit(r, rounded(spec.Size))); err != nil {
		return logical{}, err
	}
	l = logical{name: nameOf(spec.ID), size: rounded(spec.Size), active: true, tags: []string{tagOurs, tagNew}}
	return l, d.create(ctx, spec.ID, l.size)
}

// fits refuses sizes that a volume of the class cannot have.
func (d *Driver) fits(spec volume.Spec) error {
	if spec.Size < d.class.MinSize {
		return &volume.SizeError{Size: spec.Size, Minimum: d.class.MinSize}
	}
	return nil
}

func rounded(size int64) int64 { return (size + extent - 1) / extent * extent }

// Resize grows the logical volume and its file system, while they are used. What the volume shall be is written down last,
// so that what was interrupted is done again.
func (d *Driver) Resize(ctx context.Context, spec volume.Spec) (volume.Info, error) {
	if err := check(ctx, spec.ID); err != nil {
		return volume.Info{}, err
	}
	lock := d.lock(spec.ID)
	lock.RLock()
	defer lock.RUnlock()
	v, err := d.opened(ctx, spec.ID)
	if err != nil {
		return volume.Info{}, err
	}
	defer v.Close()
	if err := d.resize(ctx, v, spec); err != nil {
		return volume.Info{}, fmt.Errorf("resize volume %s: %w", spec.ID, err)
	}
	return d.info(v)
}

func (d *Driver) resize(ctx context.Context, v *volume.Opened, spec volume.Spec) error {
	now, err := v.Spec()
	if err == nil {
		err = v.Growable(spec)
	}
	if err == nil && spec.Size != now.Size {
		err = d.sizeAtLeast(ctx, spec)
	}
	if err == nil && (spec.Inodes != now.Inodes || spec.Size != now.Size) {
		err = quota.LimitWhole(v, spec.Inodes)
	}
	faults.Point("lvm.limited")
	if err != nil {
		return err
	}
	return v.Resize(spec)
}

// sizeAtLeast grows a mounted volume until it is as large as it shall be.
func (d *Driver) sizeAtLeast(ctx context.Context, spec volume.Spec) error {
	if err := d.fits(spec); err != nil {
		return err
	}
	if err := d.extendTo(ctx, nameOf(spec.ID), spec.ID, spec.Size); err != nil {
		return err
	}
	return d.growAt(d.point(spec.ID), nameOf(spec.ID))
}

// extendTo grows a logical volume, if that is needed and the pool has room.
func (d *Driver) extendTo(ctx context.Context, name, id string, size int64) error {
	release, err := d.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	r, err := d.report(ctx)
	if err != nil {
		return err
	}
	l, err := d.find(r, id)
	if err != nil {
		return err
	}
	if l.name == "" {
		return fmt.Errorf("%s: %w", d.full(name), volume.ErrNotFound)
	}
	if l.size >= size {
		return nil
	}
	if err := d.admit(r, rounded(size)-l.size); err != nil {
		return err
	}
	return d.extend(ctx, name, rounded(size))
}

// growAt makes the file system that is mounted at a point as large as its device.
func (d *Driver) growAt(point, name string) error {
	root, err := os.OpenFile(point, dirFlags, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	device, err := os.Open(d.devicePath(name))
	if err != nil {
		return err
	}
	defer device.Close()
	size, err := deviceSize(device)
	if err == nil {
		err = d.fs.grow(root, size)
	}
	if err != nil {
		return fmt.Errorf("grow the file system of %s: %w", d.full(name), err)
	}
	faults.Point("lvm.grown")
	return nil
}
