package history_test

import (
	"context"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

var (
	nodeA = history.Owner{UID: "uid-1", Node: "node-a", Area: "area-a"}
	nodeB = history.Owner{UID: "uid-1", Node: "node-b", Area: "area-b"}
)

// fixture is one workspace in a new store.
type fixture struct {
	Gomega
	ctx    context.Context //nolint:containedctx // it lives as long as the test.
	store  store.Store
	domain *history.Domain
	log    *history.Log
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return fixtureOn(t, storetest.Filesystem(t))
}

func fixtureOn(t *testing.T, s store.Store) *fixture {
	t.Helper()
	g := NewWithT(t)
	d, err := history.OpenDomain(t.Context(), s, "team", "cluster", false)
	g.Expect(err).NotTo(HaveOccurred())
	return &fixture{Gomega: g, ctx: t.Context(), store: s, domain: d, log: d.Workspace("web")}
}

func name(s string) history.Name {
	n, err := history.ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

func names(s string) []history.Name {
	var all []history.Name
	for part := range strings.FieldsSeq(s) {
		all = append(all, name(part))
	}
	return all
}

func commit(n string) history.Commit {
	return history.Commit{ID: history.NewID(), Name: name(n), Owner: nodeA, Tree: history.Tree{Digest: "tree of " + n, Files: 3}}
}

func incomplete(n string) history.Commit {
	c := commit(n)
	c.Tree.UnreadableCount = 1
	return c
}

// before is the name that comes before: what a writer without gaps wrote last.
func before(n history.Name) history.Name {
	return history.Name{Claim: n.Claim, Number: n.Number - 1}
}

func (f *fixture) claim(claim int64, o history.Owner) {
	f.Expect(f.log.PublishClaim(f.ctx, claim, o, nil)).To(Succeed())
}

func (f *fixture) append(c history.Commit) history.Ref {
	ref, err := f.log.Append(f.ctx, c, before(c.Name))
	f.Expect(err).NotTo(HaveOccurred())
	return ref
}

// fill publishes claims (numbers 0) and appends complete commits, oldest first.
func (f *fixture) fill(all string) {
	for _, n := range names(all) {
		if n.IsClaim() {
			f.claim(n.Claim, nodeA)
		} else {
			f.append(commit(n.String()))
		}
	}
}

// inject writes a commit as a writer would whose check came before everything else.
func (f *fixture) inject(c history.Commit) {
	other, err := history.OpenDomain(f.ctx, hidden{f.store}, "team", "cluster", false)
	f.Expect(err).NotTo(HaveOccurred())
	_, err = other.Workspace("web").Append(f.ctx, c, before(c.Name))
	f.Expect(err).NotTo(HaveOccurred())
}

// hidden shows its reader an empty store.
type hidden struct{ store.Store }

func (hidden) List(context.Context, string, string, int) ([]store.Object, error) { return nil, nil }

func (f *fixture) listed() string {
	entries, err := f.log.Entries(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	return join(entries)
}

func join(entries []history.Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Name.String())
	}
	return strings.Join(all, " ")
}

func (f *fixture) key(n string) string {
	objects, err := f.store.List(f.ctx, "d/team/w/web/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	entries, err := f.log.Entries(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	for i, e := range entries {
		if e.Name == name(n) {
			return objects[i].Key
		}
	}
	panic("no such entry: " + n)
}

func (f *fixture) replace(key, content string) {
	f.Expect(f.store.Delete(f.ctx, key)).To(Succeed())
	f.Expect(f.store.Put(f.ctx, key, record(content))).To(Succeed())
}

// record is a JSON object with its checksum; what is none stays what it is.
func record(content string) []byte {
	if !strings.HasPrefix(content, "{") || !strings.HasSuffix(content, "}") {
		return []byte(content)
	}
	return store.AppendSum([]byte(content))
}

func TestOpenDomain(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	s := storetest.Filesystem(t)
	open := func(name, cluster string, adopt bool) error {
		_, err := history.OpenDomain(ctx, s, name, cluster, adopt)
		return err
	}
	g.Expect(open("team", "one", false)).To(Succeed())
	g.Expect(open("team", "one", false)).To(Succeed())
	err := open("team", "two", false)
	g.Expect(err).To(MatchError(history.ErrOtherCluster))
	g.Expect(err).To(MatchError(ContainSubstring("it is of cluster one, this is two")))
	g.Expect(open("team", "two", true)).To(Succeed(), "adopted")
	g.Expect(open("team", "one", false)).To(Succeed(), "adopting changes nothing in the store")
	g.Expect(open("other", "two", false)).To(Succeed())
	for _, bad := range []string{"", "..", "a/b", ".tmp", "-a", "a b", strings.Repeat("a", 256)} {
		g.Expect(open(bad, "one", false)).To(HaveOccurred(), bad)
	}
	g.Expect(open("team", "", false)).To(HaveOccurred())
}

func TestOpenDomainDamaged(t *testing.T) {
	for content, want := range map[string]string{
		"":                             "object is damaged: d/team/domain.json",
		`{"format":1}`:                 "the cluster is missing",
		`{"cluster":"cluster"}`:        "the format is missing",
		`{"format":2,"cluster":"one"}`: "it has format 2, this version knows 1: update ws-daemon",
	} {
		g := NewWithT(t)
		s := storetest.Filesystem(t)
		g.Expect(s.Put(t.Context(), "d/team/domain.json", record(content))).To(Succeed())
		_, err := history.OpenDomain(t.Context(), s, "team", "cluster", true)
		g.Expect(err).To(MatchError(ContainSubstring(want)))
	}
}

// An emptied store must not look like a workspace without backups.
func TestS10_EmptiedStoreIsNoEmptyHistory(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	f.Expect(f.store.Delete(f.ctx, f.key("1.1"), f.key("1.0"))).To(Succeed())
	_, _, err := f.log.Current(f.ctx)
	f.Expect(err).To(MatchError(history.ErrNoBackup), "the domain is there")
	f.Expect(f.store.Delete(f.ctx, "d/team/domain.json")).To(Succeed())
	_, _, err = f.log.Current(f.ctx)
	f.Expect(err).To(HaveOccurred())
	f.Expect(err).NotTo(MatchError(history.ErrNoBackup), "the domain is gone: nothing is known")
	f.Expect(f.store.Delete(f.ctx, store.IdentityKey)).To(Succeed())
	for _, err := range []error{
		second(f.log.Entries(f.ctx)), second(f.log.NewestClaim(f.ctx)), f.log.Standing(f.ctx, 1, name("1.1")), f.log.Bury(f.ctx, 1),
		f.log.PublishClaim(f.ctx, 2, nodeA, nil),
	} {
		f.Expect(err).To(MatchError(store.ErrNotInitialized))
		f.Expect(err).NotTo(MatchError(history.ErrLost))
	}
}

func second[T any](_ T, err error) error { return err }

func third[S, T any](_ S, _ T, err error) error { return err }

// putPack stores data under a new id.
func putPack(ctx context.Context, d *history.Domain, data []byte) (history.Pack, error) {
	p := history.Pack{ID: history.NewID(), Size: int64(len(data)), CRC32C: history.Checksum(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))}
	return p, d.PutPack(ctx, p.ID, data)
}

