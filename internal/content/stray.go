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
	id, err := k.keepStray(ctx, r.Subject, path, r.Consent, r.Progress, allThere)
	if err != nil {
		return errors.Join(fenced, err)
	}
	return &FencedError{Err: fenced, Stray: id}
}

// keepUnnoted saves content whose backup cannot be noted in the working area: a commit that this node does not remember after its next
// start would look like another owner's. Content that is on another disk goes on changing meanwhile.
func (k *Keeper) keepUnnoted(ctx context.Context, r SaveRequest, path string, cause error) error {
	id, err := k.keepStray(ctx, r.Subject, path, r.Consent, r.Progress, allThere)
	switch {
	case err != nil:
		return errors.Join(cause, err)
	case id == "":
		return fmt.Errorf("no backup can be made, but the newest one equals the content: %w", cause)
	default:
		return fmt.Errorf("no backup can be made, but the content was saved as snapshot %s: %w", id, cause)
	}
}

// wholeness says whether all that a backup or a snapshot needs is in the store; history.Gone tells if not.
type wholeness func(context.Context, *history.Domain, history.Commit) error

// allThere is that each pack is there, with its size.
func allThere(ctx context.Context, domain *history.Domain, c history.Commit) error {
	return domain.VerifyPacks(ctx, c.Packs)
}

// readAgain is what a final backup has to stand, too: its pages can be read, and the packs that were stored for it are as they were sent.
func (k *Keeper) readAgain(ctx context.Context, domain *history.Domain, c history.Commit) error {
	if err := domain.VerifyPacks(ctx, c.Packs); err != nil {
		return err
	}
	err := k.buffered(ctx, func(buf []byte) error {
		for _, p := range newOf(c.Packs) {
			if err := domain.ComparePack(ctx, p, buf); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return k.readPages(ctx, domain, c)
}

// keepStray saves a tree as a stray snapshot, unless it equals a backup of the workspace or the last one saved so, each of which must be
// whole. A tree with files that cannot be read is saved, too, but that is an *[IncompleteError] unless a person accepts it: the content
// must stay.
func (k *Keeper) keepStray(
	ctx context.Context, s Subject, path string, consent Consent, progress archive.Progress, whole wholeness,
) (string, error) {
	domain, log, err := k.log(ctx, s)
	if err != nil {
		return "", err
	}
	report, err := archive.Digest(ctx, path, k.Memory)
	if err != nil {
		return "", fmt.Errorf("scan %s: %w", path, err)
	}
	how := reading
	check := func(ctx context.Context, c history.Commit) error {
		err := whole(ctx, domain, c)
		if history.Gone(err) {
			how = anew // nothing to go on from
		}
		return err
	}
	if known, err := log.HasTree(ctx, report.Digest, report.UnreadableCount, check); err != nil || known {
		return "", err
	}
	id, err := k.findStray(ctx, s, domain, report, check)
	if first := how; err == nil && id == "" {
		id, report, err = k.pinStray(ctx, s, path, progress, first, check)
		if history.Gone(err) && first != anew { // what it went on from
			id, report, err = k.pinStray(ctx, s, path, progress, anew, check)
		}
	}
	if err == nil {
		err = k.record(s, func(e *state.Entry) { e.Stray = state.Stray{ID: id, Digest: report.Digest} })
	}
	if errors.Is(err, state.ErrReadOnly) {
		err = nil // it is found again in the store
	}
	if err == nil && report.UnreadableCount > 0 && consent.Incomplete != id {
		err = &IncompleteError{Backup: id, Count: report.UnreadableCount, Files: names(tree(report).Unreadable)}
	}
	return id, err
}

// findStray returns the stray snapshot of this node that holds what was read, "" if there is none: what the journal remembers
// may have had its time, and a crash may have kept the journal from learning of one.
func (k *Keeper) findStray(
	ctx context.Context, s Subject, domain *history.Domain, report archive.Report, check func(context.Context, history.Commit) error,
) (string, error) {
	pins, err := domain.Pins(ctx, history.StrayPrefix(s.Name, k.Node))
	if err != nil {
		return "", err
	}
	for _, p := range pins {
		pinned, err := domain.Pinned(ctx, p.ID)
		c := pinned.Commit
		holds := err == nil && c.Workspace == s.Name && c.Tree.Digest == report.Digest && c.Tree.UnreadableCount == report.UnreadableCount
		if holds {
			err = check(ctx, c)
		}
		if err != nil && !history.Gone(err) {
			return "", err
		}
		if holds && err == nil {
			return p.ID, nil
		}
	}
	return "", nil
}

// pinStray stores a tree and pins it. A pin that turns out not to be whole goes again.
func (k *Keeper) pinStray(
	ctx context.Context, s Subject, path string, progress archive.Progress, how effort, check func(context.Context, history.Commit) error,
) (string, archive.Report, error) {
	e, _ := k.Area.Journal().Get(s.UID)
	w, err := k.newSaving(ctx, SaveRequest{Subject: s, Progress: progress}, path)
	if err != nil {
		return "", archive.Report{}, err
	}
	domain := w.domain
	from, err := w.start(ctx, e, how)
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
	if err := check(ctx, c); err != nil {
		if history.Gone(err) {
			err = errors.Join(err, domain.Unpin(ctx, id))
		}
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
