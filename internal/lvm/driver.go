package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/quota"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Class is what the configuration says of a class of volumes.
type Class struct {
	// Root is the directory of the mount points. It exists and belongs to the daemon.
	Root string
	// Group and Pool name the volume group and the thin pool in it.
	Group, Pool string
	// Filesystem is xfs or ext4.
	Filesystem string
	// Overcommit lets the sizes of all volumes be more than the pool has, together.
	Overcommit bool
	// MinSize is the least size of a volume in bytes; what the file system needs if that is more.
	MinSize int64
}

// Driver keeps volumes in a thin pool.
type Driver struct {
	volume.Contents

	class Class
	fs    filesystem
	tools tools

	latest latest
	// pool is held while room in the pool is looked for and taken.
	pool chan struct{}
	// volumes has a lock for each volume: it is held for writing while the volume is not mounted although it exists.
	volumes sync.Map
	// views has the names of those that are in use.
	views sync.Map
}

var (
	_ volume.Driver  = (*Driver)(nil)
	_ volume.Auditor = (*Driver)(nil)
	_ volume.Mounter = (*Driver)(nil)
)

var validName = regexp.MustCompile(`^[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,100}$`)

// New returns the driver of a class. Whether the pool is there is told by Identify: a disk may come later than the daemon.
func New(class Class) (*Driver, error) {
	for _, name := range []string{class.Group, class.Pool} {
		if !validName.MatchString(name) {
			return nil, fmt.Errorf("%q names no volume group or thin pool: letters, digits and _+.- are allowed", name)
		}
	}
	fs, err := filesystemOf(class.Filesystem)
	if err != nil {
		return nil, err
	}
	if class.Root, err = filepath.EvalSymlinks(class.Root); err != nil {
		return nil, fmt.Errorf("open directory of mount points: %w", err)
	}
	private := filepath.Join(class.Root, privateDir)
	if err := os.Mkdir(private, 0o700); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, unix.EROFS) {
		return nil, fmt.Errorf("make directory of private mounts: %w", err)
	}
	class.MinSize = max(class.MinSize, fs.minimum)
	d := &Driver{class: class, fs: fs, tools: newTools(), pool: make(chan struct{}, 1)}
	d.Contents = volume.Contents{Dir: d.point, Open: d.open}
	return d, nil
}

// Name returns "lvm".
func (d *Driver) Name() string { return "lvm" }

// MountPoint returns where a volume is mounted.
func (d *Driver) MountPoint(id string) string { return d.point(id) }

func (d *Driver) point(id string) string { return filepath.Join(d.class.Root, id) }

// privatePoint is where a logical volume is mounted that users shall not see.
func (d *Driver) privatePoint(name string) string {
	return filepath.Join(d.class.Root, privateDir, name)
}

func (d *Driver) lock(id string) *sync.RWMutex {
	stored, _ := d.volumes.LoadOrStore(id, &sync.RWMutex{})
	lock, _ := stored.(*sync.RWMutex)
	return lock
}

// take waits for the right to change what the pool has promised.
func (d *Driver) take(ctx context.Context) (release func(), err error) {
	select {
	case d.pool <- struct{}{}:
		return func() { <-d.pool }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func check(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("volume %s: %w", id, context.Cause(ctx))
	}
	return volume.ValidID(id)
}

// open opens a volume that is mounted, for those that only read and for [volume.Contents].
func (d *Driver) open(ctx context.Context, id string) (*volume.Opened, error) {
	if err := check(ctx, id); err != nil {
		return nil, err
	}
	lock := d.lock(id)
	lock.RLock()
	defer lock.RUnlock()
	return d.opened(ctx, id)
}

// opened does what open does for who holds the lock.
func (d *Driver) opened(ctx context.Context, id string) (*volume.Opened, error) {
	is, err := d.isMounted(d.point(id), nameOf(id))
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", id, err)
	}
	if is {
		return volume.Open(id, d.point(id))
	}
	// Absence is a matter of the volume group, not of a directory.
	r, err := d.recent(ctx)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", id, err)
	}
	l, err := d.find(r, id)
	switch {
	case err != nil:
		return nil, err
	case l.name == "" || l.kind() == tagGoing || l.kind() == tagClone:
		return nil, fmt.Errorf("open volume %s: %w", id, volume.ErrNotFound)
	default:
		return nil, fmt.Errorf("open volume %s: %s is not mounted on %s: %w", id, d.full(l.name), d.point(id), volume.ErrReplaced)
	}
}

// find returns our logical volume of an id, the zero value if there is none. One of other people is a *ForeignError.
func (d *Driver) find(r report, id string) (logical, error) {
	l, ok := r.volumes[id]
	if ok && !l.has(tagOurs) {
		return l, &volume.ForeignError{Path: d.full(l.name), Reason: "a logical volume that this class did not make"}
	}
	return l, nil
}

// Get returns a volume. It runs no program, unless the volume is not mounted.
func (d *Driver) Get(ctx context.Context, id string) (volume.Info, error) {
	v, err := d.open(ctx, id)
	if err != nil {
		return volume.Info{}, err
	}
	defer v.Close()
	return d.info(v)
}