// somePack is in no store.
var somePack = history.Pack{ID: strings.Repeat("a", 32)}

func TestPacks(t *testing.T) {
	f := newFixture(t)
	p, err := putPack(f.ctx, f.domain, []byte("content"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(p.Size).To(Equal(int64(7)))
	f.Expect(p.ID).To(MatchRegexp(`^[0-9a-f]{32}$`))
	f.Expect(f.domain.ComparePack(f.ctx, p, make([]byte, 3))).To(Succeed())
	f.Expect(f.domain.ComparePack(f.ctx, p, make([]byte, 9))).To(Succeed())
	f.Expect(f.domain.StatPack(f.ctx, p)).To(Succeed())
	part := make([]byte, 4)
	f.Expect(f.domain.ReadPack(f.ctx, p.ID, 3, part)).To(Succeed())
	f.Expect(string(part)).To(Equal("tent"))
	f.Expect(f.domain.ReadPack(f.ctx, p.ID, 4, part)).To(MatchError(ContainSubstring(p.ID)), "it is shorter than that")
	f.Expect(f.domain.PutPack(f.ctx, p.ID, []byte("another"))).To(MatchError(store.ErrExists))
	f.Expect(f.domain.PutPack(f.ctx, "../x", nil)).To(MatchError(ContainSubstring("32 hex digits")))
	again, err := putPack(f.ctx, f.domain, []byte("content"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(again.ID).NotTo(Equal(p.ID), "a name is never used twice")

	key := "d/team/p/" + p.ID[:2] + "/" + p.ID
	f.replace(key, "CONTENT")
	f.Expect(f.domain.StatPack(f.ctx, p)).To(Succeed())
	f.Expect(f.domain.ComparePack(f.ctx, p, make([]byte, 3))).To(MatchError(And(ContainSubstring(key), ContainSubstring("the checksum differs"))))
	f.replace(key, "conten")
	f.Expect(f.domain.StatPack(f.ctx, p)).To(MatchError(ContainSubstring("it has 6 bytes instead of 7")))
	f.Expect(f.domain.ComparePack(f.ctx, p, make([]byte, 3))).To(MatchError(ContainSubstring(p.ID)))
	f.Expect(f.store.Delete(f.ctx, key)).To(Succeed())
	f.Expect(f.domain.StatPack(f.ctx, p)).To(MatchError(store.ErrNotFound))
	f.Expect(f.domain.ComparePack(f.ctx, p, make([]byte, 3))).To(MatchError(store.ErrNotFound))
	for _, id := range []string{"", "..", strings.Repeat("A", 32), strings.Repeat("a", 31), strings.Repeat("../", 10) + "aa"} {
		f.Expect(f.domain.ComparePack(f.ctx, history.Pack{ID: id}, make([]byte, 3))).To(MatchError(ContainSubstring("32 hex digits")))
	}
}

func TestReadCurrentAndBase(t *testing.T) {
	f := newFixture(t)
	_, _, err := f.log.Current(f.ctx)
	f.Expect(err).To(MatchError(history.ErrNoBackup))
	f.Expect(f.log.NewestClaim(f.ctx)).To(BeZero())
	f.fill("1.0 1.1 1.2 3.0 3.1")
	f.append(incomplete("3.2"))
	f.fill("4.0")
	f.Expect(f.listed()).To(Equal("4.0 3.2 3.1 3.0 1.2 1.1 1.0"))
	f.Expect(f.log.NewestClaim(f.ctx)).To(Equal(int64(4)))
	for claim, want := range map[int64]string{0: "3.1", 4: "3.1", 3: "1.2"} {
		c, ref, err := f.log.Current(f.ctx)
		if claim > 0 {
			c, ref, err = f.log.Base(f.ctx, claim)
		}
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(c.Name).To(Equal(name(want)))
		again, sameRef, err := f.log.Read(f.ctx, name(want))
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(again).To(Equal(c))
		f.Expect(sameRef).To(Equal(ref))
	}
	_, _, err = f.log.Base(f.ctx, 1)
	f.Expect(err).To(MatchError(history.ErrNoBackup))
	for _, unpublished := range []int64{2, 5} {
		_, _, err = f.log.Base(f.ctx, unpublished)
		f.Expect(err).To(MatchError(history.ErrLost))
	}
	_, _, err = f.log.Read(f.ctx, name("3.9"))
	f.Expect(err).To(MatchError(store.ErrNotFound))
}

func TestCommitRoundTrip(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	p, err := putPack(f.ctx, f.domain, []byte("content"))
	f.Expect(err).NotTo(HaveOccurred())
	c := commit("1.1")
	c.Parent = &history.Ref{Name: name("1.0"), Hash: "abc"}
	c.Created = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	c.Packs = []history.Pack{p}
	c.Stored = 7
	for range 150 {
		c.Tree.Unreadable = append(c.Tree.Unreadable, history.Problem{Path: `"\xff"`, Error: "permission denied"})
		c.Tree.Changed = append(c.Tree.Changed, "log")
	}
	c.Tree.UnreadableCount = 150
	ref := f.append(c)
	got, gotRef, err := f.log.Read(f.ctx, c.Name)
	f.Expect(err).NotTo(HaveOccurred())
	want := c
	want.Format, want.Domain, want.Workspace = 1, "team", "web"
	want.Tree.Unreadable, want.Tree.Changed = c.Tree.Unreadable[:100], c.Tree.Changed[:100]
	f.Expect(got).To(Equal(want))
	f.Expect(gotRef).To(Equal(ref))
	f.Expect(got.Complete()).To(BeFalse())
}

// A writer that forgets the count must not turn an incomplete backup into a complete one.
func TestS3_UnreadableMakesIncomplete(t *testing.T) {
	g := NewWithT(t)
	c := commit("1.1")
	g.Expect(c.Complete()).To(BeTrue())
	c.Tree.Unreadable = []history.Problem{{Path: "a"}}
	g.Expect(c.Complete()).To(BeFalse())
	c.Tree = history.Tree{UnreadableCount: 1}
	g.Expect(c.Complete()).To(BeFalse())
	g.Expect(history.Commit{Name: name("1.0")}.Complete()).To(BeFalse())
}

// Damaged, foreign and newer records are errors that name the object, and are never passed over.
func TestS10_DamagedCommit(t *testing.T) {
	good := `{"format":1,"id":"x","domain":"team","workspace":"web","name":"1.2"`
	for content, want := range map[string]string{
		"":                                 "object is damaged",
		"{":                                "object is damaged",
		"null":                             "it does not end with its checksum",
		good + `,"format":0}`:              "the format is missing",
		`[]`:                               "object is damaged",
		good:                               "object is damaged",
		good + `,"format":7}`:              "it has format 7, this version knows 1",
		good + `,"name":"1.1"}`:            `it says it is backup 1.1 of workspace "web" in domain "team"`,
		good + `,"workspace":"api"}`:       `it says it is backup 1.2 of workspace "api"`,
		good + `,"domain":"other"}`:        `in domain "other"`,
		good + `,"name":"1.02"}`:           "object is damaged",
		good + `,"id":""}`:                 "the commit has no id",
		good + `,"packs":[{"id":"../"}]}`:  "32 hex digits",
		good + `,"tree":{"files":"many"}}`: "object is damaged",
		good + "}\n":                       "it does not end with its checksum",
		"{" + strings.Repeat(" ", 9<<20):   "more than the 8388608 a record may have",
	} {
		f := newFixture(t)
		f.fill("1.0 1.1 1.2")
		key := f.key("1.2")
		f.replace(key, content)
		_, _, err := f.log.Read(f.ctx, name("1.2"))
		f.Expect(err).To(MatchError(And(ContainSubstring(want), ContainSubstring(key))), content[:min(len(content), 200)])
		_, _, currentErr := f.log.Current(f.ctx)
		f.Expect(currentErr).To(MatchError(err.Error()), "an older backup is no substitute")
		pruned, pruneErr := f.log.Prune(f.ctx, 1, history.Keep{Last: 1})
		f.Expect(pruned).To(BeEmpty(), "nothing is pruned by guessing")
		f.Expect(pruneErr == nil).To(Equal(history.Gone(err)), "what is damaged stays, and is no reason to stop; what is newer is")
		f.Expect(f.listed()).To(Equal("1.2 1.1 1.0"))
	}
}

func TestUnknownFieldsAreTolerated(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	f.replace(f.key("1.1"), `{"format":1,"id":"x","domain":"team","workspace":"web","name":"1.1","invented":{"later":1}}`)
	c, _, err := f.log.Read(f.ctx, name("1.1"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Complete()).To(BeTrue())
}

// Objects that are no entries, such as those of NFS, hide nothing.
func TestForeignObjectsArePassedOver(t *testing.T) {
	f := newFixture(t)
	for _, junk := range []string{".nfs000", "!", "0", "README", "zzz", strings.Repeat("0", 16) + "." + strings.Repeat("0", 15)} {
		for i := range 12 {
			f.Expect(f.store.Put(f.ctx, "d/team/w/web/"+junk+strings.Repeat("+", i), nil)).To(Succeed())
			f.Expect(f.store.Put(f.ctx, "d/team/t/web/"+junk+strings.Repeat("+", i), nil)).To(Succeed())
		}
	}
	f.fill("1.0 1.1")
	f.Expect(f.listed()).To(Equal("1.1 1.0"))
	f.Expect(f.log.NewestClaim(f.ctx)).To(Equal(int64(1)))
	f.Expect(f.log.Bury(f.ctx, 1)).To(Succeed())
	f.Expect(f.listed()).To(BeEmpty())
	f.Expect(f.domain.Purge(f.ctx, -time.Hour)).To(Equal(2))
}

func TestInvalidNames(t *testing.T) {
	f := newFixture(t)
	for _, bad := range []string{"", "..", "../api", "a/b", ".tmp"} {
		l := f.domain.Workspace(bad)
		c := commit("1.1")
		for _, err := range []error{
			second(l.Entries(f.ctx)), second(l.NewestClaim(f.ctx)), l.PublishClaim(f.ctx, 1, nodeA, nil), l.Bury(f.ctx, 1),
			second(l.Append(f.ctx, c, history.Name{})), l.Standing(f.ctx, 1, history.Name{}), second(l.Forks(f.ctx, 1)),
			second(l.Prune(f.ctx, 1, history.Keep{})),
		} {
			f.Expect(err).To(MatchError(ContainSubstring("workspace name")), bad)
		}
	}
	for _, c := range []history.Commit{{ID: "x"}, {ID: "x", Name: history.Name{Claim: -1, Number: 1}}, {Name: name("1.1")}, {ID: "x", Name: name("1.1"), Domain: "x"}} {
		f.Expect(second(f.log.Append(f.ctx, c, history.Name{}))).To(HaveOccurred())
	}
	f.Expect(second(f.log.Append(f.ctx, commit("1.2"), name("1.2")))).To(MatchError(ContainSubstring("1.2 does not come after 1.2")))
	f.Expect(second(f.log.Append(f.ctx, commit("1.0"), history.Name{}))).To(HaveOccurred(), "a claim is not appended")
	f.Expect(f.log.PublishClaim(f.ctx, 0, nodeA, nil)).To(HaveOccurred())
	f.Expect(f.log.Bury(f.ctx, 0)).To(HaveOccurred())
	f.Expect(f.listed()).To(BeEmpty())
}

// Finding out what is newest does not read the whole history.
func TestNewestIsCheap(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	for i := int64(1); i <= 100; i++ {
		f.append(commit(history.Name{Claim: 1, Number: i}.String()))
	}
	calls := 0
	counting := storetest.Faulty(f.store, func(op, _ string) error {
		if op != "put" {
			calls++
		}
		return nil
	})
	d, err := history.OpenDomain(f.ctx, counting, "team", "cluster", false)
	f.Expect(err).NotTo(HaveOccurred())
	calls = 0
	f.Expect(d.Workspace("web").Standing(f.ctx, 1, name("1.100"))).To(Succeed())
	f.Expect(calls).To(Equal(1), "one page of entries, tombstones among them")
	c := commit("1.101")
	c.Created = time.Unix(1, 0)
	f.Expect(second(d.Workspace("web").Append(f.ctx, c, name("1.100")))).To(Succeed())
	f.Expect(calls).To(Equal(3), "and one of what is collected")
}

func TestStoreErrorsAreNamed(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	broken := errors.New("broken")
	d, err := history.OpenDomain(f.ctx, storetest.Faulty(f.store, func(_, key string) error {
		if strings.HasSuffix(key, "domain.json") {
			return nil
		}
		return broken
	}), "team", "cluster", false)
	f.Expect(err).NotTo(HaveOccurred())
	l := d.Workspace("web")
	for what, err := range map[string]error{
		"entries": second(l.Entries(f.ctx)), "claim": second(l.NewestClaim(f.ctx)), "publish": l.PublishClaim(f.ctx, 2, nodeA, nil),
		"append": second(l.Append(f.ctx, commit("1.2"), name("1.1"))), "standing": l.Standing(f.ctx, 1, name("1.1")), "forks": second(l.Forks(f.ctx, 1)),
		"prune": second(l.Prune(f.ctx, 1, history.Keep{Last: 1})), "bury": l.Bury(f.ctx, 1), "purge": second(d.Purge(f.ctx, 0)),
		"pins": second(d.Pins(f.ctx, "")), "pinned": second(d.Pinned(f.ctx, "x")), "unpin": d.Unpin(f.ctx, "x"), "pack": second(putPack(f.ctx, d, nil)),
		"verify": l.Verify(f.ctx, history.Ref{Name: name("1.1")}, nil, nil), "current": third(l.Current(f.ctx)), "base": third(l.Base(f.ctx, 1)),
		"newest": third(l.Newest(f.ctx)), "tree": second(l.HasTree(f.ctx, "x", 0, nil)), "stat": d.VerifyPacks(f.ctx, []history.Pack{somePack}),
	} {
		f.Expect(err).To(MatchError(broken), what)
		f.Expect(err).NotTo(Or(MatchError(history.ErrLost), MatchError(history.ErrFenced), MatchError(history.ErrNoBackup)), what)
	}
}
