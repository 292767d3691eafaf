package history

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

const (
	// DefaultWait is the usual time for which condemned packs stay.
	DefaultWait = 24 * time.Hour
	// MinWait is the least time for which condemned packs must stay.
	MinWait = time.Hour
	// sweptAge is how long it is told which packs were swept, to whoever stood still meanwhile.
	sweptAge = 7 * 24 * time.Hour
	// deletedAtOnce is how many packs go by one call.
	deletedAtOnce = 1000
)

// CollectOptions say what [Domain.Collect] may do.
type CollectOptions struct {
	// Wait is how old a pack must be to be condemned, and then how long it stays, by the store's clock. Outside of tests it is at
	// least [MinWait].
	Wait time.Duration
	// Delete lets packs be condemned and removed; without it nothing is written, and the report says what would be.
	Delete bool
}

// Collection is what [Domain.Collect] found and did. Sizes are in bytes.
type Collection struct {
	Packs     int64 `json:"packs"` // all that there are; 0 if nothing is due, because then they are not counted
	Bytes     int64 `json:"bytes"`
	Idle      int64 `json:"idle"` // that nothing needs, and that are old enough to be condemned, or are condemned already
	IdleBytes int64 `json:"idleBytes"`
	More      bool  `json:"more,omitempty"` // there are more idle ones, for a later run

	Condemned    int64     `json:"condemned"`              // by this run, or waiting from one before
	Due          time.Time `json:"due,omitzero"`           // when what is condemned may go
	Rescued      int64     `json:"rescued"`                // were condemned, and are needed after all
	Removed      int64     `json:"removed"`                // packs that went
	RemovedBytes int64     `json:"removedBytes"`           // of them
	Missing      []Need    `json:"missing,omitempty"`      // what is needed and not there: at most 10
	MissingCount int64     `json:"missingCount,omitempty"` // all of it
}

// Collect removes packs that no commit and no pin needs, in two steps a day apart: it condemns them, by a list in the store, and
// a later call removes those of the list that still nothing needs. In between, nobody begins to need them: whoever writes a commit
// or a pin reads the lists first. Any number of calls, of writers and of readers may run at the same time, none of them waits for
// another, and each may be ended at any point: the next call goes on. The store's clock counts, as long as this node's agrees with it.
//
// A commit or pin that cannot be read is an error that names it, and then nothing is removed.
func (d *Domain) Collect(ctx context.Context, o CollectOptions) (Collection, error) {
	c := &collection{domain: d, options: o, stock: stock{listed: map[packID]int64{}}}
	if err := c.run(ctx); err != nil {
		return c.report, fmt.Errorf("collect domain %s: %w", d.name, err)
	}
	return c.report, nil
}

// collection is one run.
type collection struct {
	domain  *Domain
	options CollectOptions
	report  Collection
	now     time.Time // by the store, before anything was read

	due     []condemned
	waiting int // lists that are not due
	stock   stock
}

// condemned is a list whose packs are to go.
type condemned struct {
	packList
	key string
}

func (c *collection) run(ctx context.Context) (err error) {
	clock := c.domain.now
	if c.options.Delete {
		clock = c.domain.agreed
	}
	if c.now, err = clock(ctx); err != nil {
		return err
	}
	if err := c.lists(ctx); err != nil {
		return err
	}
	if c.options.Delete && c.waiting > 0 {
		return nil // there is nothing to do before its time: one list at a time is enough, so that writers have few to read
	}
	n, err := c.domain.needs(ctx)
	if err != nil {
		return err
	}
	if err := c.stock.count(ctx, n, c.now.Add(-c.options.Wait)); err != nil {
		return err
	}
	c.notice(ctx, n)
	if len(c.stock.idle)+len(c.due) > 0 {
		if n.unborn {
			return errors.New("it has packs, and no backup, snapshot or tombstone at all: is all of it there? " +
				"If nothing of it was ever needed, remove its objects by hand")
		}
		// Again, because a listing can pass over a new commit while retention removes the one before it.
		if err := n.update(ctx); err != nil {
			return err
		}
		c.stock.spare(n)
	}
	c.count(n)
	if !c.options.Delete {
		return nil
	}
	return c.finish(ctx, n)
}

