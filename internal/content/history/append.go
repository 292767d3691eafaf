package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

// PublishClaim writes the record of a claim, so that older owners see it before their next commit. It succeeds again for
// the same owner; a claim of another owner, or a newer one, is a [FencedError]. Parent is what the claim goes on from if that
// is not what is newest.
//
// Choose what to restore after this call, by the record that it wrote: see [Log.Base]. What the record has not seen is a
// fork, be it committed while the record was being written or later.
func (l *Log) PublishClaim(ctx context.Context, claim int64, o Owner, parent *Ref) error {
	if err := (Name{Claim: claim}).valid(); err != nil {
		return l.wrap("publish claim", err)
	}
	h, err := l.head(ctx)
	if err != nil {
		return err
	}
	if err := l.fence(ctx, h, claim); err != nil {
		return err
	}
	if h.newest.Name.Claim == claim {
		return l.owned(ctx, claim, o)
	}
	record, err := l.claimRecord(ctx, claim, o, parent)
	if err != nil {
		return err
	}
	faults.Point("history.claim.before")
	_, err = l.write(ctx, record)
	if errors.Is(err, store.ErrExists) {
		return l.owned(ctx, claim, o)
	}
	if err != nil {
		return l.wrap("publish claim", err)
	}
	faults.Point("history.claim.after")
	return nil
}

// claimRecord notes what there is before the claim.
func (l *Log) claimRecord(ctx context.Context, claim int64, o Owner, parent *Ref) (Commit, error) {
	record := Commit{ID: NewID(), Name: Name{Claim: claim}, Owner: o, Parent: parent}
	for e, err := range l.scan(ctx, claim) {
		if err != nil {
			return Commit{}, l.wrap("list backups", err)
		}
		if n := len(record.Seen); n == 0 || record.Seen[n-1].Claim != e.Name.Claim {
			record.Seen = append(record.Seen, e.Name)
		}
	}
	if len(record.Seen) > 0 {
		record.Base = record.Seen[0]
	}
	return l.filled(ctx, record)
}

// owned checks whose claim it is that was published.
func (l *Log) owned(ctx context.Context, claim int64, o Owner) error {
	name := Name{Claim: claim}
	c, _, err := l.Read(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return &LostError{Workspace: l.name, Name: name}
	}
	if err == nil && c.Owner != o {
		return &FencedError{Workspace: l.name, By: name, Owner: c.Owner}
	}
	return err
}

// Append commits a backup under its name; last is the newest name that the caller knows to have written, under this claim
// or before. Format, Domain, Workspace and Created are filled in. It may be repeated with the same c after an error.
//
// A newer claim, or a commit of our claim after last that is not c, is a [FencedError]. If the name holds an earlier
// attempt with the same ID and another tree, its reference is returned with [ErrEarlier]. A pack that is being collected is
// [ErrCondemned]: store what is in it anew.
func (l *Log) Append(ctx context.Context, c Commit, last Name) (Ref, error) {
	return l.append(ctx, c, last, l.head)
}

// Extend is [Log.Append] for a commit that goes on from last, unless that is not the newest one any more: then nothing is written, and
// a [LostError] says so. It needs no [Log.Standing] before. With it comes the history as [Log.Listed] showed it at that moment, and the
// commit: that spares a request to whoever prunes next.
func (l *Log) Extend(ctx context.Context, c Commit, last Name) (Ref, *Log, error) {
	var listed *Log
	ref, err := l.append(ctx, c, last, func(ctx context.Context) (h head, err error) {
		if listed, err = l.Listed(ctx); err != nil {
			return head{}, err
		}
		return listed.head(ctx)
	}, func(h head) error {
		if want := (Name{Claim: c.Name.Claim, Number: numberUnder(c.Name.Claim, last)}); h.newest.Name != want && h.newest.Name != c.Name {
			return &LostError{Workspace: l.name, Name: want}
		}
		return nil
	})
	if err != nil {
		return ref, nil, err
	}
	return ref, listed.with(c.Name), nil
}

// append looks who owns the workspace, lets others object to what is there, and commits.
func (l *Log) append(
	ctx context.Context, c Commit, last Name, look func(context.Context) (head, error), agree ...func(head) error,
) (Ref, error) {
	c, err := l.filled(ctx, c)
	if err != nil {
		return Ref{}, err
	}
	if number := numberUnder(c.Name.Claim, last); c.Name.Number <= number {
		return Ref{}, l.wrap("append backup", fmt.Errorf("%s does not come after %s", c.Name, last))
	}
	going, err := l.domain.recent(ctx) // before the parent is seen to be there
	if err != nil {
		return Ref{}, l.wrap("append backup", err)
	}
	h, err := look(ctx)
	if err != nil {
		return Ref{}, err
	}
	if h.newest.Name != c.Name {
		err = l.fence(ctx, h, c.Name.Claim, last)
	} else {
		err = l.fence(ctx, h, c.Name.Claim, c.Name) // ours or not: the write below tells
	}
	for _, ask := range agree {
		if err == nil {
			err = ask(h)
		}
	}
	if err != nil {
		return Ref{}, err
	}
	if err := l.lasting(ctx, c, h, going); err != nil {
		return Ref{}, l.wrap("append backup "+c.Name.String(), err)
	}
	return l.commit(ctx, c, going)
}

