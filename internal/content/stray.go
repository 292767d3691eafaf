package content

import (
	"context"
	"errors"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// keepFenced saves what a fenced owner could not commit, once for every state of the tree.
func (k *Keeper) keepFenced(ctx context.Context, r SaveRequest, path string, fenced error) error {
	id, err := k.keepStray(ctx, r.Subject, path, r.Consent, r.Progress)
	if err != nil {
		return errors.Join(fenced, err)
	}
	return &FencedError{Err: fenced, Stray: id}
}

// keepStray saves a tree as a stray snapshot, unless it equals a backup of the workspace or the last one saved so. A tree with
// files that cannot be read is saved, too, but that is an *[IncompleteError] unless a person accepts it: the content must stay.
func (k *Keeper) keepStray(ctx context.Context, s Subject, path string, consent Consent, progress archive.Progress) (string, error) {
	domain, log, err := k.log(ctx, s)
	if err != nil {
		return "", err
	}
	report, err := archive.Digest(ctx, path, k.Memory)
	if err != nil {
		return "", fmt.Errorf("scan %s: %w", path, err)
	}
	if known, err := log.HasTree(ctx, report.Digest, report.UnreadableCount); err != nil || known {
		return "", err
	}
	id, err := k.findStray(ctx, s, domain, report)
	if err == nil && id == "" {
		id, report, err = k.pinStray(ctx, s, path, progress)
	}
	if err == nil {
		err = k.record(s, func(e *state.Entry) { e.Stray = state.Stray{ID: id, Digest: report.Digest} })
	}
	if err == nil && report.UnreadableCount > 0 && consent.Incomplete != id {
		err = &IncompleteError{Backup: id, Count: report.UnreadableCount, Files: names(tree(report).Unreadable)}
	}
	return id, err
}

// findStray returns the stray snapshot of this node that holds what was read, "" if there is none: what the journal remembers
// may have had its time, and a crash may have kept the journal from learning of one.
func (k *Keeper) findStray(ctx context.Context, s Subject, domain *history.Domain, report archive.Report) (string, error) {
	pins, err := domain.Pins(ctx, history.StrayPrefix(s.Name, k.Node))
	if err != nil {
		return "", err
	}
	for _, p := range pins {
		pinned, err := domain.Pinned(ctx, p.ID)
		if err == nil {
			err = domain.VerifyPacks(ctx, pinned.Commit.Packs)
		}
		if err != nil && !history.Gone(err) {
			return "", err
		}
		c := pinned.Commit
		if err == nil && c.Workspace == s.Name && c.Tree.Digest == report.Digest && c.Tree.UnreadableCount == report.UnreadableCount {
			return p.ID, nil
		}
	}
	return "", nil
}

func (k *Keeper) pinStray(
	ctx context.Context, s Subject, path string, progress archive.Progress,
) (string, archive.Report, error) {
	e, _ := k.Area.Journal().Get(s.UID)
	w, err := k.newSaving(ctx, SaveRequest{Subject: s, Progress: progress}, path)
	if err != nil {
		return "", archive.Report{}, err
	}
	domain := w.domain
	from, err := w.start(ctx, e, reading)
	if err != nil {
		return "", archive.Report{}, err
	}
	res, err := w.store(ctx, path, from, true)
	if err != nil {
		return "", archive.Report{}, fmt.Errorf("save %s: %w", path, err)
	}
	report := res.Report
	c, err := k.newCommit(s, e, res)
	if err != nil {
		return "", report, err
	}
	id := history.StrayID(s.Name, k.Node, k.Now())
	pin, err := k.strayPin(ctx, k.Node)
	if err != nil {
		return "", report, err
	}
	if err := domain.Pin(ctx, id, c, pin); err != nil {
		return "", report, err
	}
	faults.Point("stray.pinned")
	if err := domain.VerifyPacks(ctx, c.Packs); err != nil {
		return id, report, err
	}
	return id, report, k.thinStrays(ctx, s, domain, id)
}

// thinStrays keeps the first stray snapshot of a stay on this node, which has what was there when the owner moved on, the newest
// one, whatever the clock says, and the one before: content that goes on changing, and being saved, must not fill the store.
func (k *Keeper) thinStrays(ctx context.Context, s Subject, domain *history.Domain, newest string) error {
	pins, err := domain.Pins(ctx, history.StrayPrefix(s.Name, k.Node))
	if err != nil {
		return err
	}
	var ours []string // ascending, so oldest first: ids of stray snapshots end in their time
	for _, p := range pins {
		pinned, err := domain.Pinned(ctx, p.ID)
		if err != nil && !history.Gone(err) {
			return err
		}
		if c := pinned.Commit; err == nil && p.ID != newest && c.Workspace == s.Name && c.Name.Claim == s.Claim && c.Owner.UID == s.UID {
			ours = append(ours, p.ID)
		}
	}
	if len(ours) < 3 {
		return nil
	}
	for _, id := range ours[1 : len(ours)-1] {
		if err := domain.Unpin(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// strayPin expires by the store's clock, which is the one that collection goes by.
func (k *Keeper) strayPin(ctx context.Context, node string) (history.Pin, error) {
	now, err := k.Store.Now(ctx)
	return history.Pin{Kind: history.PinStray, Node: node, Expires: now.Add(k.Tuned().StrayRetention)}, err
}