// lists reads what is condemned, and removes what was told long enough.
func (c *collection) lists(ctx context.Context) error {
	d := c.domain
	for o, err := range d.scanBy(ctx, d.key(listsPrefix), "", maxPage) {
		if err != nil {
			return fmt.Errorf("list what is condemned: %w", err)
		}
		switch {
		case strings.HasPrefix(o.Key, d.key(condemnedPrefix)):
			err = c.list(ctx, o)
		case strings.HasPrefix(o.Key, d.key(sweptPrefix)):
			if c.options.Delete && o.Modified.Add(sweptAge+c.options.Wait).Before(c.now) {
				err = d.store.Delete(ctx, o.Key)
			}
		default:
			err = fmt.Errorf("this version does not know what %s is: update ws-daemon, or remove it", o.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) list(ctx context.Context, o store.Object) error {
	l, err := c.domain.readList(ctx, o.Key)
	if errors.Is(err, store.ErrNotFound) {
		return nil // somebody else has swept it
	}
	if err != nil {
		return err
	}
	for _, p := range l.Packs {
		id, err := parsePackID(p)
		if err != nil {
			return damaged(o.Key, err)
		}
		c.stock.listed[id] = 0
	}
	due := o.Modified.Add(c.options.Wait)
	if !due.After(c.now) {
		c.due = append(c.due, condemned{l, o.Key})
		return nil
	}
	c.waiting++
	c.report.Condemned += int64(len(l.Packs))
	if due.After(c.report.Due) {
		c.report.Due = due
	}
	return nil
}

// notice reports what is needed and is not there.
func (c *collection) notice(ctx context.Context, n *needs) {
	missing := n.missing()
	c.report.MissingCount = int64(len(missing))
	if len(missing) > 0 {
		c.report.Missing = c.domain.WhoNeeds(ctx, missing[:min(len(missing), 10)])
	}
}

func (c *collection) count(n *needs) {
	r, s := &c.report, &c.stock
	r.Packs, r.Bytes, r.More = s.packs, s.bytes, s.more
	for _, p := range s.idle {
		r.Idle, r.IdleBytes = r.Idle+1, r.IdleBytes+p.size
	}
	for id, size := range s.listed {
		if size > 0 && !n.has(id) {
			r.Idle, r.IdleBytes = r.Idle+1, r.IdleBytes+size
		}
	}
}

// finish condemns what is idle, and sweeps what is due, once the new list has shown that the store still dates objects as it did.
func (c *collection) finish(ctx context.Context, n *needs) error {
	if err := c.condemn(ctx); err != nil {
		return fmt.Errorf("condemn packs: %w", err)
	}
	for _, l := range c.due {
		if err := c.sweep(ctx, l, n); err != nil {
			return err
		}
	}
	return nil
}

// condemn writes the list of what is idle. An empty one says when to look again.
func (c *collection) condemn(ctx context.Context) error {
	l := packList{ID: c.domain.newID(), Packs: make([]string, 0, len(c.stock.idle))}
	for _, p := range c.stock.idle {
		l.Packs = append(l.Packs, p.id.String())
	}
	faults.Point("collect.condemn")
	key, err := c.domain.writeList(ctx, condemnedPrefix, l)
	if err == nil {
		err = c.dated(ctx, key)
	}
	if err != nil {
		return err
	}
	c.report.Condemned, c.report.Due = int64(len(l.Packs)), c.now.Add(c.options.Wait)
	return nil
}

// dated takes a list back that the store dates differently than it tells the time: it would be due too early.
func (c *collection) dated(ctx context.Context, key string) error {
	o, err := c.domain.store.Stat(ctx, key)
	if err != nil {
		return err
	}
	if err := c.domain.agrees(o.Modified); err != nil {
		return errors.Join(err, c.domain.store.Delete(ctx, key))
	}
	return nil
}

// sweep removes what is in a list and not needed after all. The list is told again before that is done and before it goes, so that
// at no time a writer could take what went for what is there. All of it is: what this run found to be needed, another one, which
// looked earlier, may still be about to remove.
func (c *collection) sweep(ctx context.Context, l condemned, n *needs) error {
	var keys []string
	bytes := int64(0)
	for _, p := range l.Packs {
		id, _ := parsePackID(p)
		if n.has(id) {
			c.report.Rescued++
			continue
		}
		keys = append(keys, c.domain.packKey(Pack{ID: p}))
		bytes += c.stock.listed[id]
	}
	if len(l.Packs) > 0 {
		if _, err := c.domain.writeList(ctx, sweptPrefix, l.packList); err != nil {
			return fmt.Errorf("tell what is swept: %w", err)
		}
	}
	faults.Point("collect.told")
	for at := 0; at < len(keys); at += deletedAtOnce {
		if err := c.domain.store.Delete(ctx, keys[at:min(at+deletedAtOnce, len(keys))]...); err != nil {
			return fmt.Errorf("remove packs: %w", err)
		}
		faults.Point("collect.removing")
	}
	c.report.Removed, c.report.RemovedBytes = c.report.Removed+int64(len(keys)), c.report.RemovedBytes+bytes
	if err := c.domain.store.Delete(ctx, l.key); err != nil {
		return fmt.Errorf("remove the list of what was swept: %w", err)
	}
	return nil
}
