package history_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// play writes a history from a text, oldest first: "2.0" is a claim, "3.0<1.1" one that goes back to 1.1, "~1.2" an
// incomplete backup, and "!1.3" a commit whose writer did not see what came before it.
func (f *fixture) play(all string) {
	for field := range strings.FieldsSeq(all) {
		n, parent, back := strings.Cut(strings.TrimLeft(field, "~!"), "<")
		switch {
		case back:
			f.claimFrom(name(n).Claim, parent)
		case name(n).IsClaim():
			f.claim(name(n).Claim, nodeA)
		case field[0] == '~':
			f.append(incomplete(n))
		case field[0] == '!':
			f.inject(commit(n))
		default:
			f.append(commit(n))
		}
	}
}

func (f *fixture) claimFrom(claim int64, parent string) {
	_, ref, err := f.log.Read(f.ctx, name(parent))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(f.log.PublishClaim(f.ctx, claim, nodeA, &ref)).To(Succeed())
}

// found is the name of a backup that was looked for, or what went wrong.
func found(c history.Commit, ref history.Ref, err error) string {
	for text, sentinel := range map[string]error{"none": history.ErrNoBackup, "lost": history.ErrLost, "damaged": history.ErrDamaged, "absent": store.ErrNotFound} {
		if errors.Is(err, sentinel) {
			return text
		}
	}
	if err != nil || c.Name != ref.Name || ref.Hash == "" {
		return "?"
	}
	return c.Name.String()
}

func TestBaseAndCurrent(t *testing.T) {
	for what, c := range map[string]struct {
		history string
		claim   int64
		base    string
		current string
	}{
		"nothing":                         {"", 1, "lost", "none"},
		"first claim":                     {"1.0", 1, "none", "none"},
		"own backups are no base":         {"1.0 1.1", 1, "none", "1.1"},
		"newest of the claim before":      {"1.0 1.1 1.2 2.0", 2, "1.2", "1.2"},
		"claims without commits":          {"1.0 1.1 2.0 3.0 4.0", 4, "1.1", "1.1"},
		"incomplete is passed over":       {"1.0 1.1 ~1.2 2.0 ~2.1 3.0", 3, "1.1", "1.1"},
		"only incomplete":                 {"1.0 ~1.1 2.0", 2, "none", "none"},
		"never published":                 {"1.0 1.1", 2, "lost", "1.1"},
		"an older claim's base":           {"1.0 1.1 2.0 2.1 3.0 3.1", 2, "1.1", "3.1"},
		"fork of the claim":               {"1.0 1.1 2.0 !1.2", 2, "1.1", "1.1"},
		"fork without anything seen":      {"2.0 !1.1", 2, "none", "none"},
		"fork of an earlier claim":        {"1.0 1.1 2.0 !1.2 3.0", 3, "1.1", "1.1"},
		"fork beside ours":                {"1.0 1.1 2.0 2.1 !1.2 3.0", 3, "2.1", "2.1"},
		"back in time":                    {"1.0 1.1 1.2 2.0<1.1", 2, "1.1", "1.1"},
		"back in time, then on":           {"1.0 1.1 1.2 2.0<1.1 2.1 3.0", 3, "2.1", "2.1"},
		"back in time without a backup":   {"1.0 1.1 1.2 2.0<1.1 3.0", 3, "1.1", "1.1"},
		"back, claimed, claimed":          {"1.0 1.1 1.2 2.0<1.1 3.0 4.0", 4, "1.1", "1.1"},
		"back and forth":                  {"1.0 1.1 1.2 2.0<1.1 3.0<1.2", 3, "1.2", "1.2"},
		"back, only incomplete after":     {"1.0 1.1 1.2 2.0<1.1 ~2.1 3.0", 3, "1.1", "1.1"},
		"back to an incomplete one":       {"1.0 ~1.1 1.2 2.0<1.1", 2, "1.1", "1.1"},
		"back to a fork":                  {"1.0 1.1 2.0 !1.2 2.1 3.0<1.2", 3, "1.2", "1.2"},
		"fork after going back":           {"1.0 1.1 1.2 2.0<1.1 !1.3 3.0", 3, "1.1", "1.1"},
		"fork of a claim that went back":  {"1.0 1.1 1.2 2.0<1.1 3.0 !2.1", 3, "1.1", "1.1"},
		"an older claim that went back":   {"1.0 1.1 1.2 2.0<1.1 2.1 3.0 3.1", 2, "1.1", "3.1"},
		"base of a claim between":         {"1.0 1.1 1.2 2.0<1.1 3.0 3.1 4.0", 3, "1.1", "3.1"},
		"many backups, more than a page":  {"1.0 1.1 2.0 ~2.1 ~2.2 ~2.3 ~2.4 ~2.5 ~2.6 ~2.7 ~2.8 ~2.9 ~2.10 ~2.11 3.0", 3, "1.1", "1.1"},
		"many claims, more than one page": {"1.0 1.1 2.0 3.0 4.0 5.0 6.0 7.0 8.0 9.0 10.0 11.0 12.0 13.0", 13, "1.1", "1.1"},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			f.play(c.history)
			f.Expect(found(f.log.Base(f.ctx, c.claim))).To(Equal(c.base), "base")
			f.Expect(found(f.log.Current(f.ctx))).To(Equal(c.current), "current")
		})
	}
}

