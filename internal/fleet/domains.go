package fleet

import (
	"context"
	"sync"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// Domains are those of a cluster in a store, for who has no node.
type Domains struct {
	Store store.Store
	// Cluster is the UID of the namespace kube-system.
	Cluster string
	// Adopt lets domains be used that another cluster has made.
	Adopt bool

	collected history.Cache
	mu        sync.Mutex
	store     string // its identity, once it is known
}

// open opens a domain of the store that was used first: one that was swapped meanwhile is not to be written to.
func (d *Domains) open(ctx context.Context, name string) (*history.Domain, error) {
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	domain, err := history.OpenDomain(ctx, d.Store, name, d.Cluster, d.Adopt)
	if err != nil {
		return nil, err
	}
	return domain.Sharing(&d.collected), nil
}

func (d *Domains) check(ctx context.Context) error {
	id, err := store.Identity(ctx, d.Store)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.store == "" {
		d.store = id
	}
	if d.store != id {
		return &swappedError{d.Store.String(), d.store, id}
	}
	return nil
}

// Tend removes what has had its time: see [history.Domain.Purge].
func (d *Domains) Tend(ctx context.Context, name string, grace time.Duration) (int, error) {
	domain, err := d.open(ctx, name)
	if err != nil {
		return 0, err
	}
	return domain.Purge(ctx, grace)
}

// Collect removes packs that nothing needs: see [history.Domain.Collect].
func (d *Domains) Collect(ctx context.Context, name string, o history.CollectOptions) (history.Collection, error) {
	domain, err := d.open(ctx, name)
	if err != nil {
		return history.Collection{}, err
	}
	return domain.Collect(ctx, o)
}

// Bury writes the tombstone of a workspace under its last claim: see [history.Log.Bury].
func (d *Domains) Bury(ctx context.Context, name, workspace string, claim int64) error {
	domain, err := d.open(ctx, name)
	if err != nil {
		return err
	}
	return domain.Workspace(workspace).Bury(ctx, claim)
}

// swappedError says that there is another store where one was.
type swappedError struct{ at, before, now string }

func (e *swappedError) Error() string {
	return "the store " + e.at + " has the identity " + e.now + ", and had " + e.before + " before: restart the controller if that is right"
}
