package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// Keep says which backups retention leaves.
type Keep struct {
	Last  int // this many newest complete ones; at least 1
	Daily int // and the newest complete one of each of this many last days (UTC) that have any
}

// candidate is an entry with what retention needs to know of it.
type candidate struct {
	Entry
	id       string
	complete bool
	fork     bool
	pinned   bool
}

// Prune removes backups that keep does not ask for and returns their names. Only the owner of the newest claim may, once it
// has a complete backup of its own. The newest one stays whatever keep says, and so do forks until somebody pinned them.
func (l *Log) Prune(ctx context.Context, claim int64, keep Keep) ([]Name, error) {
	h, err := l.head(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.fence(ctx, h, claim); err != nil {
		return nil, err
	}
	candidates, err := l.candidates(ctx, claim)
	if err != nil {
		return nil, err
	}
	names := expendable(candidates, keep)
	keys := make([]string, 0, len(names))
	for _, n := range names {
		keys = append(keys, l.key(n))
	}
	if len(keys) == 0 {
		return nil, nil
	}
	if err := l.domain.store.Delete(ctx, keys...); err != nil {
		return nil, l.wrap("prune", err)
	}
	return names, nil
}

func (l *Log) candidates(ctx context.Context, claim int64) ([]candidate, error) {
	seen, err := l.seen(ctx, claim)
	if err != nil {
		return nil, err
	}
	entries, err := l.Entries(ctx)
	if err != nil {
		return nil, err
	}
	candidates := make([]candidate, 0, len(entries))
	forks := false
	for _, e := range entries {
		c := candidate{Entry: e}
		c.fork = e.Name.Claim < claim && e.Name.Number > seen[e.Name.Claim]
		forks = forks || c.fork
		if !e.Name.IsClaim() {
			commit, _, err := l.Read(ctx, e.Name)
			if err != nil {
				return nil, err
			}
			c.complete, c.id = commit.Complete(), commit.ID
		}
		candidates = append(candidates, c)
	}
	if !forks {
		return candidates, nil
	}
	return candidates, l.markPinned(ctx, candidates)
}

// markPinned reads all pins of the domain, which is acceptable because forks are rare and go away once pinned.
func (l *Log) markPinned(ctx context.Context, candidates []candidate) error {
	pins, err := l.domain.Pins(ctx, "")
	if err != nil {
		return err
	}
	pinned := map[string]bool{}
	for _, p := range pins {
		record, err := l.domain.Pinned(ctx, p.ID)
		if err != nil {
			return err
		}
		pinned[record.Commit.ID] = true
	}
	for i := range candidates {
		candidates[i].pinned = pinned[candidates[i].id]
	}
	return nil
}

// expendable returns what may go, newest first; candidates are all entries alive, newest first.
func expendable(candidates []candidate, keep Keep) []Name {
	at := newestOwn(candidates)
	if at < 0 || candidates[at].Name.Claim != candidates[0].Name.Claim {
		return nil // whatever the claim goes on from, maybe an old backup, is still needed
	}
	kept := map[Name]bool{}
	keepComplete(kept, candidates, keep)
	keepIncomplete(kept, candidates, keep)
	keepClaims(kept, candidates)
	var names []Name
	for _, c := range candidates {
		if !kept[c.Name] {
			names = append(names, c.Name)
		}
	}
	return names
}

func keepComplete(kept map[Name]bool, candidates []candidate, keep Keep) {
	var complete []candidate
	for _, c := range candidates {
		switch {
		case c.fork && !c.pinned:
			kept[c.Name] = true // not counted: it must not displace one of ours
		case c.complete:
			complete = append(complete, c)
		}
	}
	for _, c := range complete[:min(len(complete), max(keep.Last, 1))] {
		kept[c.Name] = true
	}
	for _, name := range newestOfDays(complete, keep.Daily) {
		kept[name] = true
	}
}

// newestOfDays returns the newest of each of the last days, by the store's clock.
func newestOfDays(complete []candidate, days int) []Name {
	newest := map[string]Name{}
	var order []string
	for _, c := range complete {
		day := c.Modified.UTC().Format(time.DateOnly)
		if _, taken := newest[day]; !taken {
			newest[day] = c.Name
			order = append(order, day)
		}
	}
	slices.Sort(order)
	slices.Reverse(order)
	order = order[:min(len(order), max(days, 0))]
	names := make([]Name, 0, len(order))
	for _, day := range order {
		names = append(names, newest[day])
	}
	return names
}

func newestOwn(candidates []candidate) int {
	return slices.IndexFunc(candidates, func(c candidate) bool { return c.complete && !c.fork })
}

// keepIncomplete keeps the last incomplete ones. They are counted apart: they displace no complete one, and a file that
// can never be read does not make the store grow for ever.
func keepIncomplete(kept map[Name]bool, candidates []candidate, keep Keep) {
	count := 0
	for _, c := range candidates {
		if c.complete || c.Name.IsClaim() {
			continue
		}
		count++
		if count <= max(keep.Last, 1) {
			kept[c.Name] = true
		}
	}
}

// keepClaims keeps the records of claims that still have commits, and the newest.
func keepClaims(kept map[Name]bool, candidates []candidate) {
	used := map[int64]bool{}
	for name := range kept {
		used[name.Claim] = true
	}
	newest := true
	for _, c := range candidates {
		if !c.Name.IsClaim() {
			continue
		}
		if newest || used[c.Name.Claim] {
			kept[c.Name] = true
		}
		newest = false
	}
}

// Purge removes the backups of workspaces that were deleted longer than grace ago, and pins that have expired, both by
// the store's clock. It returns how many objects went. Packs stay for the collector, and so do tombstones.
func (d *Domain) Purge(ctx context.Context, grace time.Duration) (int, error) {
	now, err := d.now(ctx)
	if err != nil {
		return 0, err
	}
	dead, deadErr := d.purgeBuried(ctx, now.Add(-grace))
	pins, pinErr := d.purgePins(ctx, now)
	return dead + pins, errors.Join(deadErr, pinErr)
}

// purgeBuried goes on after an error: one damaged tombstone must not keep the rest.
func (d *Domain) purgeBuried(ctx context.Context, before time.Time) (int, error) {
	var errs []error
	removed := 0
	prefix := d.key("t/")
	for o, err := range d.scan(ctx, prefix, "") {
		if err != nil {
			return removed, errors.Join(append(errs, fmt.Errorf("purge domain %s: %w", d.name, err))...)
		}
		workspace, inverted, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		claim, ok := revert(inverted)
		if !ok || o.Modified.After(before) {
			continue
		}
		n, err := d.Workspace(workspace).purge(ctx, claim)
		removed += n
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// purge removes what the tombstone of a claim covers.
func (l *Log) purge(ctx context.Context, claim int64) (int, error) {
	var keys []string
	for e, err := range l.scan(ctx, claim+1) {
		if err != nil {
			return 0, l.wrap("purge", err)
		}
		keys = append(keys, l.key(e.Name))
	}
	if len(keys) == 0 {
		return 0, nil
	}
	if err := l.checkTombstone(ctx, claim); err != nil {
		return 0, l.wrap("purge", err)
	}
	if err := l.domain.store.Delete(ctx, keys...); err != nil {
		return 0, l.wrap("purge", err)
	}
	return len(keys), nil
}

// checkTombstone makes sure that somebody meant this workspace to be deleted: a name alone is not enough.
func (l *Log) checkTombstone(ctx context.Context, claim int64) error {
	key := l.tombstoneKey(claim)
	data, err := fetch(ctx, l.domain.store, key)
	if err != nil {
		return err
	}
	var t tombstone
	if err := decode(key, data, &t); err != nil {
		return err
	}
	if t.Domain != l.domain.name || t.Workspace != l.name || t.Claim != claim {
		return damaged(key, fmt.Errorf("it says it is of claim %d of workspace %q in domain %q", t.Claim, t.Workspace, t.Domain))
	}
	return nil
}

func (d *Domain) purgePins(ctx context.Context, now time.Time) (int, error) {
	pins, err := d.Pins(ctx, "")
	if err != nil {
		return 0, err
	}
	var errs []error
	removed := 0
	for _, p := range pins {
		gone, err := d.purgePin(ctx, p.ID, now)
		errs = append(errs, err)
		if gone {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

func (d *Domain) purgePin(ctx context.Context, id string, now time.Time) (bool, error) {
	record, err := d.Pinned(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil // removed meanwhile
	}
	if err != nil || record.Expires.IsZero() || record.Expires.After(now) {
		return false, err
	}
	return true, d.Unpin(ctx, id)
}
