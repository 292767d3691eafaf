package content

import (
	"context"
	"errors"
	"slices"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// settle finds out how a commit ended that an earlier process had under way.
func (k *Keeper) settle(ctx context.Context, s Subject, log *history.Log) (state.Entry, error) {
	e, err := k.change(s, func(*state.Entry) {})
	if err != nil {
		return state.Entry{}, err
	}
	if e.Backup.Last == 0 && e.Backup.Pending == nil {
		return k.remember(ctx, s, log, e)
	}
	pending := e.Backup.Pending
	if pending == nil {
		return e, nil
	}
	c, ref, err := log.Read(ctx, history.Name{Claim: s.Claim, Number: pending.Number})
	lost, damaged := errors.Is(err, store.ErrNotFound), errors.Is(err, history.ErrDamaged)
	if err != nil && !lost && !damaged {
		return e, err
	}
	return k.change(s, func(e *state.Entry) {
		e.Backup.Pending = nil
		switch {
		case damaged: // the store has made something else of it: its number is taken, and the next one is not
			e.Backup.Last = pending.Number
		case lost:
			e.Backup.Abandoned = append(e.Backup.Abandoned, pending.ID) // its write may still be under way
		case c.ID == pending.ID:
			written(&e.Backup, c, ref)
		}
	})
}

// late takes in a commit of ours that was given up and was applied after all: it fences nobody. It says whether it found one.
func (k *Keeper) late(ctx context.Context, s Subject, log *history.Log) (bool, error) {
	e, _ := k.Area.Journal().Get(s.UID)
	c, ref, err := log.Newest(ctx)
	if err != nil || c.Name.Claim != s.Claim || !slices.Contains(e.Backup.Abandoned, c.ID) || c.Name.Number <= e.Backup.Last {
		return false, err
	}
	return true, k.record(s, func(e *state.Entry) {
		written(&e.Backup, c, ref)
	})
}

// remember finds our own newest commit after the journal was lost. A commit under our claim is ours if it was written from
// this very working area, which only one daemon at a time can have open.
func (k *Keeper) remember(ctx context.Context, s Subject, log *history.Log, e state.Entry) (state.Entry, error) {
	c, ref, err := log.Newest(ctx)
	if errors.Is(err, history.ErrNoBackup) {
		return e, nil
	}
	owner, ownerErr := k.owner(s)
	if err = errors.Join(err, ownerErr); err != nil {
		return e, err
	}
	if c.Name.Claim != s.Claim || c.Name.IsClaim() || c.Owner != owner {
		return e, nil
	}
	return k.change(s, func(e *state.Entry) { written(&e.Backup, c, ref) })
}
