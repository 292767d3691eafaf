package lvm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Limits of a pool's fill, in percent. A pool that is full makes writers of all its volumes fail, those within their limits
// too, so nothing new is begun before it is.
const (
	// maxData is where no volume is made or grown any more, and maxMetadata likewise: full metadata takes a repair offline.
	maxData     = 95
	maxMetadata = 90
	// maxViewData is where no view is made any more: while one exists, every block that is overwritten takes a new one.
	maxViewData = 85
)

// devicePath returns the device of a logical volume. Device mapper separates group and name by a hyphen and doubles those in them.
func (d *Driver) devicePath(name string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return "/dev/mapper/" + double(d.class.Group) + "-" + double(name)
}

func (d *Driver) full(name string) string { return d.class.Group + "/" + name }

// Health of a pool as LVM calls it, with which it takes nothing new and gives nothing back.
const (
	healthFailed   = "failed"
	healthReadOnly = "metadata_read_only"
)

// healthy fails if nobody can tell how full the pool is, or nothing can be changed in it: that it says nothing does not mean that it
// is empty.
func (d *Driver) healthy(r report) error {
	pool := d.full(d.class.Pool)
	switch {
	case r.pool.health == healthFailed, r.pool.health == healthReadOnly:
		return fmt.Errorf("%w: %s is %q: back up what is in use on it, and repair it (lvconvert --repair %s)", ErrUnfit, pool, r.pool.health, pool)
	case r.pool.unknown:
		return fmt.Errorf("%w: %s does not tell how full it is: activate it (lvchange --activate y %s)", ErrUnfit, pool, pool)
	default:
		return nil
	}
}

// admit refuses what the pool has no room for. more is by how many bytes the sum of all sizes grows.
func (d *Driver) admit(r report, more int64) error {
	if err := d.healthy(r); err != nil {
		return err
	}
	pool := d.full(d.class.Pool)
	switch {
	case r.pool.data >= maxData:
		return fmt.Errorf("%w: thin pool %s is %.1f %% full: extend it (lvextend) or remove workspaces", volume.ErrCapacity, pool, r.pool.data)
	case r.pool.metadata >= maxMetadata:
		return fmt.Errorf("%w: the metadata of thin pool %s are %.1f %% full: extend them (lvextend --poolmetadatasize)",
			volume.ErrCapacity, pool, r.pool.metadata)
	case !d.class.Overcommit && r.taken+more > r.pool.size:
		return fmt.Errorf("%w: thin pool %s has %d bytes, of which %d are promised, and %d more are asked for: extend it, "+
			"remove workspaces, or let the class overcommit", volume.ErrCapacity, pool, r.pool.size, r.taken, more)
	default:
		return nil
	}
}

// mayView refuses copies of volumes while the pool is so full that they are a risk to others: blocks that are overwritten take new
// ones then.
func (d *Driver) mayView(r report) error {
	if err := d.healthy(r); err != nil {
		return err
	}
	if r.pool.data < maxViewData && r.pool.metadata < maxViewData {
		return nil
	}
	return fmt.Errorf("%w: thin pool %s is %.1f %% full, its metadata %.1f %%, and copies take more: extend it",
		volume.ErrCapacity, d.full(d.class.Pool), r.pool.data, r.pool.metadata)
}

// create makes a thin volume, new and active.
func (d *Driver) create(ctx context.Context, id string, size int64) error {
	err := d.lvm(ctx, "lvcreate", "--yes", "--quiet", "--type", "thin", "--thinpool", d.class.Pool, "--virtualsize", bytes64(size),
		"--wipesignatures", "n", "--setactivationskip", "n", "--addtag", tagOurs, "--addtag", tagNew, "--name", nameOf(id), "--", d.class.Group)
	faults.Point("lvm.created")
	return err
}

// copy makes a snapshot of a logical volume: a thin one, which costs the same whatever is in it. LVM freezes the file system
// for that moment, so that it is whole.
func (d *Driver) copy(ctx context.Context, from, name, kind string, options ...string) error {
	args := append([]string{"--yes", "--quiet", "--type", "thin", "--addtag", tagOurs, "--addtag", kind, "--name", name}, options...)
	err := d.lvm(ctx, "lvcreate", append(args, "--", d.full(from))...)
	faults.Point("lvm.copied")
	return err
}

// activated are the options of a copy that is used at once.
func activated(permission string) []string {
	return []string{"--permission", permission, "--setactivationskip", "n", "--activate", "y"}
}

// tag takes a tag away from a volume, and gives it another one; either may be empty.
func (d *Driver) tag(ctx context.Context, name, less, more string) error {
	args := []string{"--quiet"}
	if less != "" {
		args = append(args, "--deltag", less)
	}
	if more != "" {
		args = append(args, "--addtag", more)
	}
	err := d.lvm(ctx, "lvchange", append(args, "--", d.full(name))...)
	faults.Point("lvm.tagged")
	return err
}

// activate makes the devices of volumes appear; those that are there stay.
func (d *Driver) activate(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	args := []string{"--quiet", "--ignoreactivationskip", "--activate", "y", "--"}
	for _, name := range names {
		args = append(args, d.full(name))
	}
	err := d.lvm(ctx, "lvchange", args...)
	return err
}

// extend makes a volume as large as size.
func (d *Driver) extend(ctx context.Context, name string, size int64) error {
	err := d.lvm(ctx, "lvextend", "--quiet", "--size", bytes64(size), "--", d.full(name))
	faults.Point("lvm.extended")
	return err
}

// drop removes a logical volume; that there is none is no error.
func (d *Driver) drop(ctx context.Context, name string) error {
	err := d.lvm(ctx, "lvremove", "--force", "--yes", "--quiet", "--", d.full(name))
	faults.Point("lvm.removed")
	if errors.Is(err, errNoVolume) {
		return nil
	}
	return err
}

// lvm gives an order, which changes the volume group also if it fails.
func (d *Driver) lvm(ctx context.Context, command string, args ...string) error {
	defer d.latest.changed()
	_, err := d.tools.run(ctx, "lvm", append([]string{command}, args...)...)
	return err
}

// bytes64 writes a size as LVM reads it.
func bytes64(size int64) string { return strconv.FormatInt(size, 10) + "b" }