// What a claim goes on from never changes, whatever is committed, forked or pruned later.
func TestS4_BaseIsTheSameWheneverAsked(t *testing.T) {
	f := newFixture(t)
	f.play("1.0 1.1 1.2 2.0 2.1 3.0")
	for _, next := range []string{"!2.2", "!1.3", "3.1", "~3.2", "4.0", "4.1", "5.0<1.1"} {
		f.play(next)
		f.Expect(found(f.log.Base(f.ctx, 3))).To(Equal("2.1"), "after %s", next)
		f.Expect(found(f.log.Base(f.ctx, 2))).To(Equal("1.2"), "after %s", next)
	}
}

// A later life of the name does not begin with what was buried, unless somebody asks for it by name.
func TestBaseAfterBurial(t *testing.T) {
	f := newFixture(t)
	f.play("1.0 1.1")
	_, ref, err := f.log.Read(f.ctx, name("1.1"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(f.log.Bury(f.ctx, 1)).To(Succeed())
	f.Expect(found(f.log.Current(f.ctx))).To(Equal("none"))
	f.Expect(found(f.log.Newest(f.ctx))).To(Equal("none"))
	f.play("2.0")
	f.Expect(found(f.log.Base(f.ctx, 2))).To(Equal("none"))
	f.Expect(f.has("tree of 1.1", 0)).To(BeFalse())
	f.Expect(f.log.PublishClaim(f.ctx, 3, nodeA, &ref)).To(Succeed())
	f.Expect(found(f.log.Base(f.ctx, 3))).To(Equal("1.1"))
}

// A damaged, replaced or missing link in the chain is an error: an older backup is no substitute.
func TestS10_BaseIsDamaged(t *testing.T) {
	for what, c := range map[string]struct {
		history, harmed, content string
		want                     string
	}{
		"base":                    {"1.0 1.1 1.2 2.0", "1.2", "{", "damaged"},
		"base gone":               {"1.0 1.1 1.2 2.0", "1.2", "", "1.1"}, // what retention does; who expects 1.2 notices
		"parent":                  {"1.0 1.1 1.2 2.0<1.1", "1.1", "{", "damaged"},
		"parent gone":             {"1.0 1.1 1.2 2.0<1.1", "1.1", "", "absent"},
		"parent is another":       {"1.0 1.1 1.2 2.0<1.1", "1.1", `{"format":1,"id":"x","domain":"team","workspace":"web","name":"1.1"}`, "damaged"},
		"parent of an older":      {"1.0 1.1 1.2 2.0<1.1 3.0", "1.1", "{", "damaged"},
		"parent of an older gone": {"1.0 1.1 1.2 2.0<1.1 3.0", "1.1", "", "absent"},
		"own record":              {"1.0 1.1 2.0", "2.0", "{", "damaged"},
		"own record gone":         {"1.0 1.1 2.0", "2.0", "", "lost"},
		"record on the way":       {"1.0 1.1 2.0 3.0", "2.0", "{", "damaged"},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			f.play(c.history)
			newest, err := f.log.NewestClaim(f.ctx)
			f.Expect(err).NotTo(HaveOccurred())
			key := f.key(c.harmed)
			if f.drop(key); c.content != "" {
				f.Expect(f.store.Put(f.ctx, key, record(c.content))).To(Succeed())
			}
			f.Expect(found(f.log.Base(f.ctx, newest))).To(Equal(c.want))
		})
	}
}

