package content

import (
	"context"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// start is what a backup begins with.
type start struct {
	parent *archive.Root   // what need not be stored again; nil for nothing
	own    *history.Commit // the workspace's newest backup; nil if parent is a snapshot, or nothing
	index  *archive.Index
}

// start finds the newest backup as the journal remembers it, or the snapshot that the workspace was made from. One that lacks
// something is no start: everything is stored anew.
func (w *saving) start(ctx context.Context, e state.Entry, how effort) (start, error) {
	if how == anew {
		return start{}, nil
	}
	var c history.Commit
	var err error
	switch {
	case e.Backup.Name != "":
		c, err = w.known(ctx, e)
	case w.r.origin != "":
		c, err = w.snapshot(ctx, w.r.origin)
	default:
		return start{}, nil
	}
	if history.Gone(err) || err == nil && !sealedAlike(c, w.key) {
		w.k.tell(ctx, w.domain, err) // others may need what is lost here
		return start{}, nil
	}
	if err != nil {
		return start{}, err
	}
	root, err := rootOf(c)
	if err != nil {
		return start{}, nil //nolint:nilerr // its commit is damaged: the next backup needs nothing of it
	}
	from := start{parent: &root, index: w.k.loadIndex(w.r.Subject)}
	if e.Backup.Name != "" {
		from.own = &c
	}
	return from, nil
}

// snapshot reads a pinned snapshot and makes sure that nothing of it is missing.
func (w *saving) snapshot(ctx context.Context, id string) (history.Commit, error) {
	pinned, err := w.domain.Pinned(ctx, id)
	if err != nil {
		return history.Commit{}, err
	}
	return pinned.Commit, w.domain.VerifyPacks(ctx, pinned.Commit.Packs)
}

// known reads the newest backup as the journal remembers it, and makes sure that nothing of it is missing.
func (w *saving) known(ctx context.Context, e state.Entry) (history.Commit, error) {
	name, err := history.ParseName(e.Backup.Name)
	if err != nil {
		return history.Commit{}, err
	}
	c, ref, err := w.log.Read(ctx, name)
	if err != nil {
		return history.Commit{}, err
	}
	if ref.Hash != e.Backup.Hash {
		return history.Commit{}, fmt.Errorf("%w: backup %s in the store is not the one that was written", history.ErrDamaged, name)
	}
	return c, w.domain.VerifyPacks(ctx, c.Packs)
}
