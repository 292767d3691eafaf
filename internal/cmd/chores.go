package cmd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/fleet"
	"wsdaemon.dev/ws-daemon/internal/health"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// errAreaIsBack ends a daemon that began without its disk: the next start opens it.
var errAreaIsBack = errors.New("the working area is there now: ending, to start anew with it")

// errWentBack ends a daemon whose API server was restored from an older copy: what its caches hold will never be corrected by
// a watch. The next start reads everything anew.
var errWentBack = errors.New("the API server has gone back in time, as after a restore from a copy: ending, to start anew")

const (
	tendInterval = fleet.TendInterval
	areaInterval = 5 * time.Second
)

// chores are what the daemon does beside reconciling.
type chores struct {
	workspaces *controllers.WorkspaceReconciler
	found      []content.Subject

	mu    sync.Mutex
	rules fleet.Rules
}

func newChores(cfg config.Config, workspaces *controllers.WorkspaceReconciler, found []content.Subject) *chores {
	c := &chores{workspaces: workspaces, found: found}
	c.configure(cfg)
	return c
}

// configure takes over what may change, for the next hour.
func (c *chores) configure(cfg config.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = rulesOf(cfg)
}

// rulesOf is what a configuration says of tending the store.
func rulesOf(cfg config.Config) fleet.Rules {
	return fleet.Rules{
		Grace:      cfg.Content.TombstoneGrace.Duration,
		Collection: history.CollectOptions{Delete: cfg.Content.Collect.Delete, Wait: cfg.Content.Collect.Wait.Duration},
	}
}

func (c *chores) now() fleet.Rules {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rules
}

// wake has everything looked at that lay on the node at the start, also what no object asks for any more.
func (c *chores) wake(ctx context.Context) error {
	names := map[types.NamespacedName]bool{}
	for _, s := range c.found {
		names[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = true
	}
	for _, e := range c.workspaces.Keeper.Area.Journal().List() {
		names[types.NamespacedName{Namespace: e.Namespace, Name: e.Name}] = true
	}
	for name := range names {
		select {
		case <-ctx.Done():
			return nil
		case c.workspaces.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: name}:
		}
	}
	return nil
}

// tend removes from the store, now and then, what has had its time.
func (c *chores) tend(ctx context.Context) error {
	logger := log.FromContext(ctx).WithName("tend")
	wait.JitterUntilWithContext(ctx, func(ctx context.Context) {
		if err := c.tendStore(ctx, logger); err != nil && ctx.Err() == nil {
			logger.Error(err, "the store could not be tended; what has had its time stays until the next hour")
		}
	}, tendInterval, 0.1, true)
	return nil
}

// tendStore visits every domain of this cluster, also of namespaces that have no workspace, or are gone. One node does that in
// an hour, chosen by the store: it costs the same on one node as on a thousand, needs no list of nodes that may be wrong, and a
// node that is down only loses its turn. Ages are days, so an hour without anybody's turn does no harm. Where there is a cluster
// controller it has all the turns.
func (c *chores) tendStore(ctx context.Context, logger logr.Logger) error {
	k := c.workspaces.Keeper
	if ours, err := c.usesStore(ctx); err != nil || !ours {
		return err
	}
	tender := fleet.Tender{Store: k.Store, Cluster: k.Cluster, Who: k.Node, Domains: k, Missing: tellMissing(k.Damaged)}
	_, err := tender.Tend(ctx, logger, c.now())
	return err
}

// tellMissing tells of what collection has missed as of other damage.
func tellMissing(damaged func(content.Damage)) func(string, history.Collection) {
	return func(domain string, found history.Collection) {
		if damaged != nil {
			damaged(content.Damage{Domain: domain, Err: fmt.Errorf("%d packs that backups need are not there", found.MissingCount), Needs: found.Missing})
		}
	}
}

// usesStore says whether this node has used the store before. One that was swapped is not to be written to, and which one is the
// right one only a workspace on the node can tell.
func (c *chores) usesStore(ctx context.Context) (bool, error) {
	known, err := c.workspaces.Keeper.Area.Identity()
	if err != nil || known.Store == "" {
		return false, nil //nolint:nilerr // without its disk the node does nothing, and says so elsewhere
	}
	id, err := store.Identity(ctx, c.workspaces.Keeper.Store)
	return id == known.Store, err
}

// watchArea ends the process when the working area that was missing at the start appears.
func (c *chores) watchArea(ctx context.Context) error {
	area := c.workspaces.Keeper.Area
	if _, err := area.Identity(); err == nil {
		return nil
	}
	err := wait.PollUntilContextCancel(ctx, areaInterval, false, func(context.Context) (bool, error) {
		return state.HasIdentity(area.Dir()), nil
	})
	if err != nil {
		return nil //nolint:nilerr // the daemon ends
	}
	return errAreaIsBack
}

// watchRevision ends the process when the API server has gone back in time.
func (c *chores) watchRevision(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.workspaces.WentBack:
		return errWentBack
	}
}

// cacheSynced says whether the daemon has seen its objects.
func cacheSynced(mgr ctrl.Manager) health.Check {
	return func(ctx context.Context) error {
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the objects of this node have not been read yet")
		}
		return nil
	}
}
