package history_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// atOnce collects without waiting, which is safe as long as nobody writes.
var atOnce = history.CollectOptions{Delete: true}

func (f *fixture) collect() history.Collection {
	c, err := f.domain.Collect(f.ctx, atOnce)
	f.Expect(err).NotTo(HaveOccurred())
	return c
}

// keys are the keys of the domain below a prefix.
func (f *fixture) keys(prefix string) []string {
	objects, err := f.store.List(f.ctx, "d/team/"+prefix, "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	keys := make([]string, 0, len(objects))
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// holding is a commit that needs packs, of which none is new.
func holding(n string, packs ...history.Pack) history.Commit {
	c := commit(n)
	c.Workspace, c.Packs = "web", packs
	return c
}

// domain is another view of the fixture's domain, as another node has.
func (f *fixture) through(s store.Store) *history.Domain {
	d, err := history.OpenDomain(f.ctx, s, "team", "cluster", false)
	f.Expect(err).NotTo(HaveOccurred())
	return d
}

func TestCollectRemovesInTwoSteps(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	needed, snapped, orphan := f.pack("needed"), f.pack("snapped"), f.pack("an orphan")
	f.append(holding("1.1", needed))
	f.Expect(f.domain.Pin(f.ctx, "snap", holding("1.2", snapped), snapshotPin())).To(Succeed())
	before := f.keys("")

	trial, err := f.domain.Collect(f.ctx, history.CollectOptions{})
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(trial).To(Equal(history.Collection{Packs: 3, Bytes: 22, Idle: 1, IdleBytes: 9}))
	f.Expect(f.keys("")).To(Equal(before), "a trial writes nothing")

	first := f.collect()
	f.Expect(first.Due.IsZero()).To(BeFalse())
	first.Due = trial.Due
	f.Expect(first).To(Equal(history.Collection{Packs: 3, Bytes: 22, Idle: 1, IdleBytes: 9, Condemned: 1}))
	f.Expect(f.keys("p/")).To(HaveLen(3))
	f.Expect(f.keys("g/c/")).To(HaveLen(1))

	second := f.collect()
	f.Expect([]int64{second.Removed, second.RemovedBytes, second.Rescued, second.Condemned}).To(Equal([]int64{1, 9, 0, 0}))
	f.Expect(f.keys("p/")).To(ConsistOf(packKey(needed), packKey(snapped)))
	f.Expect(f.keys("p/")).NotTo(ContainElement(packKey(orphan)))
	f.Expect(f.keys("g/c/")).To(HaveLen(1), "an empty list says when to look again")
	f.Expect(f.keys("g/s/")).To(HaveLen(1), "what went is told")

	f.Expect(f.domain.Unpin(f.ctx, "snap")).To(Succeed())
	f.collect()
	f.collect()
	f.Expect(f.keys("p/")).To(ConsistOf(packKey(needed)))
}

func snapshotPin() history.Pin { return history.Pin{Kind: history.PinSnapshot} }

// Until their time has come, what is condemned costs two requests, and nothing young is touched.
func TestCollectWaits(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	f.pack("an orphan")
	day := history.CollectOptions{Delete: true, Wait: history.DefaultWait}
	c, err := f.domain.Collect(f.ctx, day)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect([]int64{c.Packs, c.Idle, c.Condemned}).To(Equal([]int64{1, 0, 0}), "it may be of a backup that is being made")
	f.Expect(f.store.Delete(f.ctx, f.keys("g/")...)).To(Succeed())
	f.collect()

	var calls []string
	c, err = f.through(storetest.Faulty(f.store, func(op, key string) error {
		calls = append(calls, op+" "+key)
		return nil
	})).Collect(f.ctx, day)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect([]int64{c.Condemned, c.Removed}).To(Equal([]int64{1, 0}))
	f.Expect(calls[1:]).To(Equal([]string{"now ", "list d/team/g/", "get " + f.keys("g/c/")[0]}))
	f.Expect(f.keys("p/")).To(HaveLen(1))
}

// wrongClocks is a store whose clocks are wrong: the one that it tells, and the one by which it dates objects.
type wrongClocks struct {
	store.Store
	told, dated time.Duration
}

func (w wrongClocks) Now(ctx context.Context) (time.Time, error) {
	now, err := w.Store.Now(ctx)
	return now.Add(w.told), err
}

func (w wrongClocks) Stat(ctx context.Context, key string) (store.Object, error) {
	o, err := w.Store.Stat(ctx, key)
	o.Modified = o.Modified.Add(w.dated)
	return o, err
}

func (w wrongClocks) List(ctx context.Context, prefix, after string, limit int) ([]store.Object, error) {
	objects, err := w.Store.List(ctx, prefix, after, limit)
	for i := range objects {
		objects[i].Modified = objects[i].Modified.Add(w.dated)
	}
	return objects, err
}

// Clocks that jump, or are hours apart, make nothing go before its time: not what was condemned an hour ago, not what is buried.
func TestS1_WrongClocksLetNothingGo(t *testing.T) {
	const far = 25 * time.Hour
	for what, c := range map[string]struct {
		told, dated time.Duration
		want        string
	}{
		"the store's clock jumps forward":     {far, far, "the clock of the store is 25h0m0s ahead of this node's: set the one that is wrong"},
		"the store's clock jumps back":        {-far, -far, "the clock of the store is 25h0m0s behind this node's: set the one that is wrong"},
		"who tells the time is ahead":         {far, 0, "the clock of the store is 25h0m0s ahead of this node's"},
		"who tells the time is behind":        {-far, 0, "the clock of the store is 25h0m0s behind this node's"},
		"who dates objects is behind":         {0, -far, "the clock of the store is 25h0m0s behind this node's"},
		"who dates objects is ahead":          {0, far, "the clock of the store is 25h0m0s ahead of this node's"},
		"they are a quarter of an hour apart": {14 * time.Minute, -14 * time.Minute, ""},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			f.fill("1.0 1.1")
			p := f.pack("an orphan")
			now, err := f.store.Now(f.ctx)
			f.Expect(err).NotTo(HaveOccurred())
			f.age(packKey(p), now.Add(-4*far))
			wrong := f.through(wrongClocks{f.store, c.told, c.dated})
			asWanted := func(err error) {
				if c.want == "" {
					f.Expect(err).NotTo(HaveOccurred())
					return
				}
				f.Expect(err).To(MatchError(ContainSubstring(c.want)))
			}
			day := history.CollectOptions{Delete: true, Wait: history.DefaultWait}
			for range 2 { // nothing is condemned, or it waits
				asWanted(second(wrong.Collect(f.ctx, day)))
			}
			f.Expect(f.keys("g/")).To(HaveLen(map[bool]int{true: 1}[c.want == ""]))

			f.Expect(f.domain.Collect(f.ctx, day)).Error().NotTo(HaveOccurred(), "by right clocks")
			f.Expect(f.domain.Workspace("api").Bury(f.ctx, 1)).To(Succeed())
			f.Expect(second(wrong.Collect(f.ctx, day))).To(Or(BeNil(), MatchError(ContainSubstring("the clock of the store"))), "it waits, or refuses")
			if c.told != 0 {
				asWanted(second(wrong.Purge(f.ctx, 7*24*time.Hour)))
			}
			f.Expect(f.keys("g/")).To(HaveLen(1))
			f.Expect(f.keys("p/")).To(ContainElement(packKey(p)))
			f.Expect(f.keys("t/")).To(HaveLen(1))
		})
	}
}

