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
	if err == nil && (r.pool.data >= maxViewData || r.pool.metadata >= maxViewData) {
		err = fmt.Errorf("%w: thin pool %s is %.1f %% full, its metadata %.1f %%, and views take more: extend it",
			volume.ErrCapacity, d.full(d.class.Pool), r.pool.data, r.pool.metadata)
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
		return d.finishRemoval(ctx, logical{name: name, tags: []string{tagOurs, tagView}, active: true, readOnly: true})
	}
	if err := d.copy(ctx, id, name, tagView, "--permission", "r"); err != nil {
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
	if err := errors.Join(check(ctx, from), check(ctx, spec.ID), d.fits(spec)); err != nil {
		return volume.Info{}, err
	}
	lock := d.lock(spec.ID)
	lock.Lock()
	defer lock.Unlock()
	if err := d.clone(ctx, from, spec); err != nil {
		return volume.Info{}, fmt.Errorf("clone volume %s to %s: %w", from, spec.ID, err)
	}
	return d.ensure(ctx, spec)
}

// clone makes the copy, unless it is finished.
func (d *Driver) clone(ctx context.Context, from string, spec volume.Spec) error {
	name, point := nameOf(spec.ID), d.privatePoint(nameOf(spec.ID))
	done, err := d.copyVolume(ctx, from, spec)
	if err != nil || done {
		return err
	}
	if err := d.mountPrivately(name, d.fs.options, 0); err != nil {
		return err
	}
	if err := d.growAt(point, name); err != nil {
		return err
	}
	if err := restage(ctx, spec.ID, point); err != nil {
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

// copyVolume makes the logical volume of a clone, and says whether it was there and finished.
func (d *Driver) copyVolume(ctx context.Context, from string, spec volume.Spec) (done bool, err error) {
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
	if there.name != "" {
		if err := d.finishRemoval(ctx, there); err != nil {
			return false, err
		}
		r.taken -= there.size
	}
	origin, err := d.find(r, from)
	switch {
	case err != nil:
		return false, err
	case origin.name == "" || origin.kind() != "":
		return false, fmt.Errorf("volume %s: %w", from, volume.ErrNotFound)
	case rounded(spec.Size) < origin.size:
		return false, fmt.Errorf("it would have %d bytes, and what it is made from has %d: %w", spec.Size, origin.size, volume.ErrShrink)
	}
	if err := d.admit(r, rounded(spec.Size)); err != nil {
		return false, err
	}
	if err := d.copy(ctx, from, nameOf(spec.ID), tagClone); err != nil || rounded(spec.Size) == origin.size {
		return false, err
	}
	return false, d.extend(ctx, nameOf(spec.ID), rounded(spec.Size))
}

func restage(ctx context.Context, id, point string) error {
	v, err := volume.Open(id, point)
	if err != nil {
		return err
	}
	defer v.Close()
	return v.Restage(ctx)
}