func TestDamagedParentIsNamed(t *testing.T) {
	f := newFixture(t)
	f.play("1.0 1.1 2.0<1.1")
	key := f.key("1.1")
	f.replace(key, `{"format":1,"id":"x","domain":"team","workspace":"web","name":"1.1"}`)
	_, _, err := f.log.Base(f.ctx, 2)
	f.Expect(err).To(MatchError(And(ContainSubstring(key), ContainSubstring("it is not the backup that claim 2 names"))))
}

func TestNewest(t *testing.T) {
	f := newFixture(t)
	f.Expect(found(f.log.Newest(f.ctx))).To(Equal("none"))
	for _, step := range []struct{ entry, want string }{
		{"1.0", "1.0"}, {"1.1", "1.1"}, {"~1.2", "1.2"}, {"2.0<1.1", "2.0"}, {"!1.3", "2.0"}, {"2.1", "2.1"},
	} {
		f.play(step.entry)
		f.Expect(found(f.log.Newest(f.ctx))).To(Equal(step.want), "after %s", step.entry)
	}
	f.replace(f.key("2.1"), "{")
	f.Expect(found(f.log.Newest(f.ctx))).To(Equal("damaged"))
}

func (f *fixture) pack(data string) history.Pack {
	p, err := putPack(f.ctx, f.domain, []byte(data))
	f.Expect(err).NotTo(HaveOccurred())
	return p
}

// has asks for a tree whose packs are there.
func (f *fixture) has(digest string, unreadable int64) (bool, error) {
	return f.log.HasTree(f.ctx, digest, unreadable, func(ctx context.Context, c history.Commit) error {
		return f.domain.VerifyPacks(ctx, c.Packs)
	})
}

func TestS1_HasTree(t *testing.T) {
	f := newFixture(t)
	f.play("1.0 1.1 ~1.2 2.0 !1.3")
	f.Expect(f.has("tree of 1.1", 0)).To(BeTrue())
	f.Expect(f.has("tree of 1.3", 0)).To(BeTrue(), "a fork holds it, too")
	f.Expect(f.has("tree of 1.0", 0)).To(BeFalse())
	f.Expect(f.has("", 0)).To(BeFalse(), "the record of a claim has no tree")
	f.Expect(f.has("tree of 1.2", 1)).To(BeFalse(), "incomplete")
	f.Expect(f.has("tree of 1.1", 1)).To(BeFalse(), "a file that could not be read now may be one that the backup lacks")

	accepted := incomplete("2.1")
	accepted.Accepted = true
	f.append(accepted)
	f.Expect(f.has("tree of 2.1", 1)).To(BeTrue(), "a person accepted it")
	f.Expect(f.has("tree of 2.1", 0)).To(BeFalse())
}