// A commit that was written although its pack was condemned, by a writer that had not heard of it, saves the pack.
func TestCollectRescues(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	p := f.pack("an orphan")
	f.collect()
	f.inject(holding("1.1", p))
	c := f.collect()
	f.Expect([]int64{c.Rescued, c.Removed}).To(Equal([]int64{1, 0}))
	f.Expect(f.domain.StatPack(f.ctx, p)).To(Succeed())
	f.Expect(f.domain.VerifyPacks(f.ctx, []history.Pack{p})).To(MatchError(history.ErrCondemned),
		"a collector that looked earlier may still remove it: the next backup does without")
	for range 2 {
		f.collect()
	}
	f.Expect(f.domain.StatPack(f.ctx, p)).To(Succeed())
}

// Nobody begins to need what is going, or went.
func TestCondemnedPacksAreRefused(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	p := f.pack("an orphan")
	fresh := p
	fresh.New = true
	refused := func(when string) {
		f.Expect(second(f.log.Append(f.ctx, holding("1.1", p), name("1.0")))).To(MatchError(history.ErrCondemned), when)
		f.Expect(second(f.log.Append(f.ctx, holding("1.1", fresh), name("1.0")))).To(
			MatchError(And(ContainSubstring("workspace web"), ContainSubstring(p.ID), ContainSubstring("stored anew"))), when)
		f.Expect(f.domain.Pin(f.ctx, "snap", holding("1.1", p), snapshotPin())).To(MatchError(history.ErrCondemned), when)
		f.Expect(f.domain.VerifyPacks(f.ctx, []history.Pack{p})).To(MatchError(history.ErrCondemned), when)
		f.Expect(history.Gone(f.domain.VerifyPacks(f.ctx, []history.Pack{p}))).To(BeTrue(), when)
	}
	f.collect()
	f.domain = f.through(f.store) // what was seen before is good for some minutes
	f.log = f.domain.Workspace("web")
	refused("condemned")
	f.collect()
	refused("swept")
	f.Expect(f.listed()).To(Equal("1.0"))
	f.append(holding("1.1", f.pack("something else")))
}

