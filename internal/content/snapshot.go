package content

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

// Snapshot keeps a workspace's content as a pin: of the tree as it is now if this node holds it, else of the newest backup.
// Called again with the same id it returns what was pinned.
func (k *Keeper) Snapshot(ctx context.Context, r SaveRequest, id string, held bool) (history.Commit, error) {
	ctx = fair.With(ctx, r.UID, fair.Background)
	domain, log, err := k.log(ctx, r.Subject)
	if err != nil {
		return history.Commit{}, err
	}
	if pinned, err := domain.Pinned(ctx, id); err == nil {
		return pinned.Commit, domain.VerifyPacks(ctx, pinned.Commit.Packs)
	} else if !errors.Is(err, store.ErrNotFound) {
		return history.Commit{}, err
	}
	c, err := k.newest(ctx, r, log, held)
	if err != nil {
		return c, err
	}
	faults.Point("snapshot.saved")
	// The id is taken for ever by what is pinned: Pin makes sure that it is whole.
	if err := domain.Pin(ctx, id, c, history.Pin{Kind: history.PinSnapshot, Node: k.Node}); err != nil {
		return c, err
	}
	faults.Point("snapshot.pinned")
	return c, domain.VerifyPacks(ctx, c.Packs)
}

func (k *Keeper) newest(ctx context.Context, r SaveRequest, log *history.Log, held bool) (history.Commit, error) {
	if !held {
		c, _, err := log.Current(ctx)
		if errors.Is(err, history.ErrNoBackup) {
			return c, &NoBackupError{Subject: r.Subject, Wanted: "a backup"}
		}
		return c, orDamaged(err, "the newest backup of workspace "+r.String(), otherBackup)
	}
	driver, o, err := k.own(ctx, r.Subject)
	if err != nil {
		return history.Commit{}, err
	}
	r.origin, r.views = o.Marker.Content.SnapshotID, driver
	c, err := k.save(ctx, r, driver.Path(o.Volume.ID, o.Position), lazy)
	if err == nil && !c.Complete() {
		err = &IncompleteError{Backup: c.Name.String(), Count: c.Tree.UnreadableCount, Files: names(c.Tree.Unreadable)}
	}
	return c, err
}

// DropSnapshot removes a pin. That it is gone already is no error.
func (k *Keeper) DropSnapshot(ctx context.Context, namespace, id string) error {
	domain, err := k.domain(ctx, namespace)
	if err != nil {
		return err
	}
	return domain.Unpin(ctx, id)
}

// Rewound is what a request to go back in time found.
type Rewound struct {
	// Newest is the backup that was newest, and PinID the pin that keeps it; empty if it is the wanted one.
	Newest, PinID string
	// Damage says why what was newest could not be pinned; empty if it could.
	Damage string
}

// Rewind makes sure that a backup can be restored and pins the one that is newest now.
func (k *Keeper) Rewind(ctx context.Context, s Subject, backup, request string) (Rewound, error) {
	ctx = fair.With(ctx, s.UID, fair.Urgent)
	domain, log, err := k.log(ctx, s)
	if err != nil {
		return Rewound{}, err
	}
	name, err := history.ParseName(backup)
	if err != nil {
		return Rewound{}, err
	}
	wanted, _, err := log.Read(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return Rewound{}, &NoBackupError{Subject: s, Wanted: "backup " + backup}
	}
	// Both are pinned: retention of later backups must take neither what was newest nor what was asked for. Pin makes sure that
	// all of it is there.
	if err == nil {
		err = domain.Pin(ctx, pinID("restored", s, backup, request), wanted, history.Pin{Kind: history.PinRestore, Node: k.Node})
	}
	if err != nil {
		return Rewound{}, k.withNeeds(ctx, domain, orDamaged(err, fmt.Sprintf("backup %s of workspace %s", backup, s), "name another one"))
	}
	newest, ref, err := log.Current(ctx)
	if errors.Is(err, history.ErrNoBackup) {
		return Rewound{}, nil // there are only incomplete ones
	}
	if history.Gone(err) {
		return Rewound{Damage: err.Error()}, nil // that may be why somebody goes back
	}
	if err != nil || ref.Name == name {
		return Rewound{}, err
	}
	id := pinID("before-restore", s, ref.Name.String(), request)
	err = domain.Pin(ctx, id, newest, history.Pin{Kind: history.PinRestore, Node: k.Node})
	if history.Gone(err) {
		return Rewound{Damage: err.Error()}, nil
	}
	return Rewound{Newest: ref.Name.String(), PinID: id}, err
}

// pinID names a pin after what it keeps; the request is hashed since it is free text.
func pinID(why string, s Subject, backup, request string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(request))
	return fmt.Sprintf("%s.%s.%s.%x", why, s.Name, backup, h.Sum64())
}

// Bury writes the tombstone of a deleted workspace: its backups go when the grace is over, and a new workspace of the same
// name starts afresh.
func (k *Keeper) Bury(ctx context.Context, s Subject) error {
	ctx = fair.With(ctx, s.UID, fair.Urgent)
	_, log, err := k.log(ctx, s)
	if err != nil {
		return err
	}
	return log.Bury(ctx, s.Claim)
}

// Collect removes the packs of a domain that no backup and no snapshot needs: see [history.Domain.Collect].
func (k *Keeper) Collect(ctx context.Context, namespace string, o history.CollectOptions) (history.Collection, error) {
	domain, err := k.domain(ctx, namespace)
	if err != nil {
		return history.Collection{}, err
	}
	return domain.Collect(ctx, o)
}

// Tend removes what has had its time in a domain: buried backups and expired stray snapshots.
func (k *Keeper) Tend(ctx context.Context, namespace string, grace time.Duration) (int, error) {
	domain, err := k.domain(ctx, namespace)
	if err != nil {
		return 0, err
	}
	return domain.Purge(ctx, grace)
}