// A backup that is damaged or lacks a pack proves nothing, and does not hide another that holds the tree.
func TestS1_HasTreeNeedsAllOfIt(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	var packs []history.Pack
	for _, n := range []string{"1.1", "1.2"} {
		c := commit(n)
		c.Tree.Digest = "tree"
		c.Packs = []history.Pack{f.pack("packed for " + n)}
		packs = append(packs, c.Packs...)
		f.append(c)
	}
	f.Expect(f.has("tree", 0)).To(BeTrue())
	f.drop(packKey(packs[1]))
	f.Expect(f.has("tree", 0)).To(BeTrue(), "1.1 holds it")
	f.replace(packKey(packs[0]), "short")
	f.Expect(f.has("tree", 0)).To(BeFalse())
	f.replace(f.key("1.2"), "{")
	f.Expect(f.has("tree", 0)).To(BeFalse())
	f.replace(packKey(packs[0]), "packed for 1.1")
	f.Expect(f.has("tree", 0)).To(BeTrue(), "the damaged commit hides nothing")
}

// Only the newest ones are read: a longer history would be too dear.
func TestHasTreeLooksAtTwenty(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	for i := int64(1); i <= 21; i++ {
		f.append(commit(history.Name{Claim: 1, Number: i}.String()))
	}
	f.Expect(f.has("tree of 1.2", 0)).To(BeTrue())
	f.Expect(f.has("tree of 1.1", 0)).To(BeFalse())
}

// Verify looks at one backup, be it the newest or not: what a workspace was restored from may be an older claim's.
func TestS1_VerifyAnOlderBackup(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	c := commit("1.1")
	c.Packs = []history.Pack{f.pack("content")}
	ref := f.append(c)
	f.play("2.0 2.1 3.0")
	f.Expect(f.log.Verify(f.ctx, ref, nil, make([]byte, 4))).To(Succeed())
	f.Expect(f.log.Verify(f.ctx, ref, c.Packs, make([]byte, 4))).To(Succeed())
	f.replace(packKey(c.Packs[0]), "CONTENT")
	f.Expect(f.log.Verify(f.ctx, ref, nil, make([]byte, 4))).To(Succeed(), "sizes only")
	f.Expect(f.log.Verify(f.ctx, ref, c.Packs, make([]byte, 4))).To(MatchError(history.ErrDamaged))
	f.drop(packKey(c.Packs[0]))
	err := f.log.Verify(f.ctx, ref, nil, make([]byte, 4))
	f.Expect(err).To(MatchError(store.ErrNotFound))
	f.Expect(err).To(MatchError(ContainSubstring("read back 1.1")))
	f.Expect(f.log.Verify(f.ctx, history.Ref{Name: name("1.9")}, nil, make([]byte, 4))).To(MatchError(store.ErrNotFound))
}

func TestVerifyPacks(t *testing.T) {
	f := newFixture(t)
	one, two := f.pack("one"), f.pack("second")
	f.Expect(f.domain.VerifyPacks(f.ctx, nil)).To(Succeed())
	f.Expect(f.domain.VerifyPacks(f.ctx, []history.Pack{one, two})).To(Succeed())
	longer := two
	longer.Size++
	f.Expect(f.domain.VerifyPacks(f.ctx, []history.Pack{one, longer})).To(MatchError(ContainSubstring("6 bytes instead of 7")))
	f.Expect(f.domain.VerifyPacks(f.ctx, []history.Pack{one, {ID: "../../x"}})).To(MatchError(ContainSubstring("32 hex digits")))
	f.drop(packKey(two))
	err := f.domain.VerifyPacks(f.ctx, []history.Pack{one, two})
	f.Expect(err).To(MatchError(store.ErrNotFound))
	f.Expect(err).To(MatchError(ContainSubstring(packKey(two))))
}

func TestGone(t *testing.T) {
	g := NewWithT(t)
	g.Expect(history.Gone(store.ErrNotFound)).To(BeTrue())
	g.Expect(history.Gone(history.ErrDamaged)).To(BeTrue())
	for _, err := range []error{nil, storetest.ErrReplyLost, history.ErrLost, history.ErrNoBackup, store.ErrNotInitialized} {
		g.Expect(history.Gone(err)).To(BeFalse())
	}
}
