package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// trashDir lies in the root.
const trashDir = ".trash"

// Directory is the driver of plain directories. It enforces no limit.
type Directory struct {
	Contents

	root     string
	promises promises
	// is the directory that the root was when it was identified last; before that, when the driver was made; nil if there was none.
	is atomic.Pointer[unix.Statx_t]
}

var _ Driver = (*Directory)(nil)

// NewDirectory returns a driver that keeps volumes below root, a directory that belongs to the daemon. Where there is none yet, a
// disk may be missing: everything fails until it is there and [Directory.Identify] finds it to be the right one.
func NewDirectory(root string) (*Directory, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open volume root: %w", err)
	}
	d := &Directory{root: path}
	d.Contents = Contents{Dir: func(id string) string { return filepath.Join(d.root, id) }, Open: d.volume}
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open volume root: %w", err)
	}
	d.root = resolved
	dir, st, err := d.look()
	if err != nil {
		return nil, fmt.Errorf("open volume root: %w", err)
	}
	defer dir.Close()
	d.is.Store(&st)
	return d, nil
}

// look opens what lies at the root now, if it belongs to the daemon.
func (d *Directory) look() (*os.File, unix.Statx_t, error) {
	dir, err := os.OpenFile(d.root, dirFlags, 0)
	if err != nil {
		return nil, unix.Statx_t{}, err
	}
	st, err := stat(int(dir.Fd()), "")
	if err == nil {
		err = ours(dir)
	}
	if err != nil {
		_ = dir.Close()
		return nil, st, fmt.Errorf("%s: %w", d.root, err)
	}
	return dir, st, nil
}

// Name returns "directory".
func (d *Directory) Name() string { return "directory" }

// Ensure makes the directory of a volume and its description.
func (d *Directory) Ensure(ctx context.Context, spec Spec) (Info, error) {
	if err := check(ctx, spec.ID); err != nil {
		return Info{}, err
	}
	if err := d.Promise(ctx, spec, func() error { return d.ensure(ctx, spec) }); err != nil {
		return Info{}, fmt.Errorf("make volume %s: %w", spec.ID, err)
	}
	return d.Get(ctx, spec.ID)
}

func (d *Directory) ensure(ctx context.Context, spec Spec) error {
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := d.unoccupied(root, spec.ID); err != nil {
		return err
	}
	if err := mkdir(int(root.Fd()), spec.ID, 0o755); err != nil {
		return err
	}
	faults.Point("volume.ensure")
	v, err := d.volume(ctx, spec.ID)
	if err != nil {
		return err
	}
	defer v.Close()
	return v.Finish(spec)
}

// volume opens a volume.
func (d *Directory) volume(ctx context.Context, id string) (*Opened, error) {
	if err := check(ctx, id); err != nil {
		return nil, err
	}
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	dir, err := openFile(int(root.Fd()), id, dirFlags)
	if err != nil {
		_ = root.Close()
		return nil, named("open volume "+d.Dir(id), err)
	}
	return open(id, d.Dir(id), dir, d.trash(root))
}

// trash takes the descriptor of the root.
func (d *Directory) trash(root *os.File) trash {
	return trash{above: root, name: trashDir, path: filepath.Join(d.root, trashDir)}
}

// Get returns a volume; one that was not finished has no size.
func (d *Directory) Get(ctx context.Context, id string) (Info, error) {
	v, err := d.volume(ctx, id)
	if err != nil {
		return Info{}, err
	}
	defer v.Close()
	return d.info(v)
}

func (d *Directory) info(v *Opened) (Info, error) {
	spec, err := v.Spec()
	if err != nil {
		return Info{}, err
	}
	info := d.named(v.ID)
	info.Size, info.Inodes = spec.Size, spec.Inodes
	return info, nil
}

func (d *Directory) named(id string) Info {
	return Info{ID: id, Dir: d.Dir(id), Path: d.Path(id, Published)}
}

// Resize records a larger size.
func (d *Directory) Resize(ctx context.Context, spec Spec) (Info, error) {
	v, err := d.volume(ctx, spec.ID)
	if err != nil {
		return Info{}, err
	}
	defer v.Close()
	if err := d.Promise(ctx, spec, func() error { return v.Resize(spec) }); err != nil {
		return Info{}, err
	}
	return d.info(v)
}

// Snapshot is not supported.
func (d *Directory) Snapshot(_ context.Context, id string) (View, error) {
	return View{}, fmt.Errorf("snapshot volume %s: %w", id, ErrNotSupported)
}

// Clone is not supported.
func (d *Directory) Clone(_ context.Context, from string, spec Spec) (Info, error) {
	return Info{}, fmt.Errorf("clone volume %s to %s: %w", from, spec.ID, ErrNotSupported)
}

// List returns every directory below the root whose name can be a volume's. A damaged one is listed without its size: it
// must not hide the others, and Get tells what is wrong with it.
func (d *Directory) List(ctx context.Context) ([]Info, error) {
	ids, err := d.ids()
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	list := make([]Info, 0, len(ids))
	for _, id := range ids {
		info, err := d.Get(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue // it was removed meanwhile
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("list volumes: %w", context.Cause(ctx))
		}
		if err != nil {
			info = d.named(id)
		}
		list = append(list, info)
	}
	return list, nil
}

func (d *Directory) ids() ([]string, error) {
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := root.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool {
		st, err := stat(int(root.Fd()), name)
		return ValidID(name) != nil || err == nil && !isDir(st)
	}), nil
}

// Capacity measures the filesystem of the root.
func (d *Directory) Capacity(ctx context.Context) (Capacity, error) {
	root, err := d.open()
	if err != nil {
		return Capacity{}, err
	}
	defer root.Close()
	room, err := MeasureRoom(root)
	if err != nil {
		return Capacity{}, err
	}
	volumes, err := d.List(ctx)
	if err != nil {
		return Capacity{}, err
	}
	c := Capacity{Room: room, Spare: d.promises.spare(room.Size, volumes)}
	for _, v := range volumes {
		c.Allocated += v.Size
	}
	return c, nil
}

// OpenRoot opens the directory that the volumes lie in; ErrReplaced if it is another one than before.
func (d *Directory) OpenRoot() (*os.File, error) { return d.open() }

// open opens the root, and refuses it if it is not the directory any more that the driver was made with: below the mount
// point of a disk that is gone everything looks like an empty disk.
func (d *Directory) open() (*os.File, error) {
	root, err := os.OpenFile(d.root, dirFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("open volume root: %w: %w", ErrReplaced, err)
	}
	st, err := stat(int(root.Fd()), "")
	if is := d.is.Load(); err == nil && (is == nil || !sameFile(st, *is)) {
		err = ErrReplaced
	}
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("open volume root %s: %w", d.root, err)
	}
	return root, nil
}

func check(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("volume %s: %w", id, context.Cause(ctx))
	}
	return ValidID(id)
}
