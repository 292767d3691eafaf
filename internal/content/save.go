package content

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// clockTick is longer than the tick of a local file system's clock (10 ms at most): a file that changed this shortly before it
// was looked at may change again without a trace in its times, so such a look proves nothing later.
const clockTick = 30 * time.Millisecond

// coarseTick is that of file systems whose times have no fraction of a second.
const coarseTick = 2 * time.Second

// SaveRequest asks for a backup.
type SaveRequest struct {
	Subject
	// Keep says which backups stay.
	Keep history.Keep
	// Trigger is recorded when the backup is done.
	Trigger string
	// Consent is what a person has decided about the final backup.
	Consent Consent
	// Progress is told what has been read.
	Progress archive.Progress

	// origin is the snapshot that the content was made from.
	origin string
	// views makes a view of content that is in use; nil reads the content itself.
	views volume.Driver
	// seen gets what was found on the way; nil if nobody wants to know.
	seen *scanned
}

// Consent is what a person has decided about content that cannot be saved as it should. Each decision is good for one named
// thing.
type Consent struct {
	// Incomplete names the incomplete backup, or stray snapshot, that is accepted in place of the content.
	Incomplete string
	// Discard is the claim whose unsaved work is given up; 0 for none.
	Discard int64
}

// Backup compares the content with the newest backup and writes a new one if they differ. The result, good or bad, is in
// the journal before it returns. A fenced owner's work is kept as a stray snapshot and a *FencedError returned.
func (k *Keeper) Backup(ctx context.Context, r SaveRequest) error {
	ctx = fair.With(ctx, r.UID, fair.Background)
	driver, o, err := k.own(ctx, r.Subject)
	if err != nil {
		return err
	}
	r.origin, r.views, r.seen = o.Marker.Content.SnapshotID, driver, &scanned{}
	err = k.saveNext(ctx, r, driver.Path(o.Volume.ID, o.Position))
	if fenced, ok := errors.AsType[*history.FencedError](err); ok {
		err = k.keepFenced(ctx, r, driver.Path(o.Volume.ID, o.Position), fenced)
	}
	if errors.Is(err, state.ErrReadOnly) {
		err = k.keepUnnoted(ctx, r, driver.Path(o.Volume.ID, o.Position), err)
	}
	k.measure(ctx, driver, r.Subject, r.seen.usage)
	return k.note(ctx, r.Subject, err)
}

// reasonOf puts the kind of a failure into one word.
func reasonOf(err error) string {
	var fenced *FencedError
	var incomplete *IncompleteError
	var wrong *StoreError
	switch {
	case errors.As(err, &fenced), errors.Is(err, history.ErrFenced):
		return "Fenced"
	case errors.As(err, &incomplete):
		return "Incomplete"
	case errors.As(err, &wrong):
		return "StoreUnavailable"
	case errors.Is(err, state.ErrReadOnly):
		return "ReadOnly"
	case errors.Is(err, context.DeadlineExceeded):
		return "TimedOut"
	default:
		return "UploadFailed"
	}
}

// note records how an attempt ended: failures count and push the next attempt away, an end that a shutdown forced does not.
func (k *Keeper) note(ctx context.Context, s Subject, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	now := k.Now()
	record := k.record(s, func(e *state.Entry) {
		b := &e.Backup
		if err == nil {
			b.Attempts, b.Failure, b.Reason, b.NextAttempt, b.FailingSince = 0, "", "", time.Time{}, time.Time{}
			return
		}
		if b.Attempts == 0 {
			b.FailingSince = now
		}
		b.Attempts++
		b.Failure, b.LastFailure, b.Reason = err.Error(), now, reasonOf(err)
		b.NextAttempt = now.Add(Backoff(b.Attempts, k.Tuned().RetryMax, s.UID))
	})
	return errors.Join(err, record)
}

// effort says what must not be spared.
type effort int

const (
	lazy    effort = iota // the tree is not read if no file looks changed
	reading               // the tree is read, and stored if it does not equal the newest backup
	anew                  // the tree is stored whatever there is: the newest backup lacks something
)

// saving is one attempt to bring the newest backup level with the tree at a path.
type saving struct {
	k      *Keeper
	r      SaveRequest
	path   string
	domain *history.Domain
	log    *history.Log
	key    *format.Key
	last   *familiar // what it goes on from without having asked; nil: everything was asked
}

// newSaving looks for the keys of the subject's domain.
func (k *Keeper) newSaving(ctx context.Context, r SaveRequest, path string) (*saving, error) {
	domain, log, err := k.log(ctx, r.Subject)
	if err != nil {
		return nil, err
	}
	key, err := k.key(ctx, domain)
	return &saving{k: k, r: r, path: path, domain: domain, log: log, key: key}, err
}

