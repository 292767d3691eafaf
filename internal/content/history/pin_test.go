package history_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

func stray(n string) history.Commit {
	c := commit(n)
	c.Workspace = "web"
	return c
}

func TestPins(t *testing.T) {
	f := newFixture(t)
	c := stray("1.1")
	expires := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	pin := history.Pin{Kind: history.PinStray, Expires: expires, Node: "node-a"}
	f.Expect(f.domain.Pin(f.ctx, "b", c, pin)).To(Succeed())
	f.Expect(f.domain.Pin(f.ctx, "b", c, pin)).To(Succeed(), "again")
	err := f.domain.Pin(f.ctx, "b", stray("1.1"), pin)
	f.Expect(err).To(MatchError(history.ErrOtherCommit))
	f.Expect(err).To(MatchError(ContainSubstring("pin b in domain team")))
	f.Expect(f.domain.Pin(f.ctx, "a", c, history.Pin{Kind: history.PinSnapshot})).To(Succeed())
	f.Expect(f.domain.Pin(f.ctx, "bb", c, history.Pin{Kind: history.PinRestore})).To(Succeed())

	got, err := f.domain.Pinned(f.ctx, "b")
	f.Expect(err).NotTo(HaveOccurred())
	want := c
	want.Format, want.Domain = 1, "team"
	f.Expect(got).To(Equal(history.PinnedCommit{Format: 1, ID: "b", Pin: pin, Commit: want}))
	f.Expect(f.pins("")).To(Equal("a b bb"))
	f.Expect(f.pins("b")).To(Equal("b bb"))
	f.Expect(f.pins("c")).To(BeEmpty())

	f.Expect(f.domain.Unpin(f.ctx, "b")).To(Succeed())
	f.Expect(f.domain.Unpin(f.ctx, "b")).To(Succeed(), "again")
	f.Expect(second(f.domain.Pinned(f.ctx, "b"))).To(MatchError(store.ErrNotFound))
	f.Expect(f.pins("")).To(Equal("a bb"))
}

func (f *fixture) pins(prefix string) string {
	pins, err := f.domain.Pins(f.ctx, prefix)
	f.Expect(err).NotTo(HaveOccurred())
	var ids []string
	for _, p := range pins {
		ids = append(ids, p.ID)
	}
	return strings.Join(ids, " ")
}

func TestPinRefuses(t *testing.T) {
	f := newFixture(t)
	snapshot := history.Pin{Kind: history.PinSnapshot}
	other, anonymous, homeless := stray("1.1"), stray("1.1"), stray("1.1")
	other.Domain, anonymous.ID, homeless.Workspace = "other", "", ""
	f.Expect(f.domain.Pin(f.ctx, "x", stray("1.1"), history.Pin{Kind: "whim"})).To(MatchError(ContainSubstring(`unknown kind "whim"`)))
	f.Expect(f.domain.Pin(f.ctx, "x", other, snapshot)).To(MatchError(ContainSubstring("domain other")))
	f.Expect(f.domain.Pin(f.ctx, "x", anonymous, snapshot)).To(MatchError(ContainSubstring("no id")))
	f.Expect(f.domain.Pin(f.ctx, "x", homeless, snapshot)).To(MatchError(ContainSubstring("workspace name")))
	for _, id := range []string{"", "..", "a/b", ".tmp-x"} {
		f.Expect(f.domain.Pin(f.ctx, id, stray("1.1"), snapshot)).To(HaveOccurred(), id)
		f.Expect(second(f.domain.Pinned(f.ctx, id))).To(HaveOccurred(), id)
		f.Expect(f.domain.Unpin(f.ctx, id)).To(HaveOccurred(), id)
	}
	f.Expect(second(f.domain.Pins(f.ctx, "../"))).To(HaveOccurred())
	f.Expect(f.pins("")).To(BeEmpty())
}

func TestPinDamaged(t *testing.T) {
	f := newFixture(t)
	for content, want := range map[string]string{
		"":                      "damaged",
		`{"format":2,"id":"x"}`: "format 2",
		`{"format":1,"id":"y"}`: `it says it is pin "y"`,
		`{"format":1,"id":"x"}`: `of domain ""`,
		`{"format":1,"id":"x","commit":{"domain":"team"}}`: "no id",
	} {
		f.replace("d/team/s/x", content)
		f.Expect(second(f.domain.Pinned(f.ctx, "x"))).To(MatchError(And(ContainSubstring(want), ContainSubstring("d/team/s/x"))))
		f.Expect(f.domain.Pin(f.ctx, "x", stray("1.1"), history.Pin{Kind: history.PinStray})).To(HaveOccurred())
	}
}