// An old pack must be there when a commit begins to need it: its parent is, or it was looked for.
func TestAppendLooksForWhatIsOld(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	p := f.pack("old")
	ref := f.append(holding("1.1", p))
	c := holding("1.2", p)
	c.Parent = &ref
	f.drop(packKey(p))
	f.log = f.through(f.store).Workspace("web") // what was seen before is good for some minutes
	f.Expect(second(f.log.Append(f.ctx, holding("1.2", p), name("1.1")))).To(MatchError(store.ErrNotFound))
	f.Expect(second(f.log.Append(f.ctx, c, name("1.1")))).To(Succeed(), "it is the parent's word")
}

// A process reads each list once, and one request tells that there is nothing new.
func TestListsAreReadOnce(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	f.pack("an orphan")
	f.collect()
	f.collect()
	calls := 0
	counting := storetest.Faulty(f.store, func(_, key string) error {
		if strings.HasPrefix(key, "d/team/g/") {
			calls++
		}
		return nil
	})
	var cache history.Cache
	for i, want := range []int{3, 4, 5} {
		d := f.through(counting).Sharing(&cache)
		f.Expect(d.VerifyPacks(f.ctx, nil)).To(Succeed())
		f.Expect(calls).To(Equal(want), "domain %d", i)
		_, err := d.Workspace("web").Append(f.ctx, commit(fmt.Sprintf("1.%d", i+1)), name(fmt.Sprintf("1.%d", i)))
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(calls).To(Equal(want), "the look is new enough")
	}
}

// What cannot be read might need any pack: nothing goes, and the error names it.
func TestS10_CollectStopsAtWhatItCannotRead(t *testing.T) {
	for what, c := range map[string]struct {
		key, data, message string
	}{
		"damaged commit":  {"w/web/7ffffffffffffffe.7ffffffffffffffd", "{", "object is damaged"},
		"newer commit":    {"w/web/7ffffffffffffffe.7ffffffffffffffd", `{"format": 2}`, "update ws-daemon"},
		"copied commit":   {"w/web/7ffffffffffffffe.7ffffffffffffffd", `{"format": 1, "id": "x"}`, "it says it is backup"},
		"unknown name":    {"w/web/latest", "x", "update ws-daemon, or remove it"},
		"another kind":    {"w/x", "x", "update ws-daemon, or remove it"},
		"damaged pin":     {"s/snap", "{", "object is damaged"},
		"strange pin":     {"s/.x", "{", "pin name"},
		"damaged list":    {"g/c/0123456789abcdef0123456789abcdef", `{"format": 1, "domain": "team"}`, "not the list that was written"},
		"unknown marker":  {"g/x", "x", "update ws-daemon, or remove it"},
		"empty pin":       {"s/snap", "", "object is damaged"},
		"truncated swept": {"g/s/0123456789abcdef0123456789abcdef", "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			f.claim(1, nodeA)
			p := f.pack("an orphan")
			f.collect()
			f.replace("d/team/"+c.key, c.data)
			_, err := f.domain.Collect(f.ctx, atOnce)
			if c.message == "" {
				f.Expect(err).NotTo(HaveOccurred(), "what went needs not be known to collect")
				return
			}
			f.Expect(err).To(MatchError(And(ContainSubstring("collect domain team"), ContainSubstring(c.key), ContainSubstring(c.message))))
			f.Expect(f.keys("p/")).To(Equal([]string{packKey(p)}))
		})
	}
}

