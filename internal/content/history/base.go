package history

import (
	"context"
	"errors"
	"fmt"
)

// Base returns the backup that a published claim goes on from: the parent that its record names, or else the newest complete
// backup that was there when the claim was made. It is the same whenever it is asked. [ErrNoBackup] if there is none.
func (l *Log) Base(ctx context.Context, claim int64) (Commit, Ref, error) {
	record, err := l.record(ctx, claim)
	if err != nil {
		return Commit{}, Ref{}, err
	}
	if record.Parent != nil {
		return l.parent(ctx, record)
	}
	return l.descend(ctx, claim, seenBy(record))
}

// Current returns the backup that a new claim would go on from. [ErrNoBackup] if there is none. One that is damaged is not
// passed over.
func (l *Log) Current(ctx context.Context) (Commit, Ref, error) {
	return l.descend(ctx, 0, nil)
}

// descend walks down from the newest entry to the first complete backup that is no fork. The record of a claim that went
// back in time and left no backup of its own leads to what it went back to.
func (l *Log) descend(ctx context.Context, below int64, seen map[int64]int64) (Commit, Ref, error) {
	for e, err := range l.alive(ctx, below) {
		if err != nil {
			return Commit{}, Ref{}, err
		}
		if seen != nil && !e.Name.IsClaim() && e.Name.Number > seen[e.Name.Claim] {
			continue
		}
		c, ref, err := l.Read(ctx, e.Name)
		switch {
		case err != nil:
			return Commit{}, Ref{}, err
		case !e.Name.IsClaim() && c.Complete():
			return c, ref, nil
		case e.Name.IsClaim() && c.Parent != nil:
			return l.parent(ctx, c)
		case e.Name.IsClaim():
			seen = seenBy(c)
		}
	}
	// Nothing was found: make sure that it was looked for in the right place.
	if _, err := l.domain.record(ctx); err != nil {
		return Commit{}, Ref{}, l.wrap("look for a backup", err)
	}
	return Commit{}, Ref{}, l.wrap("look for a backup", ErrNoBackup)
}

func (l *Log) parent(ctx context.Context, record Commit) (Commit, Ref, error) {
	c, ref, err := l.Read(ctx, record.Parent.Name)
	if err == nil && ref.Hash != record.Parent.Hash {
		err = l.wrap("look for a backup", damaged(l.key(record.Parent.Name), fmt.Errorf("it is not the backup that claim %d names", record.Name.Claim)))
	}
	return c, ref, err
}

// Newest returns the newest entry, be it a backup or the record of a claim. [ErrNoBackup] if there is none.
func (l *Log) Newest(ctx context.Context) (Commit, Ref, error) {
	for e, err := range l.alive(ctx, 0) {
		if err != nil {
			return Commit{}, Ref{}, err
		}
		return l.Read(ctx, e.Name)
	}
	return Commit{}, Ref{}, l.wrap("look for a backup", ErrNoBackup)
}

// HasTree says whether one of the newest complete backups holds a tree with this digest, of which so many files could not
// be read, and is whole, which is asked of each. A backup that is damaged, or lacks a pack, holds nothing.
func (l *Log) HasTree(ctx context.Context, digest string, unreadable int64, whole func(context.Context, Commit) error) (bool, error) {
	const looked = 20
	n := 0
	for e, err := range l.alive(ctx, 0) {
		if err != nil {
			return false, err
		}
		if e.Name.IsClaim() {
			continue
		}
		c, _, err := l.Read(ctx, e.Name)
		holds := err == nil && c.Complete() && c.Tree.Digest == digest && c.Tree.UnreadableCount == unreadable
		if holds {
			err = whole(ctx, c)
		}
		if err != nil && !Gone(err) {
			return false, err
		}
		if holds && err == nil {
			return true, nil
		}
		if n++; n == looked {
			break
		}
	}
	return false, nil
}

// Verify reads a backup back: its commit is the one that was written, every pack it references is there with its size, and
// the packs in own are fetched and compared by checksum, in parts that fit into buf, which must be forgotten after an error.
func (l *Log) Verify(ctx context.Context, ref Ref, own []Pack, buf []byte) error {
	c, got, err := l.Read(ctx, ref.Name)
	if err != nil {
		return err
	}
	if got.Hash != ref.Hash {
		return l.wrap("read back", damaged(l.key(ref.Name), errors.New("it is not what was written")))
	}
	if err := l.domain.VerifyPacks(ctx, c.Packs); err != nil {
		return l.wrap("read back "+ref.Name.String(), err)
	}
	for _, p := range own {
		if err := l.domain.ComparePack(ctx, p, buf); err != nil {
			return l.wrap("read back "+ref.Name.String(), err)
		}
	}
	return nil
}

// VerifyPacks makes sure that packs are in the store with their sizes, and stay there as long as a commit or pin that was written
// before names them: [ErrCondemned] if not. The lists are read first, because a list goes after what is in it.
func (d *Domain) VerifyPacks(ctx context.Context, packs []Pack) error {
	_, err := d.verify(ctx, packs)
	return err
}

func (d *Domain) verify(ctx context.Context, packs []Pack) (*look, error) {
	l, err := d.look(ctx)
	if err == nil {
		err = l.allows(packs)
	}
	if err == nil {
		err = l.find(ctx, d, packs)
	}
	return l, err
}

// find makes sure that packs are there; those that were seen after the look are.
func (l *look) find(ctx context.Context, d *Domain, packs []Pack) error {
	for _, p := range packs {
		l.mu.Lock()
		seen := l.there[p.ID]
		l.mu.Unlock()
		if seen {
			continue
		}
		if err := d.StatPack(ctx, p); err != nil {
			return err
		}
		l.mu.Lock()
		l.there[p.ID] = true
		l.mu.Unlock()
	}
	return nil
}
