package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// Remove moves a volume to the trash and empties that.
func (d *Directory) Remove(ctx context.Context, id string) error {
	if err := check(ctx, id); err != nil {
		return err
	}
	if err := d.remove(ctx, id); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	d.promises.forget(id)
	faults.Point("volume.remove.done")
	return nil
}

func (d *Directory) remove(ctx context.Context, id string) error {
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	st, err := stat(int(root.Fd()), id)
	if errors.Is(err, unix.ENOENT) {
		return d.trash(root).empty(ctx, id+".")
	}
	if err != nil {
		return err
	}
	if !isDir(st) {
		return fmt.Errorf("%s is %s and no volume", d.Dir(id), kind(st))
	}
	v, err := d.volume(ctx, id)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.Vacant(); err != nil {
		return err
	}
	return d.trash(root).discard(ctx, id, root, id, v.Dir)
}

// Vacant refuses to remove a volume while something that is not its content lies where users look for it: made, for example, by
// a pod that started after the content had been taken away. An empty directory is nothing.
func (v *Opened) Vacant() error {
	at, err := v.Position()
	if err != nil || at == Published {
		return err
	}
	path := PathIn(v.Dir, Published)
	switch err := unix.Unlinkat(int(v.dir.Fd()), contentDir, unix.AT_REMOVEDIR); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s is a mount: %w", path, ErrInUse)
	default:
		return &ForeignError{Path: path, Reason: "it was made after the content had been taken away"}
	}
}

// Sweep empties the trash.
func (d *Directory) Sweep(ctx context.Context) error {
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := d.trash(root).empty(ctx, ""); err != nil {
		return fmt.Errorf("empty trash: %w", err)
	}
	return nil
}

// rewound reads the names of a directory from its beginning, at most n if that is positive.
func rewound(dir *os.File, n int) ([]string, error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(n)
	if len(names) > 0 {
		return names, nil
	}
	return nil, atEnd(err)
}

// atEnd turns the end of a directory into no error.
func atEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

const (
	// maxDepth bounds the descriptors and the stack that a hostile tree can use. What lies deeper is moved to the top.
	maxDepth = 32
	batch    = 1024
)

// remover removes trees in the trash. Nothing in them is trusted: names are looked up one by one below a descriptor.
type remover struct {
	trash int
	id    string
}

// entry removes what is at a name, of any type.
func (r remover) entry(ctx context.Context, dir int, name string, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := insist(dir, name, func() error { return unix.Unlinkat(dir, name, 0) })
	// Linux says EISDIR; POSIX, and some filesystems, EPERM.
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return busy(gone(err))
	}
	st, statErr := stat(dir, name)
	if statErr != nil {
		return gone(statErr)
	}
	if !isDir(st) {
		return swapped(err)
	}
	if depth >= maxDepth {
		to := trashName(r.id)
		return gone(insist(dir, name, func() error {
			return unix.Renameat2(dir, name, r.trash, to, unix.RENAME_NOREPLACE)
		}))
	}
	return r.tree(ctx, dir, name, depth)
}

// tree empties a directory and removes it.
func (r remover) tree(ctx context.Context, dir int, name string, depth int) error {
	f, err := openFile(dir, name, dirFlags)
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%q is a mount: %w", name, ErrInUse)
	}
	if err != nil {
		return swapped(gone(err))
	}
	defer f.Close()
	for {
		names, err := rewound(f, batch)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := r.entry(ctx, int(f.Fd()), name, depth+1); err != nil {
				return err
			}
		}
		if len(names) > 0 {
			continue
		}
		err = insist(dir, name, func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
		// Somebody still writes into it. The context ends this, not us.
		if !errors.Is(err, unix.ENOTEMPTY) || ctx.Err() != nil {
			return busy(swapped(gone(err)))
		}
	}
}

// swapped forgives a name that was a directory when it was looked at and something else when it was used, or the other
// way round: whoever reads the directory above reads it until it is empty, and finds the name again.
func swapped(err error) error {
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func busy(err error) error {
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}

// protection is FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h.
const protection = 0x10 | 0x20

// insist tries again without the flags that protect a file and its directory from everybody. Clearing them needs
// CAP_LINUX_IMMUTABLE; without it the first error stands.
func insist(dir int, name string, try func() error) error {
	err := try()
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	cleared := unprotect(dir, ".")
	if unprotect(dir, name) || cleared {
		return try()
	}
	return err
}

// unprotect reports whether it cleared anything. Only files and directories have flags; opening a device could do harm.
func unprotect(dir int, name string) bool {
	st, err := stat(dir, name)
	if err != nil || !isDir(st) && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	fd, err := openBelow(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	opened, err := stat(fd, "")
	if err != nil || !sameFile(st, opened) {
		return false
	}
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&protection == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^protection) == nil
}