// saveNext is save for one of many backups, which asks for nothing that it knows from the one before. When anything turns out not to
// be as it was, everything is asked.
func (k *Keeper) saveNext(ctx context.Context, r SaveRequest, path string) error {
	if w := k.again(r, path); w != nil {
		if _, err := w.goOn(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	w, err := k.newSaving(ctx, r, path)
	if err != nil {
		return err
	}
	w.log = w.log.Remembering()
	_, err = w.save(ctx, lazy)
	return err
}

// save brings the newest backup level with the tree at path, and returns its commit.
func (k *Keeper) save(ctx context.Context, r SaveRequest, path string, how effort) (history.Commit, error) {
	w, err := k.newSaving(ctx, r, path)
	if err != nil {
		return history.Commit{}, err
	}
	return w.save(ctx, how)
}

func (w *saving) save(ctx context.Context, how effort) (history.Commit, error) {
	c, err := w.run(ctx, how)
	switch {
	case errors.Is(err, history.ErrCondemned):
		return w.run(ctx, anew) // what it referred to is being collected
	case !errors.Is(err, history.ErrFenced):
		return c, err
	}
	if ours, lateErr := w.k.late(ctx, w.r.Subject, w.log); lateErr != nil || !ours {
		return c, errors.Join(err, lateErr)
	}
	return w.run(ctx, how)
}

func (w *saving) run(ctx context.Context, how effort) (history.Commit, error) {
	entry, err := w.k.settle(ctx, w.r.Subject, w.log)
	if err != nil {
		return history.Commit{}, err
	}
	began := w.k.Now()
	err = w.log.Standing(ctx, w.r.Claim, history.Name{Claim: w.r.Claim, Number: entry.Backup.Last})
	if lost, ok := errors.AsType[*history.LostError](err); ok {
		err = w.k.reclaim(ctx, w.r.Subject, w.log, lost)
	}
	if err != nil {
		return history.Commit{}, err
	}
	from, err := w.start(ctx, entry, how)
	if err != nil {
		return history.Commit{}, err
	}
	return w.commitView(ctx, how, entry, from, began)
}

// steady returns a fingerprint of a tree once the clock has moved on, so that every change after it returned shows. It is ""
// if something cannot be looked at.
func (k *Keeper) steady(ctx context.Context, path string) (string, error) {
	if err := volume.Flush(ctx, path); err != nil {
		return "", err
	}
	sum, newest, err := archive.Fingerprint(ctx, path)
	if err != nil {
		return "", ctx.Err()
	}
	tick := clockTick
	if newest.Nanosecond() == 0 { // perhaps this file system counts seconds only
		tick = coarseTick
	}
	return sum, pause(ctx, min(tick-k.Now().Sub(newest), tick))
}

// reclaim notes that the store lost a backup, and publishes the claim again should its record be lost, too.
func (k *Keeper) reclaim(ctx context.Context, s Subject, log *history.Log, lost *history.LostError) error {
	if err := k.record(s, func(e *state.Entry) { e.Lost = lost.Name.String() }); err != nil {
		return err
	}
	owner, err := k.owner(s)
	if err != nil {
		return err
	}
	if err := log.PublishClaim(ctx, s.Claim, owner, nil); !errors.Is(err, history.ErrLost) {
		return err
	}
	return nil
}

// checked records that the tree equalled the newest backup when the look at it began.
func (k *Keeper) checked(r SaveRequest, read int64, began time.Time) error {
	return k.record(r.Subject, func(e *state.Entry) {
		e.Backup.CheckedAt, e.Backup.Read = began, read
		if r.Trigger != "" {
			e.Backup.Trigger = r.Trigger
		}
	})
}

// commit compares the tree with the start, stores what is new, and makes a backup of it by one create-only write. A tree that
// equals the workspace's newest backup makes none.
func (w *saving) commit(
	ctx context.Context, path string, how effort, e state.Entry, from start, began time.Time,
) (history.Commit, error) {
	res, err := w.store(ctx, path, from, how != lazy)
	if err != nil {
		return history.Commit{}, fmt.Errorf("back up %s: %w", w.path, err)
	}
	faults.Point("backup.stored")
	if from.own != nil && res.Unchanged {
		return *from.own, w.same(ctx, e, *from.own, res, began)
	}
	c, err := w.k.newCommit(w.r.Subject, e, res)
	if err != nil {
		return history.Commit{}, err
	}
	ref, listed, err := w.write(ctx, c)
	if err != nil {
		return history.Commit{}, err
	}
	faults.Point("backup.committed")
	err = w.k.record(w.r.Subject, func(e *state.Entry) {
		b := &e.Backup
		written(b, c, ref)
		b.Pending, b.Abandoned, b.CheckedAt, b.Read = nil, nil, began, res.BytesRead
		b.Duration = w.k.Now().Sub(began)
		if w.r.Trigger != "" {
			b.Trigger = w.r.Trigger
		}
	})
	if err != nil {
		return c, err
	}
	w.k.saveIndex(w.r.Subject, res.Index)
	if err := w.k.prune(ctx, w.r, w.domain, listed); err != nil {
		return c, err
	}
	w.remember(c, ref.Hash)
	return c, nil
}

// write commits a backup, and returns what shows the history afterwards.
func (w *saving) write(ctx context.Context, c history.Commit) (ref history.Ref, shown *history.Log, err error) {
	ref, err = w.k.append(ctx, w.r.Subject, c, func(ctx context.Context, c history.Commit, last history.Name) (ref history.Ref, err error) {
		if w.last == nil {
			return w.log.Append(ctx, c, last)
		}
		ref, shown, err = w.log.Extend(ctx, c, last)
		return ref, err
	})
	if shown == nil || w.r.Keep.Last == 1 { // what was listed before the commit keeps two
		shown = w.log
	}
	return ref, shown, err
}

// same ends an attempt that found the tree equal to the newest backup.
func (w *saving) same(ctx context.Context, e state.Entry, own history.Commit, res *archive.Result, began time.Time) error {
	if w.last != nil { // whether it still is the newest was not asked
		if err := w.log.Standing(ctx, w.r.Claim, own.Name); err != nil {
			return err
		}
	}
	w.k.saveIndex(w.r.Subject, res.Index)
	err := w.k.checked(w.r, res.BytesRead, began)
	if err == nil && own.Name.Claim == w.r.Claim {
		w.remember(own, e.Backup.Hash)
	}
	return err
}

// store creates an archive of the tree at a path. Nothing refers to it yet.
func (w *saving) store(ctx context.Context, path string, from start, reread bool) (*archive.Result, error) {
	res, err := archive.Create(ctx, path, w.options(from, reread))
	w.r.seen.note(res)
	if err != nil && from.own != nil {
		err = named(*from.own, err)
	}
	return res, err
}

func (w *saving) options(from start, reread bool) archive.CreateOptions {
	return archive.CreateOptions{
		Parent: from.parent, Index: from.index, Sink: packs{w.domain}, Source: packs{w.domain}, Connections: packs{w.domain}.connections(),
		Memory: w.k.Memory, Key: w.key, Reread: reread, Progress: w.r.Progress,
	}
}

// newCommit describes a backup of what was read.
func (k *Keeper) newCommit(s Subject, e state.Entry, res *archive.Result) (history.Commit, error) {
	owner, err := k.owner(s)
	if err != nil {
		return history.Commit{}, err
	}
	c := history.Commit{
		ID: history.NewID(), Domain: s.Namespace, Workspace: s.Name, Owner: owner, Created: k.Now().UTC(),
		Name: history.Name{Claim: s.Claim, Number: e.Backup.Last + 1},
	}
	take(&c, res)
	if parent, err := history.ParseName(e.Backup.Name); err == nil {
		c.Parent = &history.Ref{Name: parent, Hash: e.Backup.Hash}
	}
	return c, nil
}

// append commits, with the intent in the journal first: after a crash settle tells our commit from another's.
func (k *Keeper) append(
	ctx context.Context, s Subject, c history.Commit, write func(context.Context, history.Commit, history.Name) (history.Ref, error),
) (history.Ref, error) {
	err := k.record(s, func(e *state.Entry) {
		e.Backup.Pending = &state.Pending{Number: c.Name.Number, ID: c.ID}
	})
	if err != nil {
		return history.Ref{}, err
	}
	faults.Point("backup.pending")
	e, _ := k.Area.Journal().Get(s.UID)
	return write(ctx, c, history.Name{Claim: s.Claim, Number: e.Backup.Last})
}

// written records a commit as the newest backup.
func written(b *state.Backup, c history.Commit, ref history.Ref) {
	b.Name, b.Hash, b.CommitID, b.Time = c.Name.String(), ref.Hash, c.ID, c.Created
	b.Files, b.Bytes, b.Uploaded, b.Complete, b.Last = c.Tree.Files, c.Tree.Bytes, c.Stored, c.Complete(), c.Name.Number
	b.Digest, b.Problem = c.Tree.Digest, ""
	if !c.Complete() {
		b.Problem = (&IncompleteError{Backup: b.Name, Count: c.Tree.UnreadableCount, Files: names(c.Tree.Unreadable)}).Error()
	}
}

func names(problems []history.Problem) []string {
	out := make([]string, 0, 3)
	for _, p := range problems[:min(3, len(problems))] {
		out = append(out, p.Path+": "+p.Error)
	}
	return out
}
