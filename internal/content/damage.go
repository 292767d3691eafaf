package content

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

const (
	// searchTime is how long may be looked for who needs what is damaged; what was found until then is told.
	searchTime = time.Minute
	// searchedPacks is how many packs are looked for at once: where more are damaged, it is all of the store that needs a look.
	searchedPacks = 10
	// searchAgain is how long an answer is good for. Whoever retries does not ask again.
	searchAgain = time.Hour
)

// Damage is something that was found to be missing in the store, or not to be as it was written.
type Damage struct {
	Domain string
	// Err is what was found.
	Err error
	// Needs says which backups and snapshots it concerns.
	Needs []history.Need
}

// String names the object and whom it concerns.
func (d Damage) String() string {
	parts := append(make([]string, 0, 1+len(d.Needs)), fmt.Sprintf("domain %s: %v", d.Domain, d.Err))
	for _, n := range d.Needs {
		parts = append(parts, n.String())
	}
	return strings.Join(parts, ". ") + ". Bring the object back from a copy of the store; backups that are made from now on do without it"
}

// damages is what a process knows of damaged objects: of packs by id, of others by what was found.
type damages struct {
	mu    sync.Mutex
	known map[string]knownNeed
}

type knownNeed struct {
	history.Need
	found time.Time
}

// lately returns what was found out about objects; false if that was not lately, of one of them at least.
func (d *damages) lately(objects []string, now time.Time) ([]history.Need, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	needs := make([]history.Need, len(objects))
	for i, id := range objects {
		known, ok := d.known[id]
		if !ok || now.Sub(known.found).Abs() > searchAgain {
			return nil, false
		}
		needs[i] = known.Need
	}
	return needs, true
}

func (d *damages) note(object string, need history.Need, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = map[string]knownNeed{}
	}
	d.known[object] = knownNeed{need, now}
}

// withNeeds adds to a *DamagedError who else needs what is damaged.
func (k *Keeper) withNeeds(ctx context.Context, domain *history.Domain, err error) error {
	if damaged, ok := errors.AsType[*DamagedError](err); ok {
		damaged.Needs = k.tell(ctx, domain, damaged.Err)
	}
	return err
}

// tell finds out whom it concerns that objects are missing or damaged, and tells of those that it has not told of lately. What is being
// collected goes as it should, and so may a record that is absent.
func (k *Keeper) tell(ctx context.Context, domain *history.Domain, err error) []history.Need {
	packs := lostPacks(err)
	packs = packs[:min(len(packs), searchedPacks)]
	if err == nil || errors.Is(err, history.ErrCondemned) || len(packs) == 0 && !errors.Is(err, history.ErrDamaged) {
		return nil
	}
	objects := packs
	if len(packs) == 0 {
		objects = []string{err.Error()}
	}
	if needs, known := k.damages.lately(objects, k.Now()); known {
		return needs[:len(packs)]
	}
	limited, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	needs := domain.WhoNeeds(limited, packs)
	for i, object := range objects {
		var need history.Need
		if i < len(needs) {
			need = needs[i]
		}
		k.damages.note(object, need, k.Now())
	}
	if k.Damaged != nil {
		k.Damaged(Damage{Domain: domain.Name(), Err: err, Needs: needs})
	}
	return needs
}

// lostPacks returns the packs that an error says are missing or damaged, each once.
func lostPacks(err error) []string {
	var packs []string
	note := func(id string) {
		if !slices.Contains(packs, id) {
			packs = append(packs, id)
		}
	}
	walk(err, func(err error) {
		switch e := err.(type) { //nolint:errorlint // walk goes through all that an error wraps
		case *history.PackError:
			note(e.ID)
		case *archive.PackError:
			note(e.Pack.String())
		case *archive.DamageError:
			for _, id := range e.Packs {
				note(id.String())
			}
		}
	})
	return packs
}

// walk visits an error and all that it wraps.
func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) { //nolint:errorlint // it asks for methods, not for a kind of error
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			walk(err, visit)
		}
	}
}

// lostError is that several packs are missing or damaged.
type lostError []error

func (e lostError) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	return fmt.Sprintf("%v; and %d more packs are missing or damaged", e[0], len(e)-1)
}

func (e lostError) Unwrap() []error { return e }