// A writer that cannot read what is going refuses to commit.
func TestS10_DamagedListStopsWriters(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	key := "d/team/g/c/0123456789abcdef0123456789abcdef"
	f.replace(key, "{}")
	_, err := f.log.Append(f.ctx, commit("1.1"), name("1.0"))
	f.Expect(err).To(And(MatchError(history.ErrDamaged), MatchError(And(ContainSubstring(key), ContainSubstring("remove it")))))
	f.drop(key)
	f.append(commit("1.1"))
}

// A domain that shows packs and nothing else is not what it was.
func TestS10_NothingGoesFromADomainWithoutHistory(t *testing.T) {
	f := newFixture(t)
	f.pack("an orphan")
	_, err := f.domain.Collect(f.ctx, atOnce)
	f.Expect(err).To(MatchError(ContainSubstring("no backup, snapshot or tombstone at all")))
	f.Expect(f.log.Bury(f.ctx, 1)).To(Succeed())
	f.collect()
	f.collect()
	f.Expect(f.keys("p/")).To(BeEmpty(), "the tombstone tells that its backups had their time")
}

func TestCollectNamesWhatIsMissing(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	p := f.pack("lost")
	f.append(holding("1.1", p))
	f.drop(packKey(p))
	c := f.collect()
	f.Expect(c.Missing).To(Equal([]history.Need{{Pack: p.ID, Workspaces: []history.WorkspaceNeed{{Name: "web", Backups: names("1.1")}}}}))
	f.Expect(c.MissingCount).To(Equal(int64(1)))
}

// What is needed by several is told with all of them, also while something cannot be read.
func TestWhoNeedsAPack(t *testing.T) {
	f := newFixture(t)
	shared, own := f.pack("shared"), f.pack("own")
	f.claim(1, nodeA)
	f.append(holding("1.1", shared))
	f.append(holding("1.2", shared, own))
	f.Expect(f.domain.Pin(f.ctx, "nightly", holding("1.2", shared), snapshotPin())).To(Succeed())
	api := f.domain.Workspace("api")
	f.Expect(api.PublishClaim(f.ctx, 1, nodeA, nil)).To(Succeed())
	ofAPI := holding("1.1", shared)
	ofAPI.Workspace = "api"
	f.Expect(api.Append(f.ctx, ofAPI, history.Name{Claim: 1})).Error().NotTo(HaveOccurred())

	of := func(name, backups string) history.WorkspaceNeed {
		return history.WorkspaceNeed{Name: name, Backups: names(backups)}
	}
	needs := f.domain.WhoNeeds(f.ctx, []string{own.ID, shared.ID, "unknown"})
	f.Expect(needs).To(Equal([]history.Need{
		{Pack: own.ID, Workspaces: []history.WorkspaceNeed{of("web", "1.2")}},
		{Pack: shared.ID, Workspaces: []history.WorkspaceNeed{of("api", "1.1"), of("web", "1.2 1.1")}, Snapshots: []string{"nightly"}},
		{Pack: "unknown"},
	}))
	f.Expect(needs[1].Count()).To(Equal(4))
	f.Expect(needs[1].String()).To(Equal("pack " + shared.ID + " is needed by 1.1 of workspace api; 1.2, 1.1 of workspace web; snapshots nightly"))
	f.Expect(needs[2].String()).To(Equal("pack unknown is needed by nothing that was read"))

	key := f.key("1.2")
	f.drop(key)
	f.Expect(f.store.Put(f.ctx, key, []byte("{}"))).To(Succeed())
	needs = f.domain.WhoNeeds(f.ctx, []string{own.ID})
	f.Expect(needs).To(Equal([]history.Need{{Pack: own.ID, Partial: true}}))
	f.Expect(needs[0].String()).To(Equal("pack " + own.ID + " is needed by nothing that was read; not everything could be read, so there may be more"))
}

