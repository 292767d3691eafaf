package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	probePrefix  = "probe/"
	probeWriters = 8
	probeRounds  = 3
	probeAge     = 24 * time.Hour
	// maxSkew is how far the clock that stamps objects may be from the one that tells the time.
	maxSkew = 5 * time.Minute
)

// Tested names the stores that are known to be fit, and how.
const Tested = "versitygw 1.8, fake-gcs-server 1.56 and directories on ext4 and XFS, which are tested; Amazon S3, Google Cloud Storage, MinIO " +
	"and Ceph RGW of today document what is needed"

// UnfitError says that a store does not keep what the engine relies on. Backups in it could be lost or overwritten.
type UnfitError struct {
	// Store is its URL.
	Store string
	// Failed is what it does not do.
	Failed string
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("the store %s cannot be used: %s. Use one of these: %s", e.Store, e.Failed, Tested)
}

// Fitness is what a probe found out about a store that is fit.
type Fitness struct {
	// Store is its URL.
	Store string
	// Skew is how far the store's clock is ahead of this node's.
	Skew time.Duration
}

// String is one line for people.
func (f Fitness) String() string {
	line := "store " + f.Store + ": ok (creates only what is absent, also when writers race; reads and lists what was just written; deletes)"
	if f.Skew.Abs() > maxSkew {
		line += fmt.Sprintf("; but its clock is %s from this node's", f.Skew.Round(time.Second))
	}
	return line
}

// Probe finds out by some forty small requests below "probe/" whether a store does what the engine relies on, and leaves nothing. It fails
// with an [*UnfitError] if not, and with another error if that could not be found out.
func Probe(ctx context.Context, s Store) (Fitness, error) {
	p := &probe{Store: s, run: probePrefix + strings.ToLower(rand.Text()) + "-"}
	steps := []func(context.Context) error{p.sweep, p.createOnly, p.clock, p.race, p.read, p.delete}
	for _, step := range steps {
		err := step(ctx)
		var unfit *UnfitError
		if err != nil && !errors.As(err, &unfit) {
			err = fmt.Errorf("find out what the store %s can do: %w", s, err)
		}
		if err != nil {
			return Fitness{}, errors.Join(err, s.Delete(context.WithoutCancel(ctx), p.keys...))
		}
	}
	return Fitness{Store: s.String(), Skew: p.skew}, nil
}

// probe is one run. Its keys are its own.
type probe struct {
	Store

	run  string
	keys []string
	skew time.Duration
}

func (p *probe) key(name string) string {
	key := p.run + name
	p.keys = append(p.keys, key)
	return key
}

func (p *probe) unfit(format string, args ...any) error {
	return &UnfitError{Store: p.String(), Failed: fmt.Sprintf(format, args...)}
}

// sweep removes what probes left that were killed a day ago or longer.
func (p *probe) sweep(ctx context.Context) error {
	objects, err := p.List(ctx, probePrefix, "", 0)
	if err != nil || len(objects) == 0 {
		return err
	}
	now, err := p.Now(ctx)
	if err != nil {
		return err
	}
	var old []string
	for _, o := range objects {
		if now.Sub(o.Modified) > probeAge {
			old = append(old, o.Key)
		}
	}
	return p.Delete(ctx, old...)
}

func (p *probe) createOnly(ctx context.Context) error {
	key := p.key("create")
	if err := p.Put(ctx, key, []byte("first")); err != nil {
		return err
	}
	err := p.Put(ctx, key, []byte("second"))
	switch {
	case err == nil:
		return p.unfit("it overwrites an object although it was told to create it only if it is absent")
	case !errors.Is(err, ErrExists):
		return err
	}
	return p.holds(ctx, key, "first", "after a write that it refused, it has not the object that was there before")
}

// holds compares an object with what it must be.
func (p *probe) holds(ctx context.Context, key, want, otherwise string) error {
	got, err := p.Get(ctx, key, maxIdentitySize)
	if errors.Is(err, ErrNotFound) {
		return p.unfit("it does not find an object that was just written")
	}
	if err != nil {
		return err
	}
	if string(got) != want {
		return p.unfit("%s", otherwise)
	}
	return nil
}

func (p *probe) clock(ctx context.Context) error {
	now, err := p.Now(ctx)
	if err != nil {
		return err
	}
	o, err := p.Stat(ctx, p.keys[0])
	if err != nil {
		return err
	}
	if apart := now.Sub(o.Modified).Abs(); apart > maxSkew {
		return p.unfit("its clock says %s, but an object written just now is from %s", now.Format(time.RFC3339), o.Modified.Format(time.RFC3339))
	}
	p.skew = time.Until(now)
	return nil
}

// race has writers create the same objects at once: some servers look first and write then.
func (p *probe) race(ctx context.Context) error {
	for round := range probeRounds {
		key := p.key(fmt.Sprintf("race-%d", round))
		errs := make([]error, probeWriters)
		var group sync.WaitGroup
		for w := range probeWriters {
			group.Go(func() { errs[w] = p.Put(ctx, key, racer(w)) })
		}
		group.Wait()
		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner >= 0:
				return p.unfit("of writers that create the same object at once, it lets more than one through")
			case err == nil:
				winner = w
			case !errors.Is(err, ErrExists):
				return err
			}
		}
		if winner < 0 {
			return p.unfit("of writers that create the same object at once, it lets none through")
		}
		if err := p.holds(ctx, key, string(racer(winner)), "of writers that create the same object at once, it keeps another one's than it says"); err != nil {
			return err
		}
	}
	return nil
}

func racer(w int) []byte { return fmt.Appendf(nil, "writer %d", w) }

// read looks at what the steps before have written, in all ways there are.
func (p *probe) read(ctx context.Context) error {
	objects, err := p.List(ctx, p.run, "", 0)
	if err != nil {
		return err
	}
	if len(objects) != len(p.keys) {
		return p.unfit("it lists %d objects where %d were just written", len(objects), len(p.keys))
	}
	if !slices.IsSortedFunc(objects, func(a, b Object) int { return cmp.Compare(a.Key, b.Key) }) {
		return p.unfit("it does not list objects in the order of their keys")
	}
	first := p.keys[0]
	if o := objects[0]; o.Key != first || o.Size != int64(len("first")) {
		return p.unfit("it lists %s with %d bytes where %s with %d was just written", o.Key, o.Size, first, len("first"))
	}
	page, err := p.List(ctx, p.run, first, 1)
	if err != nil {
		return err
	}
	if len(page) != 1 || page[0].Key != p.keys[1] {
		return p.unfit("asked for the object that follows another one in a listing, it gives something else")
	}
	part := make([]byte, 3)
	if err := p.Read(ctx, first, 1, part); err != nil {
		return err
	}
	if string(part) != "irs" {
		return p.unfit("asked for a range of an object, it gives something else")
	}
	return nil
}

func (p *probe) delete(ctx context.Context) error {
	if err := p.Delete(ctx, p.keys...); err != nil {
		return err
	}
	if _, err := p.Stat(ctx, p.keys[0]); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return err
		}
		return p.unfit("it still has an object that was just deleted")
	}
	objects, err := p.List(ctx, p.run, "", 0)
	if err != nil {
		return err
	}
	if len(objects) > 0 {
		return p.unfit("it still lists %d objects that were just deleted", len(objects))
	}
	return p.Delete(ctx, p.keys[0]) // a second time is no error
}
