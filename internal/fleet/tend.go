package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

const (
	// TendInterval is how often a store is tended.
	TendInterval = time.Hour
	// trialInterval is how often packs that nothing needs are counted while none may be removed.
	trialInterval = 24 * time.Hour
	// Controller is who has the turn while there is a controller.
	Controller = "controller"
)

// Rules are what the configuration says of tending the store.
type Rules struct {
	// Grace is how long backups of deleted workspaces stay.
	Grace      time.Duration
	Collection history.CollectOptions
}

// Tended is what was found in the domains of a cluster together.
type Tended struct {
	// Mine says that it was this one's turn; if not, nothing was looked at.
	Mine bool
	// Domains that were visited.
	Domains int
	// Counted says that packs were counted in this hour; then the rest is known. It takes all commits to be read, which collection does once
	// a day.
	Counted bool
	// Packs and Bytes are all that there are, Idle and IdleBytes what of them nothing needs, Missing how many are needed and not there.
	Packs, Bytes, Idle, IdleBytes, Missing int64
}

// keeper looks after the domains of a store.
type keeper interface {
	Tend(ctx context.Context, domain string, grace time.Duration) (int, error)
	Collect(ctx context.Context, domain string, o history.CollectOptions) (history.Collection, error)
}

// Tender removes from a store what has had its time, in all domains of a cluster. One does that in an hour, chosen by the store: see
// [history.TakeTurn]. The controller takes its turns ahead, so that as long as it lives no daemon has one.
type Tender struct {
	Store   store.Store
	Cluster string
	// Who is the name of the node, or Controller.
	Who     string
	Domains keeper
	// Missing is told of packs that backups need and that are not there; it may be nil.
	Missing func(domain string, found history.Collection)

	counted time.Time // when the controller has counted last
}

// Tend makes a round, if it is this one's turn.
func (t *Tender) Tend(ctx context.Context, logger logr.Logger, rules Rules) (Tended, error) {
	mine, err := t.turn(ctx, t.Cluster, TendInterval)
	if !mine {
		return Tended{}, err
	}
	errs := []error{err, store.Sweep(ctx, t.Store)}
	domains, err := history.Domains(ctx, t.Store)
	errs = append(errs, err)
	counting, err := t.counts(ctx, rules)
	errs = append(errs, err)
	tended := Tended{Mine: true, Counted: counting && err == nil}
	for _, domain := range domains {
		removed, err := t.Domains.Tend(ctx, domain, rules.Grace)
		if errors.Is(err, history.ErrOtherCluster) {
			continue // that one tends it
		}
		tended.Domains++
		if removed > 0 {
			logger.Info("removed backups of deleted workspaces and expired snapshots", "domain", domain, "count", removed)
		}
		if counting && err == nil { // after what has had its time
			err = t.collect(ctx, logger, domain, rules, &tended)
		}
		tended.Counted = tended.Counted && err == nil
		errs = append(errs, err)
	}
	return tended, errors.Join(errs...)
}

// Hold takes the turns without making a round.
func (t *Tender) Hold(ctx context.Context) error {
	_, err := t.turn(ctx, t.Cluster, TendInterval)
	return err
}

func (t *Tender) turn(ctx context.Context, what string, period time.Duration) (bool, error) {
	if t.Who == Controller {
		return history.HoldTurn(ctx, t.Store, what, t.Who, period)
	}
	return history.TakeTurn(ctx, t.Store, what, t.Who, period)
}

// counts says whether packs are looked at in this hour. Counting them reads every commit, which collection does once a day by
// its own lists; a trial has no lists, so the store gives it a turn a day.
func (t *Tender) counts(ctx context.Context, rules Rules) (bool, error) {
	if rules.Collection.Delete {
		return true, nil
	}
	what := t.Cluster + ".collect"
	if t.Who != Controller {
		return history.TakeTurn(ctx, t.Store, what, t.Who, trialInterval)
	}
	mine, err := history.HoldTurn(ctx, t.Store, what, t.Who, trialInterval) // the turn of all replicas: a new leader counts anew
	if !mine || time.Since(t.counted) < trialInterval {
		return false, err
	}
	t.counted = time.Now()
	return true, err
}

// collect removes the packs of a domain that no backup needs, or only says how many there are.
func (t *Tender) collect(ctx context.Context, logger logr.Logger, domain string, rules Rules, tended *Tended) error {
	found, err := t.Domains.Collect(ctx, domain, rules.Collection)
	logger = logger.WithValues("domain", domain)
	switch {
	case found.Removed > 0:
		logger.Info("removed packs that no backup needs", "packs", found.Removed, "bytes", found.RemovedBytes)
	case found.Idle > 0 && !rules.Collection.Delete:
		logger.Info("no backup needs some packs; content.collect.delete removes them", "packs", found.Idle, "bytes", found.IdleBytes)
	}
	tended.Packs, tended.Bytes = tended.Packs+found.Packs, tended.Bytes+found.Bytes
	tended.Idle, tended.IdleBytes, tended.Missing = tended.Idle+found.Idle, tended.IdleBytes+found.IdleBytes, tended.Missing+found.MissingCount
	if found.Packs == 0 && rules.Collection.Delete {
		tended.Counted = false // nothing was due, and nothing counted
	}
	if found.MissingCount > 0 {
		if t.Missing != nil {
			t.Missing(domain, found)
		}
		err = errors.Join(err, missing(domain, found))
	}
	return err
}

// missing says what backups need and is not there.
func missing(domain string, found history.Collection) error {
	needs := make([]string, 0, len(found.Missing))
	for _, need := range found.Missing {
		needs = append(needs, need.String())
	}
	return fmt.Errorf("domain %s lacks %d packs that backups need: %s", domain, found.MissingCount, strings.Join(needs, ". "))
}
