package content

import (
	"context"
	"errors"
	"slices"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// prune applies retention and counts what is left. That it fails does not undo the backup, so it is noted, not returned;
// except that we were fenced.
func (k *Keeper) prune(ctx context.Context, r SaveRequest, domain *history.Domain, log *history.Log) error {
	trouble := ""
	err := k.retain(ctx, r, domain, log)
	if errors.Is(err, history.ErrFenced) {
		return err
	}
	if err != nil {
		trouble = err.Error()
	}
	return k.record(r.Subject, func(e *state.Entry) { e.Backup.Retention = trouble })
}

// retain also keeps forks: commits that a former owner had under way when we took over. It lists the history once, unless it is given one
// that is listed.
func (k *Keeper) retain(ctx context.Context, r SaveRequest, domain *history.Domain, log *history.Log) error {
	log, err := log.Listed(ctx)
	if err != nil {
		return err
	}
	var gone []history.Name
	err = k.keepForks(ctx, r.Subject, domain, log)
	if err == nil && r.Keep.Last > 0 {
		gone, err = log.Prune(ctx, r.Claim, r.Keep)
	}
	if err != nil && !errors.Is(err, history.ErrLost) { // without the claim's record nothing is removed, which is no failure
		return err
	}
	return k.count(ctx, r.Subject, log, gone)
}

// count notes how many backups a log lists, apart from those that are gone.
func (k *Keeper) count(ctx context.Context, s Subject, log *history.Log, gone []history.Name) error {
	entries, err := log.Entries(ctx)
	if err != nil {
		return err
	}
	return k.record(s, func(e *state.Entry) {
		e.Backup.Count, e.Backup.Oldest = 0, ""
		for _, entry := range entries {
			if !entry.Name.IsClaim() && !slices.Contains(gone, entry.Name) {
				e.Backup.Count++
				e.Backup.Oldest = entry.Name.String()
			}
		}
	})
}

// keepForks pins the commits of former owners that are no ancestors of ours, so that retention cannot lose them.
func (k *Keeper) keepForks(ctx context.Context, s Subject, domain *history.Domain, log *history.Log) error {
	forks, err := log.Forks(ctx, s.Claim)
	if err != nil {
		return err
	}
	for _, fork := range forks {
		c, _, err := log.Read(ctx, fork.Name)
		if history.Gone(err) {
			continue // retention keeps what it cannot read
		}
		if err != nil {
			return err
		}
		id := history.ForkID(s.Name, fork.Name)
		pin, err := k.strayPin(ctx, c.Owner.Node)
		if err != nil {
			return err
		}
		err = domain.Pin(ctx, id, c, pin)
		if history.Gone(err) {
			continue // it lacks something, and stays as it is
		}
		if err != nil {
			return err
		}
		if err := k.record(s, func(e *state.Entry) { e.Fork = id }); err != nil {
			return err
		}
	}
	return nil
}