func (d *Driver) info(v *volume.Opened) (volume.Info, error) {
	spec, err := v.Spec()
	if err != nil {
		return volume.Info{}, err
	}
	info := d.named(v.ID)
	info.Size, info.Inodes = spec.Size, spec.Inodes
	return info, nil
}

func (d *Driver) named(id string) volume.Info {
	return volume.Info{ID: id, Dir: d.point(id), Path: d.Path(id, volume.Published), Limited: true}
}

// List returns all volumes in the pool. One that cannot be read is listed without its size.
func (d *Driver) List(ctx context.Context) ([]volume.Info, error) {
	r, err := d.recent(ctx)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	list := []volume.Info{}
	ids := slices.Concat(r.ids(""), r.ids(tagNew))
	slices.Sort(ids)
	for _, id := range ids {
		info := d.named(id)
		if is, err := d.isMounted(d.point(id), nameOf(id)); err == nil && is {
			if found, err := d.Get(ctx, id); err == nil {
				info = found
			}
		}
		list = append(list, info)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("list volumes: %w", context.Cause(ctx))
	}
	return list, nil
}

// Stage makes an empty staging directory, for which the volume's limits hold.
func (d *Driver) Stage(ctx context.Context, id string) (string, error) {
	path, err := d.Contents.Stage(ctx, id)
	if err != nil {
		return "", err
	}
	return path, d.With(ctx, id, "limit content of", quota.EncloseWhole)
}

// Publish moves finished content to where users find it, under the limits that are theirs.
func (d *Driver) Publish(ctx context.Context, id string) error {
	if err := d.With(ctx, id, "limit content of", quota.LimitWholeForUsers); err != nil {
		return err
	}
	faults.Point("lvm.limited")
	return d.Contents.Publish(ctx, id)
}

// Audit looks for files that the limit of inodes does not count. The size of a device nobody gets round.
func (d *Driver) Audit(ctx context.Context, id string, seen *volume.Usage) error {
	return d.With(ctx, id, "audit", func(v *volume.Opened) error { return quota.AuditWhole(ctx, v, seen) })
}

// Usage asks the file system's quota, which has counted all along.
func (d *Driver) Usage(ctx context.Context, id string) (usage volume.Usage, err error) {
	err = d.With(ctx, id, "measure", func(v *volume.Opened) (err error) {
		usage, err = quota.UsageOfWhole(v.Descriptor())
		return err
	})
	return usage, err
}

// Capacity measures the pool; one order to LVM. A pool without metadata left has no room, whatever its data say: see Thin.
func (d *Driver) Capacity(ctx context.Context) (volume.Capacity, error) {
	r, err := d.report(ctx)
	if err == nil {
		err = d.healthy(r)
	}
	if err != nil {
		return volume.Capacity{}, fmt.Errorf("measure pool: %w", err)
	}
	c := volume.Capacity{Thin: &volume.Fill{Data: r.pool.data, Metadata: r.pool.metadata}}
	c.Size, c.Free = r.pool.size, int64(float64(r.pool.size)*(100-r.pool.data)/100)
	for _, l := range r.volumes {
		if l.has(tagOurs) && l.kind() != tagGoing {
			c.Allocated += l.size
		}
	}
	if !d.class.Overcommit {
		c.Spare = r.spare()
	}
	return c, nil
}

// Identify looks for the owner's tag on the pool, and sets it if the pool has none. A pool that does not zero new blocks is
// refused: volumes would begin with what others have written.
func (d *Driver) Identify(ctx context.Context, owner string, known bool) error {
	r, err := d.report(ctx)
	if err != nil {
		return err
	}
	pool := d.full(d.class.Pool)
	if err := d.fit(r.pool); err != nil {
		return err
	}
	for _, tag := range r.pool.tags {
		area, ours := strings.CutPrefix(tag, tagArea)
		if ours && area == owner {
			return nil
		}
		if ours {
			return fmt.Errorf("%w: thin pool %s belongs to working area %q, this is %s: bring the right disk, "+
				"or take the tag away (lvchange --deltag %s %s) if the pool shall go over to this one", volume.ErrOtherDisk, pool, area, owner, tag, pool)
		}
	}
	if known {
		return fmt.Errorf("%w: thin pool %s has no tag %s%s, although there are volumes of this class: bring the right disk; "+
			"only if that is lost for good, add the tag (lvchange --addtag %s%s %s) to begin with this one",
			volume.ErrOtherDisk, pool, tagArea, owner, tagArea, owner, pool)
	}
	return d.tag(ctx, d.class.Pool, "", tagArea+owner)
}

// fit makes sure that a pool is as volumes need it.
func (d *Driver) fit(l logical) error {
	pool := d.full(l.name)
	switch {
	case !l.zeroes:
		return fmt.Errorf("%w: %s does not zero new blocks, so that volumes could see what was removed: lvchange --zero y %s", ErrUnfit, pool, pool)
	case l.discards == "ignore":
		return fmt.Errorf("%w: %s takes no blocks back, so that removed volumes would stay in it: lvchange --discards passdown %s", ErrUnfit, pool, pool)
	default:
		return nil
	}
}
