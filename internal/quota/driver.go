package quota

import (
	"context"
	"errors"
	"fmt"
	"os"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Driver keeps volumes in directories, each limited by a project of its own.
type Driver struct {
	*volume.Directory

	ids allocator
}

var (
	_ volume.Driver  = (*Driver)(nil)
	_ volume.Auditor = (*Driver)(nil)
)

// New returns a driver that keeps volumes below root, a directory that exists and belongs to the daemon. That its filesystem
// cannot limit them is no error here: what is there already stays within reach, and what needs a limit fails with
// [volume.ErrUnlimited].
func New(root string, ids Range) (*Driver, error) {
	directory, err := volume.NewDirectory(root)
	if err != nil {
		return nil, err
	}
	if ids.First == 0 || ids.Last < ids.First {
		return nil, fmt.Errorf("range of project ids from %d to %d: it must begin above 0 and not end before", ids.First, ids.Last)
	}
	return &Driver{Directory: directory, ids: allocator{ids: ids}}, nil
}

// Name returns "quota".
func (d *Driver) Name() string { return "quota" }

// ready fails if limits would not hold.
func (d *Driver) ready() error {
	return d.atRoot(supported)
}

func (d *Driver) atRoot(do func(root *os.File) error) error {
	root, err := d.OpenRoot() // not below the mount point of a disk that is gone
	if err != nil {
		return err
	}
	defer root.Close()
	return do(root)
}

// Ensure makes the directory of a volume, puts it into a project and sets the limits.
func (d *Driver) Ensure(ctx context.Context, spec volume.Spec) (volume.Info, error) {
	if err := d.ready(); err != nil {
		return volume.Info{}, fmt.Errorf("make volume %s: %w", spec.ID, err)
	}
	if _, err := d.Directory.Ensure(ctx, spec); err != nil {
		return volume.Info{}, err
	}
	err := d.With(ctx, spec.ID, "limit", func(v *volume.Opened) error {
		id, err := d.project(v)
		if err != nil {
			return err
		}
		if err := bound(v, id); err != nil {
			return err
		}
		faults.Point("quota.ensure")
		return limitAsRecorded(v, id)
	})
	if err != nil {
		return volume.Info{}, err
	}
	return d.Get(ctx, spec.ID)
}

// project returns the project of a volume, and gives it one if it has none. A volume without limits was perhaps left in the
// middle of that, so it has to be alone in its project.
func (d *Driver) project(v *volume.Opened) (uint32, error) {
	dir := v.Descriptor()
	p, err := projectOf(dir)
	if err != nil {
		return 0, err
	}
	if p.id == 0 {
		return d.ids.assign(dir)
	}
	a, err := accountOf(dir, p.id)
	if err != nil || a.limits != (limits{}) || a.inodes <= 1 || holdsContent(v) {
		return p.id, err
	}
	return d.ids.assign(dir)
}

// Get returns a volume, and whether its limit holds.
func (d *Driver) Get(ctx context.Context, id string) (volume.Info, error) {
	info, err := d.Directory.Get(ctx, id)
	if err != nil {
		return info, err
	}
	info.Limited = d.limited(ctx, info)
	return info, nil
}

// List returns all volumes, see [volume.Directory.List].
func (d *Driver) List(ctx context.Context) ([]volume.Info, error) {
	list, err := d.Directory.List(ctx)
	for i := range list {
		list[i].Limited = d.limited(ctx, list[i])
	}
	return list, err
}

// limited says whether the size of a volume is enforced.
func (d *Driver) limited(ctx context.Context, info volume.Info) bool {
	if info.Size == 0 || d.ready() != nil {
		return false
	}
	err := d.With(ctx, info.ID, "check the limit of", func(v *volume.Opened) error {
		id, err := assigned(v)
		if err != nil {
			return err
		}
		return errors.Join(bound(v, id), limitedTo(v, id, volume.Spec{Size: info.Size, Inodes: info.Inodes}))
	})
	return err == nil
}

// Resize makes the limits of a volume larger.
func (d *Driver) Resize(ctx context.Context, spec volume.Spec) (volume.Info, error) {
	if err := d.ready(); err != nil {
		return volume.Info{}, fmt.Errorf("resize volume %s: %w", spec.ID, err)
	}
	// What is recorded last says that all is done.
	err := d.With(ctx, spec.ID, "resize", func(v *volume.Opened) error {
		if err := v.Growable(spec); err != nil {
			return err
		}
		return d.Promise(ctx, spec, func() error { return resize(v, spec) })
	})
	if err != nil {
		return volume.Info{}, err
	}
	return d.Get(ctx, spec.ID)
}

func resize(v *volume.Opened, spec volume.Spec) error {
	id, err := assigned(v)
	if err != nil {
		return err
	}
	if err := limit(v, id, spec); err != nil {
		return err
	}
	faults.Point("quota.resize")
	return v.Resize(spec)
}

// Usage asks the kernel what it counts for a volume's project: also its directory, but not what the daemon keeps beside the
// content.
func (d *Driver) Usage(ctx context.Context, id string) (volume.Usage, error) {
	var usage volume.Usage
	if err := ctx.Err(); err != nil {
		return usage, fmt.Errorf("measure volume %s: %w", id, context.Cause(ctx))
	}
	err := d.With(ctx, id, "measure", func(v *volume.Opened) error {
		project, err := assigned(v)
		if err != nil {
			return err
		}
		a, err := accountOf(v.Descriptor(), project)
		usage = volume.Usage{Bytes: a.bytes, Inodes: a.inodes}
		return err
	})
	return usage, err
}

// Stage makes an empty staging directory, in the project of the volume.
func (d *Driver) Stage(ctx context.Context, id string) (string, error) {
	if err := d.ready(); err != nil {
		return "", fmt.Errorf("stage content of volume %s: %w", id, err)
	}
	if _, err := d.Directory.Stage(ctx, id); err != nil {
		return "", err
	}
	faults.Point("quota.stage")
	err := d.With(ctx, id, "limit staged content of", func(v *volume.Opened) error {
		project, err := assigned(v)
		if err != nil {
			return err
		}
		if err := enclose(v, project, volume.Staged); err != nil {
			return err
		}
		return limitAsRecorded(v, project)
	})
	return d.Path(id, volume.Staged), err
}

// Publish moves finished content to where users find it, under the volume's own limit. Where limits do not hold any more,
// content that was finished before is published all the same: that nothing limits it is told by Get.
func (d *Driver) Publish(ctx context.Context, id string) error {
	err := d.ready()
	if err == nil {
		err = d.With(ctx, id, "limit content of", limitForUsers)
	}
	if err != nil && !errors.Is(err, volume.ErrUnlimited) {
		return err
	}
	faults.Point("quota.publish")
	return d.Directory.Publish(ctx, id)
}

func limitForUsers(v *volume.Opened) error {
	project, err := assigned(v)
	if err != nil {
		return err
	}
	spec, err := v.Spec()
	if err != nil {
		return err
	}
	return setLimits(v.Descriptor(), project, exactly(spec))
}

// Remove removes a volume and releases its project.
func (d *Driver) Remove(ctx context.Context, id string) error {
	var used project
	err := d.With(ctx, id, "remove", func(v *volume.Opened) (err error) {
		used, err = projectOf(v.Descriptor())
		return err
	})
	if err != nil && !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	if err := d.Directory.Remove(ctx, id); err != nil {
		return err
	}
	faults.Point("quota.remove")
	return d.releaseLeft(used.id)
}

// Sweep finishes all removals that were interrupted, and releases projects without files.
func (d *Driver) Sweep(ctx context.Context) error {
	if err := d.Directory.Sweep(ctx); err != nil {
		return err
	}
	return d.releaseLeft(0)
}

// releaseLeft releases a project, of any range, and those of the range that were left. Where quota is off nothing can, and need
// be released.
func (d *Driver) releaseLeft(id uint32) error {
	err := d.atRoot(func(root *os.File) error {
		if err := supported(root); err != nil {
			return err
		}
		if id != 0 {
			if err := release(root, id); err != nil {
				return err
			}
		}
		return d.ids.ids.releaseLeft(root)
	})
	if errors.Is(err, volume.ErrUnlimited) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("release project ids: %w", err)
	}
	return nil
}
