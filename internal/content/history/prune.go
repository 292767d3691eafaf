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
	unknown  bool // damaged, or nobody can tell whether it is a fork: it stays and counts nowhere
}

// Prune removes backups that keep does not ask for and returns their names. Only the owner of the newest claim may, once it
// has a complete backup of its own. The newest one stays whatever keep says, and so do forks until somebody pinned them. What is
// damaged stays as well, in place of none that can be read. After [Log.Extend] the newest one that was listed stays, too: if somebody has
// taken over since, he goes on from that.
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
	blind := errors.Is(err, ErrDamaged) // our own claim's record does not tell forks from history
	if err != nil && !blind {
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
		older := e.Name.Claim < claim
		c.fork = !blind && older && e.Name.Number > seen[e.Name.Claim]
		c.unknown = blind && older
		if err := l.describe(ctx, &c); err != nil {
			return nil, err
		}
		forks = forks || c.fork
		candidates = append(candidates, c)
	}
	if !forks {
		return candidates, nil
	}
	return candidates, l.markPinned(ctx, candidates)
}

// describe reads what only a backup itself says. One that is damaged must not keep the others from going.
func (l *Log) describe(ctx context.Context, c *candidate) error {
	if c.Name.IsClaim() || c.unknown {
		return nil
	}
	what, err := remembered(l.known, backupsOf, c.Name, func() (fact, error) {
		commit, _, err := l.Read(ctx, c.Name)
		return fact{commit.ID, commit.Complete()}, err
	})
	if Gone(err) {
		c.unknown = true
		return nil
	}
	c.complete, c.id = what.complete, what.id
	return err
}

// markPinned reads all pins of the domain, which is acceptable because forks are rare and go away once pinned. A damaged pin
// holds nothing.
func (l *Log) markPinned(ctx context.Context, candidates []candidate) error {
	pins, err := l.domain.Pins(ctx, "")
	if err != nil {
		return err
	}
	pinned := map[string]bool{}
	for _, p := range pins {
		record, err := l.domain.Pinned(ctx, p.ID)
		if err == nil {
			pinned[record.Commit.ID] = true
		} else if !Gone(err) {
			return err
		}
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
		case c.unknown, c.fork && !c.pinned:
			kept[c.Name] = true // not counted: it must not displace one of ours
		case c.complete:
			complete = append(complete, c)
		}
	}
	last := max(keep.Last, 1)
	if len(complete) > 0 && complete[0].appended {
		last = max(last, 2)
	}
	for _, c := range complete[:min(len(complete), last)] {
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
		if c.appended {
			continue // it is of no day yet, and stays as the newest one
		}
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
		if c.complete || c.unknown || c.Name.IsClaim() {
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

// grave is a tombstone whose time has come.
type grave struct {
	claim int64
	dug   time.Time
}

// Purge removes the backups of workspaces that were deleted longer than grace ago with the pins that keep parts of their history,
// and pins that have expired, all by the store's clock, as long as this node's agrees with it. It returns how many objects went. Packs stay for the collector, and so do
// tombstones.
func (d *Domain) Purge(ctx context.Context, grace time.Duration) (int, error) {
	now, err := d.agreed(ctx)
	if err != nil {
		return 0, err
	}
	graves, dead, deadErr := d.purgeBuried(ctx, now.Add(-grace))
	pins, pinErr := d.purgePins(ctx, now, graves)
	return dead + pins, errors.Join(deadErr, pinErr)
}

// purgeBuried goes on after an error: one damaged tombstone must not keep the rest. It returns the graves that it found, by
// workspace.
func (d *Domain) purgeBuried(ctx context.Context, before time.Time) (map[string][]grave, int, error) {
	var errs []error
	graves := map[string][]grave{}
	removed := 0
	prefix := d.key("t/")
	for o, err := range d.scan(ctx, prefix) {
		if err != nil {
			return graves, removed, errors.Join(append(errs, fmt.Errorf("purge domain %s: %w", d.name, err))...)
		}
		workspace, inverted, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		claim, ok := revert(inverted)
		if !ok || o.Modified.After(before) {
			continue
		}
		graves[workspace] = append(graves[workspace], grave{claim, o.Modified})
		n, err := d.Workspace(workspace).purge(ctx, claim)
		removed += n
		errs = append(errs, err)
	}
	return graves, removed, errors.Join(errs...)
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
	for _, key := range []string{l.indexKey(claim), l.tombstoneKey(claim)} {
		data, err := fetch(ctx, l.domain.store, key)
		if err != nil {
			return fmt.Errorf("read tombstone %s: %w", key, err)
		}
		var t tombstone
		if err := decode(key, data, &t); err != nil {
			return err
		}
		if t.Domain != l.domain.name || t.Workspace != l.name || t.Claim != claim {
			return damaged(key, fmt.Errorf("it says it is of claim %d of workspace %q in domain %q", t.Claim, t.Workspace, t.Domain))
		}
	}
	return nil
}

func (d *Domain) purgePins(ctx context.Context, now time.Time, graves map[string][]grave) (int, error) {
	pins, err := d.Pins(ctx, "")
	if err != nil {
		return 0, err
	}
	var errs []error
	removed := 0
	for _, p := range pins {
		gone, err := d.purgePin(ctx, p, now, graves)
		errs = append(errs, err)
		if gone {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

func (d *Domain) purgePin(ctx context.Context, p PinEntry, now time.Time, graves map[string][]grave) (bool, error) {
	record, err := d.Pinned(ctx, p.ID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil // removed meanwhile
	}
	if err != nil {
		return false, err
	}
	over := !record.Expires.IsZero() && !record.Expires.After(now)
	if !over {
		over, err = d.buriedWith(ctx, p, record, graves[record.Commit.Workspace])
	}
	if err != nil || !over {
		return false, err
	}
	return true, d.Unpin(ctx, p.ID)
}

// buriedWith says whether a pin went to the grave with its workspace. One that was made after the burial is of a new life of
// that name, which may have gone back to what the old one left.
func (d *Domain) buriedWith(ctx context.Context, p PinEntry, record PinnedCommit, graves []grave) (bool, error) {
	if !record.ofHistory() {
		return false, nil
	}
	for _, g := range graves {
		if record.Commit.Name.Claim <= g.claim && !p.Modified.After(g.dug) {
			err := d.Workspace(record.Commit.Workspace).checkTombstone(ctx, g.claim)
			return err == nil, err
		}
	}
	return false, nil
}