// lasting makes sure that no pack that a commit names is going, and that those of older backups are there: the parent is, so
// they are, or else each is looked for.
func (l *Log) lasting(ctx context.Context, c Commit, h head, going *look) error {
	if err := going.allows(c.Packs); err != nil {
		return err
	}
	if c.Parent == nil || c.Parent.Name != h.newest.Name {
		old := slices.DeleteFunc(slices.Clone(c.Packs), func(p Pack) bool { return p.New })
		if err := going.find(ctx, l.domain, old); err != nil {
			return err
		}
	}
	return l.domain.inTime(going)
}

func (l *Log) commit(ctx context.Context, c Commit, going *look) (Ref, error) {
	faults.Point("history.commit.before")
	ref, err := l.write(ctx, c)
	if errors.Is(err, store.ErrExists) {
		return l.resolve(ctx, c)
	}
	if err == nil {
		err = l.domain.confirm(ctx, going, c.Packs)
	}
	if err != nil {
		return Ref{}, l.wrap("append backup "+c.Name.String(), err)
	}
	l.known.note(c)
	faults.Point("history.commit.after")
	return ref, nil
}

// resolve finds out who took the name of a commit: maybe we did, and the reply was lost.
func (l *Log) resolve(ctx context.Context, c Commit) (Ref, error) {
	there, ref, err := l.Read(ctx, c.Name)
	switch {
	case err != nil:
		return Ref{}, err
	case there.ID != c.ID:
		return Ref{}, &FencedError{Workspace: l.name, By: c.Name, Owner: there.Owner}
	case there.Tree.Digest != c.Tree.Digest:
		return ref, l.wrap("append backup "+c.Name.String(), ErrEarlier)
	}
	return ref, l.domain.VerifyPacks(ctx, c.Packs) // nobody knows when it was written
}

// Standing checks without writing that the workspace is still ours and its newest backup the one we wrote last: it
// returns a [FencedError] or a [LostError] if not. Before the first commit, last is zero or an older claim's.
func (l *Log) Standing(ctx context.Context, claim int64, last Name) error {
	h, err := l.head(ctx)
	if err != nil {
		return err
	}
	if err := l.fence(ctx, h, claim, last); err != nil {
		return err
	}
	want := Name{Claim: claim, Number: numberUnder(claim, last)}
	if h.newest.Name != want {
		return &LostError{Workspace: l.name, Name: want}
	}
	return nil
}

// Bury writes the tombstone of a deleted workspace: everything up to the claim is dead, a later claim begins anew. It
// may be repeated; a newer claim is a [FencedError].
func (l *Log) Bury(ctx context.Context, claim int64) error {
	if err := (Name{Claim: claim}).valid(); err != nil {
		return l.wrap("bury", err)
	}
	h, err := l.head(ctx)
	if err != nil {
		return err
	}
	if again := h.buried == claim && h.newest.Name.Claim <= claim; !again {
		if err := l.fence(ctx, h, claim, h.newest.Name); err != nil {
			return err
		}
	}
	faults.Point("history.tombstone.before")
	for _, key := range []string{l.tombstoneKey(claim), l.indexKey(claim)} { // dead is what the first one covers
		data, err := encode(key, tombstone{Format: formatVersion, Domain: l.domain.name, Workspace: l.name, Claim: claim})
		if err == nil {
			err = l.domain.store.Put(ctx, key, data)
		}
		if err != nil && !errors.Is(err, store.ErrExists) {
			return l.wrap("bury", err)
		}
		faults.Point("history.tombstone.after")
	}
	return nil
}

type tombstone struct {
	Format    int    `json:"format"`
	Domain    string `json:"domain"`
	Workspace string `json:"workspace"`
	Claim     int64  `json:"claim"`
}

// fence reports a newer claim or a tombstone of ours. Given the last name that we wrote, a later one of our claim fences,
// too: two daemons believe to be us.
func (l *Log) fence(ctx context.Context, h head, claim int64, last ...Name) error {
	newest := h.newest.Name
	if h.buried >= claim && h.buried >= newest.Claim {
		return &FencedError{Workspace: l.name, By: Name{Claim: h.buried}, Buried: true}
	}
	foreign := len(last) > 0 && newest.Claim == claim && newest.Number > numberUnder(claim, last[0])
	if newest.Claim <= claim && !foreign {
		return nil
	}
	c, _, err := l.Read(ctx, newest)
	if err != nil {
		c = Commit{} // the owner is for the message only: fenced we are anyway
	}
	return &FencedError{Workspace: l.name, By: newest, Owner: c.Owner}
}

func numberUnder(claim int64, last Name) int64 {
	if last.Claim != claim {
		return 0
	}
	return last.Number
}

// filled completes a commit and refuses one that its readers would.
func (l *Log) filled(ctx context.Context, c Commit) (Commit, error) {
	c.Format = formatVersion
	c.Tree = c.Tree.clipped()
	c.Domain = cmp.Or(c.Domain, l.domain.name)
	c.Workspace = cmp.Or(c.Workspace, l.name)
	if err := errors.Join(c.Name.valid(), c.belongs(l.key(c.Name), l.domain.name, l.name, c.Name)); err != nil {
		return Commit{}, l.wrap("write", err)
	}
	if !c.Created.IsZero() {
		return c, nil
	}
	now, err := l.domain.now(ctx)
	c.Created = now
	return c, err
}

// write is the one create-only write that makes a commit exist.
func (l *Log) write(ctx context.Context, c Commit) (Ref, error) {
	key := l.key(c.Name)
	data, err := encode(key, c)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Name: c.Name, Hash: hash(data)}, l.domain.store.Put(ctx, key, data)
}