func TestNeedsOfManyAreCut(t *testing.T) {
	g := NewWithT(t)
	need := history.Need{Pack: "p"}
	for i := range 12 {
		w := history.WorkspaceNeed{Name: fmt.Sprint("w", i)}
		for n := range 11 {
			w.Backups = append(w.Backups, history.Name{Claim: 1, Number: int64(n + 1)})
		}
		need.Workspaces = append(need.Workspaces, w)
	}
	g.Expect(need.String()).To(And(
		HavePrefix("pack p is needed by 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 1.10 and 1 more of workspace w0; "),
		HaveSuffix(" of workspace w9; 2 more workspaces")))
	g.Expect(need.Count()).To(Equal(132))
}

// Whatever request of a collection fails, nothing that is needed goes, and later runs finish the work.
func TestFaultAtEveryRequestOfACollection(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	needed := f.pack("needed")
	f.append(holding("1.1", needed))
	broken := errors.New("broken")
	for _, applied := range []bool{false, true} {
		for at, ended := 1, false; !ended; at++ {
			f.pack("an orphan")
			calls, armed := 0, false
			ended = true
			d := f.through(failingAt(f.store, func() error {
				if !armed {
					return nil
				}
				if calls++; calls != at {
					return nil
				}
				ended = false
				return broken
			}, applied))
			armed = true
			for range 2 {
				_, err := d.Collect(f.ctx, atOnce)
				f.Expect(err).To(Or(BeNil(), MatchError(broken)))
			}
			f.collect()
			f.collect()
			f.Expect(f.keys("p/")).To(Equal([]string{packKey(needed)}), "request %d", at)
			f.Expect(at).To(BeNumerically("<", 100))
		}
	}
}

// failingAt asks fault before each call; a failing one is done all the same if applied is set.
func failingAt(s store.Store, fault func() error, applied bool) store.Store {
	return &failing{Store: storetest.Faulty(s, func(op, _ string) error {
		if applied && (op == "put" || op == "delete") {
			return nil
		}
		return fault()
	}), fault: fault, applied: applied}
}

type failing struct {
	store.Store
	fault   func() error
	applied bool
}

func (f *failing) Put(ctx context.Context, key string, data []byte) error {
	err := f.Store.Put(ctx, key, data)
	if f.applied {
		err = errors.Join(err, f.fault())
	}
	return err
}

func (f *failing) Delete(ctx context.Context, keys ...string) error {
	err := f.Store.Delete(ctx, keys...)
	if f.applied {
		err = errors.Join(err, f.fault())
	}
	return err
}

func TestCheckKey(t *testing.T) {
	f := newFixture(t)
	f.Expect(f.domain.CheckKey(f.ctx, 2, "one")).To(Succeed())
	f.Expect(f.domain.CheckKey(f.ctx, 2, "one")).To(Succeed())
	other := f.through(f.store)
	f.Expect(other.CheckKey(f.ctx, 2, "one")).To(Succeed())
	f.Expect(other.CheckKey(f.ctx, 3, "two")).To(Succeed())
	f.Expect(other.CheckKey(f.ctx, 2, "two")).To(And(MatchError(history.ErrOtherKey), MatchError(And(ContainSubstring("domain team"), ContainSubstring("generation 2"), ContainSubstring("d/team/k/2")))))
	f.replace("d/team/k/3", "{")
	f.Expect(f.through(f.store).CheckKey(f.ctx, 3, "two")).To(MatchError(history.ErrDamaged))
	f.Expect(slices.Contains(f.keys("k/"), "d/team/k/2")).To(BeTrue())
}
