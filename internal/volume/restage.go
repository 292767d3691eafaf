package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/syncfs"
)

// Restage makes a copy of another volume one of its own: its finished content is staged, and neither marker nor description say
// whose it was. ErrUnfinished if the other volume had no such content. It goes on where it was interrupted only in a new copy.
func (v *Opened) Restage(ctx context.Context) error {
	at, sealed, err := v.position()
	if err != nil {
		return err
	}
	if sealed == nil || at == None {
		return fmt.Errorf("copy content: %w", ErrUnfinished)
	}
	if at != Staged {
		if err := v.restage(ctx, at); err != nil {
			return err
		}
	}
	for _, name := range []string{markerFile, descriptionOf} {
		if err := unix.Unlinkat(int(v.meta.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	faults.Point("volume.restaged")
	return errors.Join(v.drop(ctx, withdrawnDir), v.EmptyTrash(ctx), syncfs.Sync(ctx, int(v.dir.Fd())))
}

// restage moves content that is published or withdrawn in place of what is staged.
func (v *Opened) restage(ctx context.Context, at Position) error {
	if err := v.drop(ctx, stagingDir); err != nil {
		return err
	}
	for _, p := range v.places() {
		if p.at == at {
			return move(int(p.dir.Fd()), p.name, int(v.meta.Fd()), stagingDir)
		}
	}
	return nil
}
