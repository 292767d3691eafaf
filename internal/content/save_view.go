package content

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// scanned is what the scan of a tree has found besides; usage is nil if there was none.
type scanned struct{ usage *volume.Usage }

func (s *scanned) note(res *archive.Result) {
	if s != nil && res != nil {
		s.usage = &volume.Usage{Bytes: res.Disk.Bytes, Inodes: res.Disk.Inodes}
	}
}

// commitView commits what the tree is at this moment, if that can be had. While nobody works on it, which the backup before has
// found, a look at the tree itself spares the view.
func (w *saving) commitView(ctx context.Context, how effort, e state.Entry, from start, began time.Time) (history.Commit, error) {
	if w.r.views != nil && how == lazy && from.own != nil && e.Backup.CheckedAt.After(e.Backup.Time) {
		res, err := archive.Unchanged(ctx, w.path, w.options(from, false))
		if err != nil {
			return history.Commit{}, fmt.Errorf("back up %s: %w", w.path, err)
		}
		if res != nil {
			w.r.seen.note(res)
			return *from.own, w.same(ctx, e, *from.own, res, began)
		}
	}
	view, err := w.look(ctx)
	if err != nil {
		return history.Commit{}, err
	}
	c, err := w.commit(ctx, view.Path, how, e, from, began)
	return c, errors.Join(err, view.Close())
}

// look returns what is read: where the volume's driver can make one, a view of the content at one moment, so that files fit each
// other although they are written to meanwhile; else the content itself, of which files that change are read again. So it is
// also while the disk has no room for a view: a backup without one is better than none.
func (w *saving) look(ctx context.Context) (volume.View, error) {
	plain := volume.View{Path: w.path, Close: func() error { return nil }}
	if w.r.views == nil {
		return plain, nil
	}
	view, err := w.r.views.Snapshot(ctx, w.r.UID)
	if errors.Is(err, volume.ErrNotSupported) || errors.Is(err, volume.ErrCapacity) {
		return plain, nil
	}
	faults.Point("backup.viewed")
	return view, err
}
