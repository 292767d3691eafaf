package content

import (
	"context"
	"errors"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Release takes the content away from its users, saves it, reads the backup back, and marks the volume as free to go. It
// returns the name of the backup. inUse is asked once nobody can begin to use the content any more.
func (k *Keeper) Release(ctx context.Context, r SaveRequest, inUse func(context.Context) error) (string, error) {
	ctx = fair.With(ctx, r.UID, fair.Urgent)
	name, err := k.release(ctx, r, inUse)
	if errors.Is(err, ErrInUse) {
		return "", err
	}
	if fenced, ok := errors.AsType[*history.FencedError](err); ok {
		driver, o, ownErr := k.own(ctx, r.Subject)
		if ownErr != nil {
			return "", ownErr
		}
		err = k.keepFenced(ctx, r, driver.Path(o.Volume.ID, o.Position), fenced)
	}
	return name, k.note(ctx, r.Subject, err)
}

func (k *Keeper) release(ctx context.Context, r SaveRequest, inUse func(context.Context) error) (string, error) {
	driver, o, err := k.own(ctx, r.Subject)
	if err != nil {
		return "", err
	}
	if o.Marker.Released != "" {
		return o.Marker.Released, nil
	}
	path, err := k.withdraw(ctx, driver, o, inUse)
	if err != nil {
		return "", err
	}
	r.origin = o.Marker.Content.SnapshotID
	c, sum, err := k.settleTree(ctx, r, path, lazy)
	if err != nil {
		return "", err
	}
	err = k.readBack(ctx, r.Subject, c)
	if history.Gone(err) {
		if domain, openErr := k.domain(ctx, r.Namespace); openErr == nil {
			k.tell(ctx, domain, err)
		}
		if c, sum, err = k.settleTree(ctx, r, path, anew); err == nil {
			err = k.readBack(ctx, r.Subject, c)
		}
	}
	if err != nil {
		return "", err
	}
	faults.Point("release.verified")
	if err := k.markReleased(r.Subject, o, sum, c.Name.String()); err != nil {
		return "", err
	}
	return c.Name.String(), nil
}

// withdraw moves the content out of its users' reach, and back if it turns out that somebody still uses it: whoever had it
// open keeps it open, but nobody can begin to use it in between.
func (k *Keeper) withdraw(ctx context.Context, driver volume.Driver, o Observation, inUse func(context.Context) error) (string, error) {
	if err := k.vacant(ctx, o.Volume.ID, inUse); err != nil {
		return "", err
	}
	if o.Position == volume.Staged {
		return driver.Path(o.Volume.ID, volume.Staged), nil // no user has ever seen it
	}
	err := driver.Withdraw(ctx, o.Volume.ID)
	if errors.Is(err, volume.ErrInUse) {
		return "", fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if err != nil {
		return "", err
	}
	faults.Point("release.withdrawn")
	if err := k.vacant(ctx, o.Volume.ID, inUse); err != nil {
		return "", errors.Join(err, driver.Publish(context.WithoutCancel(ctx), o.Volume.ID))
	}
	return driver.Path(o.Volume.ID, volume.Withdrawn), nil
}

// settleTree backs the withdrawn tree up until a full read of it equals its newest backup. The fingerprint that it returns was
// taken before that read: whatever changes the tree later changes the fingerprint.
func (k *Keeper) settleTree(ctx context.Context, r SaveRequest, path string, how effort) (history.Commit, string, error) {
	for range 3 {
		c, err := k.save(ctx, r, path, how)
		if err != nil {
			return c, "", err
		}
		if c, err = k.accept(ctx, r, c); err != nil {
			return c, "", err
		}
		sum, err := k.steady(ctx, path)
		if err != nil {
			return c, "", err
		}
		report, err := archive.Digest(ctx, path, k.Memory)
		if err != nil {
			return c, "", fmt.Errorf("scan %s: %w", path, err)
		}
		if equals(c.Tree, report) {
			return c, sum, volume.CheckWriters(ctx, path)
		}
		how = reading
	}
	return history.Commit{}, "", fmt.Errorf("%w: %s was never equal to its backup in 3 attempts", ErrChanging, path)
}

// accept refuses an incomplete backup as the last one, unless a person has accepted this very one: then it is committed
// once more, as accepted, and counts as complete from there on.
func (k *Keeper) accept(ctx context.Context, r SaveRequest, c history.Commit) (history.Commit, error) {
	if c.Complete() {
		return c, nil
	}
	if r.Consent.Incomplete != c.Name.String() {
		return c, &IncompleteError{Backup: c.Name.String(), Count: c.Tree.UnreadableCount, Files: names(c.Tree.Unreadable)}
	}
	_, log, err := k.log(ctx, r.Subject)
	if err != nil {
		return c, err
	}
	c.ID, c.Accepted = history.NewID(), true
	c.Name.Number++
	ref, err := k.append(ctx, r.Subject, c, log.Append)
	if err != nil {
		return c, err
	}
	return c, k.record(r.Subject, func(e *state.Entry) {
		written(&e.Backup, c, ref)
		e.Backup.Pending = nil
	})
}

// readBack proves that the store holds the backup and that nobody has taken over.
func (k *Keeper) readBack(ctx context.Context, s Subject, c history.Commit) error {
	domain, log, err := k.log(ctx, s)
	if err != nil {
		return err
	}
	e, _ := k.Area.Journal().Get(s.UID)
	if err := log.Standing(ctx, s.Claim, history.Name{Claim: s.Claim, Number: e.Backup.Last}); err != nil {
		return err
	}
	var own []history.Pack
	if c.Owner.UID == s.UID && c.Name.Claim == s.Claim {
		own = newOf(c.Packs)
	}
	ref := history.Ref{Name: c.Name, Hash: e.Backup.Hash}
	if err := k.buffered(ctx, func(buf []byte) error { return log.Verify(ctx, ref, own, buf) }); err != nil {
		return err
	}
	if err := k.readPages(ctx, domain, c); err != nil {
		return fmt.Errorf("read back backup %s of workspace %s: %w", c.Name, s, err)
	}
	return nil
}

// readPages makes sure that what describes a backup's tree can be read; if it is not what was stored, that is history.ErrDamaged.
func (k *Keeper) readPages(ctx context.Context, domain *history.Domain, c history.Commit) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	key, err := k.key(ctx, domain)
	if err != nil {
		return err
	}
	err = archive.Verify(ctx, root, packs{domain}, keyOf(c, key), false, k.Memory)
	if errors.Is(err, format.ErrDamaged) {
		return fmt.Errorf("%w: %w", history.ErrDamaged, err)
	}
	return err
}

// comparedAtOnce is how much of a pack is read at once to be compared, in bytes.
const comparedAtOnce = 8 << 20

// buffered lends a buffer in which packs are compared, part by part.
func (k *Keeper) buffered(ctx context.Context, compare func(buf []byte) error) error {
	share, err := k.Memory.Join(ctx, comparedAtOnce)
	if err != nil {
		return err
	}
	defer share.Close()
	buf := share.Get(comparedAtOnce)
	if err := compare(buf); err != nil {
		return err
	}
	share.Put(buf)
	return nil
}
