package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// Log is the history of one workspace.
type Log struct {
	domain  *Domain
	name    string
	known   *recollection // nil: nothing is remembered
	listing []Entry       // of a log as it was listed at one time, with the tombstones; nil: the store is asked
}

// Entry is a commit or a claim's record as it is listed.
type Entry struct {
	Name     Name
	Modified time.Time // by the store's clock
	Size     int64     // bytes of the record, not of the content

	grave    bool // it is the tombstone of the claim, and no entry
	appended bool // it was written after the others were listed: somebody may have taken over in between
}

// head is what decides who owns a workspace.
type head struct {
	newest Entry // of all, also of dead ones
	buried int64 // the newest tombstone's claim, if that is not older than the newest entry's
}

// Entries lists what the workspace has, newest first. What a tombstone covers is left out.
func (l *Log) Entries(ctx context.Context) ([]Entry, error) {
	var entries []Entry
	for e, err := range l.alive(ctx, 0) {
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// NewestClaim returns the newest claim of the workspace, also of a deleted one, or 0.
func (l *Log) NewestClaim(ctx context.Context) (int64, error) {
	h, err := l.head(ctx)
	return max(h.newest.Name.Claim, h.buried), err
}

// Read returns a commit and the reference to its bytes.
func (l *Log) Read(ctx context.Context, name Name) (Commit, Ref, error) {
	c, ref, err := l.read(ctx, name)
	if err != nil {
		return Commit{}, Ref{}, l.wrap("read backup "+name.String(), err)
	}
	return c, ref, nil
}

func (l *Log) read(ctx context.Context, name Name) (Commit, Ref, error) {
	if err := errors.Join(validID("workspace", l.name), name.valid()); err != nil {
		return Commit{}, Ref{}, err
	}
	key := l.key(name)
	data, err := fetch(ctx, l.domain.store, key)
	if err != nil {
		return Commit{}, Ref{}, err
	}
	var c Commit
	if err := decode(key, data, &c); err != nil {
		return Commit{}, Ref{}, err
	}
	return c, Ref{Name: name, Hash: hash(data)}, c.belongs(key, l.domain.name, l.name, name)
}

// Forks lists commits of older claims that appeared after our claim was made: the old owner's last ones, in flight at the
// take-over. They are no ancestors of ours. If our claim's record is damaged nobody can tell, and none is returned: [Log.Prune]
// then leaves all of older claims alone.
func (l *Log) Forks(ctx context.Context, claim int64) ([]Entry, error) {
	seen, err := l.seen(ctx, claim)
	if errors.Is(err, ErrDamaged) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var forks []Entry
	for e, err := range l.alive(ctx, claim) {
		if err != nil {
			return nil, err
		}
		if e.Name.Number > seen[e.Name.Claim] {
			forks = append(forks, e)
		}
	}
	return forks, nil
}

// seen returns the newest number of each older claim at the time that ours was made.
func (l *Log) seen(ctx context.Context, claim int64) (map[int64]int64, error) {
	record, err := l.record(ctx, claim)
	if err != nil {
		return nil, err
	}
	return seenBy(record), nil
}

// record reads the record of a published claim; one that is not there any more is a [LostError].
func (l *Log) record(ctx context.Context, claim int64) (Commit, error) {
	return remembered(l.known, recordsOf, claim, func() (Commit, error) {
		name := Name{Claim: claim}
		record, _, err := l.Read(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			return Commit{}, &LostError{Workspace: l.name, Name: name}
		}
		return record, err
	})
}

func seenBy(record Commit) map[int64]int64 {
	seen := make(map[int64]int64, len(record.Seen))
	for _, n := range record.Seen {
		seen[n.Claim] = n.Number
	}
	return seen
}

// alive lists entries that no tombstone covers, newest first, of claims older than below if that is positive. A tombstone lists
// right before what it covers.
func (l *Log) alive(ctx context.Context, below int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range l.records(ctx, 0) {
			if err != nil {
				yield(Entry{}, l.wrap("list backups", err))
				return
			}
			if e.grave || (below == 0 || e.Name.Claim < below) && !yield(e, nil) {
				return
			}
		}
	}
}

func (l *Log) head(ctx context.Context) (head, error) {
	var h head
	for e, err := range l.records(ctx, 0) {
		if err != nil {
			return head{}, l.wrap("list backups", err)
		}
		if !e.grave {
			h.newest = e
			break
		}
		h.buried = max(h.buried, e.Name.Claim)
	}
	return h, nil
}

// scan lists all entries, dead ones as well, newest first, of claims older than below if that is positive.
func (l *Log) scan(ctx context.Context, below int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range l.records(ctx, below) {
			if !e.grave && !yield(e, err) {
				return
			}
		}
	}
}

// records lists entries and tombstones, newest first, of claims older than below if that is positive.
func (l *Log) records(ctx context.Context, below int64) iter.Seq2[Entry, error] {
	if l.listing == nil {
		return l.recordsBy(ctx, below, firstPage)
	}
	return func(yield func(Entry, error) bool) {
		for _, e := range since(l.listing, below) {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// recordsBy asks the store for records, with a first page of that many objects. Other objects are passed over.
func (l *Log) recordsBy(ctx context.Context, below int64, first int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := validID("workspace", l.name); err != nil {
			yield(Entry{}, err)
			return
		}
		after := ""
		if below > 0 {
			after = l.key(Name{Claim: below}) // the last key of that claim
		}
		prefix := l.domain.key("w/" + l.name + "/")
		for o, err := range l.domain.scanBy(ctx, prefix, after, first) {
			key := strings.TrimPrefix(o.Key, prefix)
			name, ok := parseNameKey(key)
			claim, grave := parseGraveKey(key)
			if grave {
				name = Name{Claim: claim}
			}
			if (err != nil || ok || grave) && !yield(Entry{Name: name, Modified: o.Modified, Size: o.Size, grave: grave}, err) {
				return
			}
		}
	}
}

func (l *Log) key(n Name) string { return l.domain.key("w/" + l.name + "/" + n.key()) }

// tombstoneKey is where a tombstone lies: among the entries, so that whoever looks for those finds it.
func (l *Log) tombstoneKey(claim int64) string {
	return l.domain.key("w/" + l.name + "/" + graveKey(claim))
}

// indexKey is where a copy of it lies, so that those of all workspaces can be listed.
func (l *Log) indexKey(claim int64) string { return l.domain.key("t/" + l.name + "/" + invert(claim)) }

func (l *Log) wrap(what string, err error) error {
	return fmt.Errorf("workspace %s in domain %s: %s: %w", l.name, l.domain.name, what, err)
}
