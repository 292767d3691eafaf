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

// Position tells where the content is, see [Driver].
func (v *Opened) Position() (Position, error) {
	at, _, err := v.position()
	return at, err
}

// position also returns what the marker says of the content: nil if it is not finished.
func (v *Opened) position() (Position, *Content, error) {
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

// Stage makes an empty staging directory, see [Driver].
func (v *Opened) Stage(ctx context.Context) error {
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
	if err := v.drop(ctx, stagingDir); err != nil {
		return err
	}
	faults.Point("volume.stage")
	return mkdir(int(v.meta.Fd()), stagingDir, 0o700)
}

// Discard removes content that users do not see, see [Driver].
func (v *Opened) Discard(ctx context.Context, at Position) error {
	if at != Staged && at != Withdrawn {
		return fmt.Errorf("position %q is not one of %s and %s", at, Staged, Withdrawn)
	}
	if v.meta == nil {
		return nil
	}
	return v.drop(ctx, filepath.Base(PathIn(v.Dir, at)))
}

// drop removes a directory of a volume by way of the trash, so that it is gone at once or not at all.
func (v *Opened) drop(ctx context.Context, name string) error {
	_, err := stat(int(v.meta.Fd()), name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return v.trash.discard(ctx, v.ID, v.meta, name, filepath.Join(v.Dir, metaDir, name))
}

// Publish moves finished content to where users find it, see [Driver].
func (v *Opened) Publish() error {
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
	if err := v.clear(v.dir, contentDir, v.Dir); err != nil {
		return err
	}
	if err := v.shift(v.meta, name, v.dir, contentDir, v.Dir); err != nil {
		return err
	}
	faults.Point("volume.publish.after")
	return nil
}

// Withdraw moves published content out of the users' reach, see [Driver].
func (v *Opened) Withdraw() error {
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
	meta := filepath.Join(v.Dir, metaDir)
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
func (v *Opened) clear(dir *os.File, name, path string) error {
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
func (v *Opened) shift(from *os.File, name string, to *os.File, target, path string) error {
	err := move(int(from.Fd()), name, int(to.Fd()), target)
	if errors.Is(err, unix.EEXIST) {
		return &ForeignError{Path: filepath.Join(path, target), Reason: "it appeared just now"}
	}
	return err
}
