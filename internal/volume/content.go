package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// Path returns where content in a position lies.
func (d *Directory) Path(id string, at Position) string {
	switch at {
	case Published:
		return filepath.Join(d.root, id, contentDir)
	case Withdrawn:
		return filepath.Join(d.root, id, metaDir, withdrawnDir)
	case Staged:
		return filepath.Join(d.root, id, metaDir, stagingDir)
	case None:
	}
	return ""
}

// Position tells where the content is.
func (d *Directory) Position(ctx context.Context, id string) (Position, error) {
	v, err := d.volume(ctx, id)
	if err != nil {
		return None, err
	}
	defer v.Close()
	at, _, err := v.position()
	if err != nil {
		return None, fmt.Errorf("find content of volume %s: %w", id, err)
	}
	return at, nil
}

// position returns where the content is, and what the marker says of it: nil if it is not finished.
func (v *opened) position() (Position, *Content, error) {
	sealed, err := v.sealed()
	if err != nil {
		return None, nil, err
	}
	if sealed != nil {
		at, err := v.find(sealed)
		return at, sealed, err
	}
	if v.meta == nil {
		return None, nil, nil
	}
	st, err := stat(int(v.meta.Fd()), stagingDir)
	if errors.Is(err, unix.ENOENT) || err == nil && !isDir(st) {
		return None, nil, nil
	}
	return Staged, nil, err
}

// Stage makes an empty staging directory.
func (d *Directory) Stage(ctx context.Context, id string) (string, error) {
	v, err := d.volume(ctx, id)
	if err != nil {
		return "", err
	}
	defer v.Close()
	if err := d.stage(ctx, v); err != nil {
		return "", fmt.Errorf("stage content of volume %s: %w", id, err)
	}
	return d.Path(id, Staged), nil
}

func (d *Directory) stage(ctx context.Context, v *opened) error {
	if v.meta == nil {
		return fmt.Errorf("volume was never finished: %w", ErrNotFound)
	}
	at, sealed, err := v.position()
	if err != nil {
		return err
	}
	if at == Staged && sealed != nil {
		return ErrFinished
	}
	if err := d.drop(ctx, v, stagingDir); err != nil {
		return err
	}
	faults.Point("volume.stage")
	return mkdir(int(v.meta.Fd()), stagingDir, 0o700)
}

// Discard removes content that users do not see.
func (d *Directory) Discard(ctx context.Context, id string, at Position) error {
	if at != Staged && at != Withdrawn {
		return fmt.Errorf("discard content of volume %s: position %q is not one of %s and %s", id, at, Staged, Withdrawn)
	}
	v, err := d.volume(ctx, id)
	if err != nil {
		return err
	}
	defer v.Close()
	if v.meta == nil {
		return nil
	}
	if err := d.drop(ctx, v, filepath.Base(d.Path(id, at))); err != nil {
		return fmt.Errorf("discard %s content of volume %s: %w", at, id, err)
	}
	return nil
}

// drop removes a directory of a volume by way of the trash, so that it is gone at once or not at all.
func (d *Directory) drop(ctx context.Context, v *opened, name string) error {
	_, err := stat(int(v.meta.Fd()), name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.discard(ctx, v.id, v.root, v.meta, name, filepath.Join(v.path, metaDir, name))
}

// Publish moves finished content to where users find it.
func (d *Directory) Publish(ctx context.Context, id string) error {
	v, err := d.volume(ctx, id)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.publish(); err != nil {
		return fmt.Errorf("publish content of volume %s: %w", id, err)
	}
	return nil
}

func (v *opened) publish() error {
	at, sealed, err := v.position()
	if err != nil {
		return err
	}
	if sealed == nil {
		return ErrUnfinished
	}
	name := stagingDir
	switch at {
	case None:
		return fmt.Errorf("the finished content (inode %d) is gone: %w", sealed.Inode, ErrNotFound)
	case Published:
		// An earlier attempt may have ended between the rename and this.
		return errors.Join(syncDir(int(v.dir.Fd())), syncDir(int(v.meta.Fd())))
	case Withdrawn:
		name = withdrawnDir
	case Staged:
	}
	faults.Point("volume.publish.before")
	if err := v.clear(v.dir, contentDir, v.path); err != nil {
		return err
	}
	if err := v.shift(v.meta, name, v.dir, contentDir, v.path); err != nil {
		return err
	}
	faults.Point("volume.publish.after")
	return nil
}

// Withdraw moves published content out of the users' reach.
func (d *Directory) Withdraw(ctx context.Context, id string) error {
	v, err := d.volume(ctx, id)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.withdraw(); err != nil {
		return fmt.Errorf("withdraw content of volume %s: %w", id, err)
	}
	return nil
}

func (v *opened) withdraw() error {
	at, sealed, err := v.position()
	if err != nil {
		return err
	}
	if sealed == nil {
		return ErrUnfinished
	}
	if at == Withdrawn {
		return errors.Join(syncDir(int(v.meta.Fd())), syncDir(int(v.dir.Fd())))
	}
	if at != Published {
		return fmt.Errorf("no content is published: %w", ErrNotFound)
	}
	faults.Point("volume.withdraw.before")
	meta := filepath.Join(v.path, metaDir)
	if err := v.clear(v.meta, withdrawnDir, meta); err != nil {
		return err
	}
	if err := v.shift(v.dir, contentDir, v.meta, withdrawnDir, meta); err != nil {
		return err
	}
	faults.Point("volume.withdraw.after")
	return nil
}

// clear makes room at a name: something that mounts a missing path likes to make an empty directory there. It removes
// nothing else.
func (v *opened) clear(dir *os.File, name, path string) error {
	st, err := stat(int(dir.Fd()), name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	foreign := &ForeignError{Path: filepath.Join(path, name), Reason: kind(st)}
	if !isDir(st) {
		return foreign
	}
	err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	switch {
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		foreign.Reason = "a directory that is not empty"
		return foreign
	case errors.Is(err, unix.EBUSY):
		foreign.Reason = "a mount"
		return foreign
	case errors.Is(err, unix.ENOENT):
		return nil
	}
	return err
}

// shift moves content; whatever appeared at the new name since clear looked there stays.
func (v *opened) shift(from *os.File, name string, to *os.File, target, path string) error {
	err := move(int(from.Fd()), name, int(to.Fd()), target)
	if errors.Is(err, unix.EEXIST) {
		return &ForeignError{Path: filepath.Join(path, target), Reason: "it appeared just now"}
	}
	return err
}
