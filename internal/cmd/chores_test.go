package cmd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/fleet"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// keeper opens the node's disk and store as the daemon does.
func (n *node) keeper(t *testing.T, name, cluster string) *content.Keeper {
	t.Helper()
	cfg, err := config.Load(n.config)
	n.Expect(err).NotTo(HaveOccurred())
	area, err := state.Open(n.area)
	n.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(area.Close)
	n.Expect(area.Init(state.Identity{Cluster: cluster, Node: name})).To(Succeed())
	guard, err := openStore(t.Context(), cfg)
	n.Expect(err).NotTo(HaveOccurred())
	k, err := newKeeper(t.Context(), cfg, area, name, guard)
	n.Expect(err).NotTo(HaveOccurred())
	k.Cluster = cluster
	return k
}

// useStore has the node know its store, as after the first backup.
func (n *node) useStore(t *testing.T, k *content.Keeper) {
	t.Helper()
	id, err := store.Identity(t.Context(), k.Store)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(k.Area.SetStore(id)).To(Succeed())
}

// frozen is a store whose clock stands still, so that no hour ends during a test.
type frozen struct {
	store.Store
	now time.Time
}

func (f frozen) Now(context.Context) (time.Time, error) { return f.now, nil }

func (f frozen) Sweep(ctx context.Context) error { return store.Sweep(ctx, f.Store) }

// tending is what a node does in the store every hour.
func tending(k *content.Keeper) *chores {
	return &chores{workspaces: &controllers.WorkspaceReconciler{Keeper: k}, rules: fleet.Rules{Grace: -time.Hour}}
}

// bury writes a workspace's history into a domain, and its tombstone.
func (n *node) bury(t *testing.T, s store.Store, domain, cluster string) *history.Log {
	t.Helper()
	d, err := history.OpenDomain(t.Context(), s, domain, cluster, false)
	n.Expect(err).NotTo(HaveOccurred())
	l := d.Workspace("web")
	n.Expect(l.PublishClaim(t.Context(), 1, history.Owner{Node: "node-gone"}, nil)).To(Succeed())
	n.Expect(l.Bury(t.Context(), 1)).To(Succeed())
	return l
}

// in counts what a domain holds of workspaces, dead or alive, besides tombstones.
func (n *node) in(t *testing.T, s store.Store, domain string) int {
	t.Helper()
	objects, err := s.List(t.Context(), "d/"+domain+"/w/", "", 0)
	n.Expect(err).NotTo(HaveOccurred())
	return len(slices.DeleteFunc(objects, func(o store.Object) bool { return strings.HasSuffix(o.Key, "-deleted") }))
}

// The node holds no workspace and its cache is empty: the store says what there is to do. It is done once.
func TestTendVisitsEveryDomainOfTheCluster(t *testing.T) {
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	n.useStore(t, k)
	k.Store = frozen{Store: k.Store, now: time.Now()}
	for domain, cluster := range map[string]string{"gone": "here", "gone-2": "here", "other": "elsewhere"} {
		n.bury(t, k.Store, domain, cluster)
		n.Expect(n.in(t, k.Store, domain)).To(Equal(1))
	}
	n.Expect(k.Store.Put(t.Context(), "d/broken/domain.json", nil)).To(Succeed())
	left := n.leftover()

	n.Expect(tending(k).tendStore(t.Context(), logr.Discard())).To(MatchError(ContainSubstring("open domain broken")))
	n.Expect([]int{n.in(t, k.Store, "gone"), n.in(t, k.Store, "gone-2"), n.in(t, k.Store, "other")}).To(Equal([]int{0, 0, 1}))
	n.Expect(left).NotTo(BeAnExistingFile(), "what a killed writer left")

	n.bury(t, k.Store, "gone-3", "here")
	k.Node = "node-b"
	n.Expect(tending(k).tendStore(t.Context(), logr.Discard())).To(Succeed())
	n.Expect(n.in(t, k.Store, "gone-3")).To(Equal(1), "another node has had this hour's turn")
}

// leftover makes the file of a writer that was killed two days ago.
func (n *node) leftover() string {
	cfg, err := config.Load(n.config)
	n.Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(cfg.Storage.Filesystem.Path, ".tmp", ".tmp-killed")
	n.Expect(os.MkdirAll(filepath.Dir(path), 0o700)).To(Succeed())
	n.Expect(os.WriteFile(path, nil, 0o600)).To(Succeed())
	old := time.Now().Add(-48 * time.Hour)
	n.Expect(os.Chtimes(path, old, old)).To(Succeed())
	return path
}

// A store that this node has not used, or another one in its place, is not written to.
func TestS10_TendLeavesAForeignStoreAlone(t *testing.T) {
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	n.bury(t, k.Store, "gone", "here")
	n.Expect(tending(k).tendStore(t.Context(), logr.Discard())).To(Succeed())
	n.Expect(k.Area.SetStore("another")).To(Succeed())
	n.Expect(tending(k).tendStore(t.Context(), logr.Discard())).To(Succeed())
	n.Expect(n.in(t, k.Store, "gone")).To(Equal(1))
	n.Expect(k.Store.List(t.Context(), "tend/", "", 0)).To(BeEmpty())
}

// Packs that nothing needs are counted once a day, or go an hour after they were condemned.
func TestTendCollects(t *testing.T) {
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	n.useStore(t, k)
	inner := k.Store
	d, err := history.OpenDomain(t.Context(), inner, "team", "here", false)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(d.Workspace("web").PublishClaim(t.Context(), 1, history.Owner{}, nil)).To(Succeed())
	n.Expect(d.PutPack(t.Context(), history.NewID(), []byte("an orphan"))).To(Succeed())
	at := "--store=" + inner.String()
	tend := func(o history.CollectOptions) (packs, lists int) {
		c := tending(k)
		c.rules.Collection = o
		n.Expect(c.tendStore(t.Context(), logr.Discard())).To(Succeed())
		found, err := inner.List(t.Context(), "d/team/p/", "", 0)
		n.Expect(err).NotTo(HaveOccurred())
		told, err := inner.List(t.Context(), "d/team/g/", "", 0)
		n.Expect(err).NotTo(HaveOccurred())
		turns, err := inner.List(t.Context(), "tend/", "", 0)
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(turns).To(HaveLen(map[bool]int{true: 1, false: 2}[o.Delete]), "one of the hour, and one of the day if packs are only counted")
		for _, o := range turns {
			n.Expect(inner.Delete(t.Context(), o.Key)).To(Succeed()) // as if it was the next hour
		}
		age(t, at, 2*time.Hour)
		return len(found), len(told)
	}
	age(t, at, 2*time.Hour)
	trial := history.CollectOptions{Wait: time.Hour}
	packs, lists := tend(trial)
	n.Expect([]int{packs, lists}).To(Equal([]int{1, 0}), "counted")

	really := history.CollectOptions{Wait: time.Hour, Delete: true}
	packs, lists = tend(really)
	n.Expect([]int{packs, lists}).To(Equal([]int{1, 1}), "condemned")
	packs, lists = tend(really)
	n.Expect([]int{packs, lists}).To(Equal([]int{0, 2}), "swept, and told")
}