func TestStrayID(t *testing.T) {
	g := NewWithT(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	g.Expect(history.StrayID("web", "node-a.local", at)).To(Equal("stray.web.node-a.local.20260102T020405Z"))
	g.Expect(history.StrayPrefix("web", "node-a.local")).To(Equal("stray.web.node-a.local."))
	long := history.StrayID(strings.Repeat("w", 63), strings.Repeat("n", 252)+"1", at)
	g.Expect(len(long)).To(BeNumerically("<=", 255))
	g.Expect(history.StrayID(strings.Repeat("w", 63), strings.Repeat("n", 252)+"2", at)).NotTo(Equal(long))
}

func TestPrune(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2 2.0 2.1 2.2")
	f.append(incomplete("2.3"))
	f.Expect(f.log.Prune(f.ctx, 2, history.Keep{Last: 2})).To(Equal(names("1.2 1.1 1.0")))
	f.Expect(f.listed()).To(Equal("2.3 2.2 2.1 2.0"))
	f.Expect(f.log.Prune(f.ctx, 2, history.Keep{Last: 2})).To(BeEmpty())
	f.Expect(second(f.log.Prune(f.ctx, 3, history.Keep{Last: 1}))).To(MatchError(history.ErrLost), "a claim that was never published")
	c, _, err := f.log.Current(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Name).To(Equal(name("2.2")))
}

// Days are those of the store's clock, not of the writers'.
func TestPruneByStoreDays(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2 1.3 1.4")
	day := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for n, age := range map[string]time.Duration{"1.1": 0, "1.2": 23 * time.Hour, "1.3": 25 * time.Hour, "1.4": 26 * time.Hour} {
		f.age(f.key(n), day.Add(age))
	}
	f.Expect(f.log.Prune(f.ctx, 1, history.Keep{Last: 1, Daily: 2})).To(Equal(names("1.3 1.1")))
}

// age stamps an object as written at a time.
func (f *fixture) age(key string, at time.Time) {
	path := filepath.Join(strings.TrimPrefix(f.store.String(), "file://"), key)
	f.Expect(os.Chtimes(path, at, at)).To(Succeed())
}

// A fork stays until it is pinned, under whatever id.
func TestS4_PruneKeepsForksUntilPinned(t *testing.T) {
	f := newFixture(t)
	f.fill("6.0 6.1 7.0 7.1 7.2")
	fork := commit("6.2")
	f.inject(fork)
	f.Expect(f.log.Prune(f.ctx, 7, history.Keep{Last: 1})).To(Equal(names("7.1 6.1")))
	f.Expect(f.domain.Pin(f.ctx, "another", stray("6.2"), history.Pin{Kind: history.PinStray})).To(Succeed())
	f.Expect(f.log.Prune(f.ctx, 7, history.Keep{Last: 1})).To(BeEmpty(), "another commit of that name was pinned")
	c, _, err := f.log.Read(f.ctx, fork.Name)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(f.domain.Pin(f.ctx, history.StrayID("web", "node-a", time.Now()), c, history.Pin{Kind: history.PinStray})).To(Succeed())
	f.Expect(f.log.Prune(f.ctx, 7, history.Keep{Last: 1})).To(Equal(names("6.2 6.0")))
	f.Expect(f.listed()).To(Equal("7.2 7.0"))
}

// One damaged object must not end retention: the store would grow without bound.
func TestPruneLeavesWhatIsDamaged(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2 1.3 1.4 1.5")
	f.replace(f.key("1.2"), `{"format":1,`)
	f.replace(f.key("1.4"), `{"format":1,"id":"x","domain":"team","workspace":"other","name":"1.4"}`)
	f.Expect(f.log.Prune(f.ctx, 1, history.Keep{Last: 2})).To(Equal(names("1.1")))
	f.Expect(f.listed()).To(Equal("1.5 1.4 1.3 1.2 1.0"))
	f.append(commit("1.6"))
	f.Expect(f.log.Prune(f.ctx, 1, history.Keep{Last: 2})).To(Equal(names("1.3")), "it goes on")

	f.replace(f.key("1.2"), `{"format":9}`)
	f.Expect(second(f.log.Prune(f.ctx, 1, history.Keep{Last: 1}))).To(MatchError(ContainSubstring("update ws-daemon")),
		"what only a newer version can read is not damaged")
}

// Without our claim's record nobody can tell a fork from history: what is older than the claim stays.
func TestS4_PruneUnderADamagedClaimRecord(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2 2.0")
	f.inject(commit("1.3"))
	f.fill("2.1 2.2")
	f.replace(f.key("2.0"), "{}")
	f.Expect(f.log.Forks(f.ctx, 2)).To(BeEmpty())
	f.Expect(f.log.Prune(f.ctx, 2, history.Keep{Last: 1})).To(Equal(names("2.1")))
	f.Expect(f.listed()).To(Equal("2.2 2.0 1.3 1.2 1.1 1.0"))
}

func TestS4_DamagedForkAndPinKeepNothingElse(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2 2.0")
	forks := []history.Commit{commit("1.3"), commit("1.4")}
	for _, c := range forks {
		f.inject(c)
	}
	f.fill("2.1 2.2")
	f.replace(f.key("1.4"), "{")
	f.Expect(f.store.Put(f.ctx, "d/team/s/broken", nil)).To(Succeed())
	listed, err := f.log.Forks(f.ctx, 2)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(join(listed)).To(Equal("1.4 1.3"))
	f.Expect(f.log.Prune(f.ctx, 2, history.Keep{Last: 1})).To(Equal(names("2.1 1.2 1.1")))
	pinned := forks[0]
	pinned.Workspace = "web"
	f.Expect(f.domain.Pin(f.ctx, "kept", pinned, history.Pin{Kind: history.PinStray})).To(Succeed())
	f.Expect(f.log.Prune(f.ctx, 2, history.Keep{Last: 1})).To(Equal(names("1.3")))
	f.Expect(f.listed()).To(Equal("2.2 2.0 1.4 1.0"))
}

func TestPurge(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	f.Expect(f.log.Bury(f.ctx, 1)).To(Succeed())
	f.fill("2.0 2.1")
	webapp := f.domain.Workspace("web-app")
	f.Expect(webapp.PublishClaim(f.ctx, 1, nodeA, nil)).To(Succeed())
	now, err := f.store.Now(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	for id, expires := range map[string]time.Time{"expired": now.Add(-time.Second), "later": now.Add(time.Hour), "never": {}} {
		f.Expect(f.domain.Pin(f.ctx, id, stray("1.1"), history.Pin{Kind: history.PinStray, Expires: expires})).To(Succeed())
	}
	f.Expect(f.domain.Purge(f.ctx, time.Hour)).To(Equal(1), "the expired pin; the tombstone is young")
	f.Expect(f.pins("")).To(Equal("later never"))

	tombstones, err := f.store.List(f.ctx, "d/team/t/web/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(tombstones).To(HaveLen(1))
	f.age(tombstones[0].Key, now.Add(-2*time.Hour))
	f.Expect(f.domain.Purge(f.ctx, time.Hour)).To(Equal(2))
	f.Expect(f.domain.Purge(f.ctx, time.Hour)).To(BeZero())
	objects, err := f.store.List(f.ctx, "d/team/w/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(objects).To(HaveLen(4), "web's tombstone and second life, and web-app")
	f.Expect(f.listed()).To(Equal("2.1 2.0"))
	f.Expect(f.log.NewestClaim(f.ctx)).To(Equal(int64(2)))
	f.Expect(f.log.Bury(f.ctx, 2)).To(Succeed())
	f.Expect(f.log.NewestClaim(f.ctx)).To(Equal(int64(2)), "tombstones stay and keep the count")
}

// What was pinned of a buried workspace's history goes with it. What a person pinned stays, and so does what a new life of
// the name pinned.
func TestPurgeTakesThePinsOfTheBuried(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 2.0 2.1")
	pin := func(id, n, kind string) {
		f.Expect(f.domain.Pin(f.ctx, id, stray(n), history.Pin{Kind: kind})).To(Succeed())
	}
	pin("restored.web.1.1.abc", "1.1", history.PinRestore)
	pin("before-restore.web.2.1.abc", "2.1", history.PinRestore)
	pin(history.ForkID("web", name("1.2")), "1.2", history.PinStray)
	pin("fork.web.1.3", "1.2", history.PinStray) // of another name than its id says
	pin("fork.web.1.4", "1.4", history.PinSnapshot)
	pin("mine", "1.1", history.PinSnapshot)
	pin("stray.web.node-a.20260101T000000Z", "1.1", history.PinStray)
	pin("restored.web.3.1.abc", "3.1", history.PinRestore)
	other := commit("1.1")
	other.Workspace = "api"
	f.Expect(f.domain.Pin(f.ctx, "restored.api.1.1.abc", other, history.Pin{Kind: history.PinRestore})).To(Succeed())
	f.Expect(f.domain.Purge(f.ctx, -time.Hour)).To(BeZero(), "nothing is buried")
	f.Expect(f.log.Bury(f.ctx, 2)).To(Succeed())
	f.Expect(f.domain.Purge(f.ctx, time.Hour)).To(BeZero(), "the tombstone is young")
	pin("restored.web.2.1.new", "2.1", history.PinRestore)
	dated := func(after time.Duration) { f.age("d/team/s/restored.web.2.1.new", time.Now().Add(after)) }
	dated(time.Second) // a clock of the kernel may not have moved on since the burial

	f.Expect(f.domain.Purge(f.ctx, -time.Hour)).To(Equal(4 + 3))
	left := "fork.web.1.3 fork.web.1.4 mine restored.api.1.1.abc "
	f.Expect(f.pins("")).To(Equal(left + "restored.web.2.1.new restored.web.3.1.abc stray.web.node-a.20260101T000000Z"))
	f.fill("3.0 3.1")
	dated(-time.Second)
	f.Expect(f.log.Bury(f.ctx, 3)).To(Succeed())
	f.Expect(f.domain.Purge(f.ctx, -time.Hour)).To(Equal(2 + 2))
	f.Expect(f.pins("")).To(Equal(left + "stray.web.node-a.20260101T000000Z"))
}

// A tombstone that nobody wrote for this workspace takes no pins either.
func TestPurgeOfPinsNeedsATombstone(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	f.Expect(f.domain.Pin(f.ctx, "restored.web.1.1.abc", stray("1.1"), history.Pin{Kind: history.PinRestore})).To(Succeed())
	f.Expect(f.log.Bury(f.ctx, 1)).To(Succeed())
	tombstones, err := f.store.List(f.ctx, "d/team/t/web/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	f.replace(tombstones[0].Key, `{"format":1,"domain":"team","workspace":"api","claim":1}`)
	f.Expect(f.domain.Purge(f.ctx, -time.Hour)).Error().To(MatchError(ContainSubstring(tombstones[0].Key)))
	f.Expect(f.pins("")).To(Equal("restored.web.1.1.abc"))
}

// One damaged record is an error and does not keep the others from being purged.
func TestPurgeGoesOn(t *testing.T) {
	f := newFixture(t)
	for _, ws := range []string{"a", "b", "c"} {
		l := f.domain.Workspace(ws)
		f.Expect(l.PublishClaim(f.ctx, 1, nodeA, nil)).To(Succeed())
		f.Expect(l.Bury(f.ctx, 1)).To(Succeed())
	}
	tombstones, err := f.store.List(f.ctx, "d/team/t/b/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	f.replace(tombstones[0].Key, `{"format":1,"domain":"team","workspace":"a","claim":1}`)
	f.Expect(f.store.Put(f.ctx, "d/team/s/broken", nil)).To(Succeed())
	f.Expect(f.domain.Pin(f.ctx, "expired", stray("1.1"), history.Pin{Kind: history.PinStray, Expires: time.Unix(1, 0)})).To(Succeed())
	removed, err := f.domain.Purge(f.ctx, -time.Hour)
	f.Expect(removed).To(Equal(3))
	f.Expect(err).To(MatchError(And(ContainSubstring(tombstones[0].Key), ContainSubstring("d/team/s/broken"))))
	f.Expect(f.domain.Workspace("b").NewestClaim(f.ctx)).To(Equal(int64(1)))
	left, err := f.store.List(f.ctx, "d/team/w/b/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(left).To(HaveLen(2), "nobody meant b to be deleted")
}
