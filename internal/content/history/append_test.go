package history_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

func (f *fixture) fenced(err error, by string, node string) {
	f.Expect(err).To(MatchError(history.ErrFenced))
	var fenced *history.FencedError
	f.Expect(errors.As(err, &fenced)).To(BeTrue())
	f.Expect(fenced.By).To(Equal(name(by)))
	f.Expect(fenced.Owner.Node).To(Equal(node))
}

// A reply that got lost after the write: repeating the same commit finds it, once.
func TestS2_LostReplyIsOneCommit(t *testing.T) {
	lose := true
	s := storetest.LostReply(storetest.Filesystem(t), func(key string) bool { return lose && strings.Contains(key, "/w/") })
	f := fixtureOn(t, s)
	f.Expect(f.log.PublishClaim(f.ctx, 1, nodeA, nil)).To(MatchError(storetest.ErrReplyLost))
	f.Expect(f.log.PublishClaim(f.ctx, 1, nodeA, nil)).To(Succeed(), "the claim is there and ours")
	c := commit("1.1")
	_, err := f.log.Append(f.ctx, c, history.Name{})
	f.Expect(err).To(MatchError(storetest.ErrReplyLost))
	ref, err := f.log.Append(f.ctx, c, history.Name{})
	f.Expect(err).NotTo(HaveOccurred())
	_, stored, err := f.log.Read(f.ctx, c.Name)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(ref).To(Equal(stored), "the reference is to the bytes in the store, also if the repeated ones differ")
	f.Expect(f.listed()).To(Equal("1.1 1.0"))
	lose = false
	f.Expect(second(f.log.Append(f.ctx, commit("1.2"), name("1.1")))).To(Succeed())
}

// The same attempt with another tree must not pass for done: what is stored is the earlier tree.
func TestS2_EarlierAttemptIsNotThisOne(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	c := commit("1.1")
	first := f.append(c)
	c.Tree.Digest = "another"
	ref, err := f.log.Append(f.ctx, c, history.Name{})
	f.Expect(err).To(MatchError(history.ErrEarlier))
	f.Expect(ref).To(Equal(first))
	c.Name, c.ID = name("1.2"), history.NewID()
	f.Expect(second(f.log.Append(f.ctx, c, ref.Name))).To(Succeed())
}

func TestS2_NameOfAnotherAttemptIsFenced(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	_, err := f.log.Append(f.ctx, commit("1.1"), history.Name{})
	f.fenced(err, "1.1", "node-a")
	_, err = f.log.Append(f.ctx, commit("1.2"), history.Name{})
	f.fenced(err, "1.1", "node-a")
	f.fenced(f.log.Standing(f.ctx, 1, history.Name{}), "1.1", "node-a")
	f.Expect(f.listed()).To(Equal("1.1 1.0"))
}

// Many daemons that believe to be the owner commit one number: exactly one does.
func TestS2_RacingCommitsOfOneName(t *testing.T) {
	f := newFixture(t)
	f.claim(1, nodeA)
	for round := 1; round <= 10; round++ {
		n := history.Name{Claim: 1, Number: int64(round)}
		errs := race(16, func(int) error {
			_, err := f.log.Append(f.ctx, commit(n.String()), before(n))
			return err
		})
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			f.Expect(err).To(MatchError(history.ErrFenced))
		}
		f.Expect(won).To(Equal(1))
	}
}

func race(n int, what func(int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			<-start
			errs[i] = what(i)
		})
	}
	close(start)
	group.Wait()
	return errs
}

func TestS4_ClaimOfTwoOwners(t *testing.T) {
	f := newFixture(t)
	f.claim(7, nodeA)
	f.claim(7, nodeA)
	f.fenced(f.log.PublishClaim(f.ctx, 7, nodeB, nil), "7.0", "node-a")
	f.append(commit("7.1"))
	f.claim(7, nodeA)
	f.fenced(f.log.PublishClaim(f.ctx, 7, nodeB, nil), "7.0", "node-a")
	other := nodeA
	other.Area = "a new disk"
	f.fenced(f.log.PublishClaim(f.ctx, 7, other, nil), "7.0", "node-a")
	f.fenced(f.log.PublishClaim(f.ctx, 6, nodeB, nil), "7.1", "node-a")
}

func TestS4_RacingClaims(t *testing.T) {
	f := newFixture(t)
	for claim := int64(1); claim <= 10; claim++ {
		errs := race(8, func(i int) error {
			return f.log.PublishClaim(f.ctx, claim, history.Owner{UID: "uid", Node: fmt.Sprint(i), Area: "area"}, nil)
		})
		record, _, err := f.log.Read(f.ctx, history.Name{Claim: claim})
		f.Expect(err).NotTo(HaveOccurred())
		for i, err := range errs {
			if record.Owner.Node == fmt.Sprint(i) {
				f.Expect(err).NotTo(HaveOccurred())
			} else {
				f.Expect(err).To(MatchError(history.ErrFenced))
			}
		}
	}
}

// While one owner commits as fast as it can, another takes over: once the claim is published, at most the one commit that
// was in flight follows, and whatever the claim had not seen is found as a fork.
func TestS4_TakeOverUnderLoad(t *testing.T) {
	for range 20 {
		f := newFixture(t)
		f.claim(1, nodeA)
		published := 0
		errs := race(2, func(i int) error {
			if i == 1 {
				err := f.log.PublishClaim(f.ctx, 2, nodeB, nil)
				entries, listErr := f.log.Entries(f.ctx)
				published = len(entries)
				return errors.Join(err, listErr)
			}
			for n := int64(1); ; n++ {
				c := history.Name{Claim: 1, Number: n}
				if _, err := f.log.Append(f.ctx, commit(c.String()), before(c)); err != nil {
					return err
				}
			}
		})
		f.fenced(errs[0], "2.0", "node-b")
		f.Expect(errs[1]).NotTo(HaveOccurred())
		entries, err := f.log.Entries(f.ctx)
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(len(entries)-published).To(BeNumerically("<=", 1), "commits that followed the claim")
		record, _, err := f.log.Read(f.ctx, name("2.0"))
		f.Expect(err).NotTo(HaveOccurred())
		forks, err := f.log.Forks(f.ctx, 2)
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(entries[1+len(forks)].Name).To(Equal(record.Base), "everything else was seen by the claim")
		f.Expect(entries[1:1+len(forks)]).To(BeEquivalentTo(append([]history.Entry{}, forks...)), "and nothing else is a fork")
	}
}

func TestS4_OldOwnerIsFenced(t *testing.T) {
	f := newFixture(t)
	f.fill("6.0 6.1 6.2")
	f.claim(7, nodeB)
	_, err := f.log.Append(f.ctx, commit("6.3"), name("6.2"))
	f.fenced(err, "7.0", "node-b")
	f.fenced(f.log.Standing(f.ctx, 6, name("6.2")), "7.0", "node-b")
	f.fenced(f.readBack(history.Ref{Name: name("6.2")}, nil), "7.0", "node-b")
	f.fenced(f.log.Bury(f.ctx, 6), "7.0", "node-b")
	f.fenced(f.log.PublishClaim(f.ctx, 6, nodeA, nil), "7.0", "node-b")
	_, err = f.log.Prune(f.ctx, 6, history.Keep{Last: 1})
	f.fenced(err, "7.0", "node-b")
	f.Expect(f.listed()).To(Equal("7.0 6.2 6.1 6.0"))
}

// Retention may remove all that the old owner knew: it is fenced nevertheless.
func TestS4_FencedAfterItsNumbersWerePruned(t *testing.T) {
	f := newFixture(t)
	f.fill("6.0 6.1 6.2 7.0 7.1 7.2")
	f.Expect(f.log.Prune(f.ctx, 7, history.Keep{Last: 1})).To(Equal(names("7.1 6.2 6.1 6.0")))
	f.Expect(f.listed()).To(Equal("7.2 7.0"))
	_, err := f.log.Append(f.ctx, commit("6.3"), name("6.2"))
	f.fenced(err, "7.2", "node-a")
	_, err = f.log.Append(f.ctx, commit("6.1"), history.Name{})
	f.fenced(err, "7.2", "node-a")
	f.fenced(f.log.PublishClaim(f.ctx, 6, nodeA, nil), "7.2", "node-a")
}

// A damaged record of the new owner fences all the same.
func TestS4_DamagedNewerCommitFences(t *testing.T) {
	f := newFixture(t)
	f.fill("6.0 6.1 7.0")
	f.replace(f.key("7.0"), "{")
	_, err := f.log.Append(f.ctx, commit("6.2"), name("6.1"))
	f.fenced(err, "7.0", "")
}

func TestStanding(t *testing.T) {
	for _, c := range []struct {
		history, last string
		claim         int64
		want          error
	}{
		{"1.0", "", 1, nil},
		{"1.0 1.1", "1.1", 1, nil},
		{"1.0 1.1 2.0", "1.1", 2, nil}, // last is a parent's name: nothing was written under our claim
		{"1.0 1.1 2.0 2.1", "2.1", 2, nil},
		{"1.0 1.1", "1.2", 1, history.ErrLost},
		{"1.0", "1.1", 1, history.ErrLost},
		{"1.0 1.1", "", 2, history.ErrLost},
		{"", "1.1", 1, history.ErrLost},
		{"", "", 1, history.ErrLost},
		{"1.0 1.1 1.2", "1.1", 1, history.ErrFenced},
		{"1.0 1.1 2.0", "1.1", 1, history.ErrFenced},
		{"2.0", "1.1", 1, history.ErrFenced},
	} {
		t.Run(fmt.Sprintf("%s/%s/%d", c.history, c.last, c.claim), func(t *testing.T) {
			f := newFixture(t)
			f.fill(c.history)
			var last history.Name
			if c.last != "" {
				last = name(c.last)
			}
			err := f.log.Standing(f.ctx, c.claim, last)
			if c.want == nil {
				f.Expect(err).NotTo(HaveOccurred())
				return
			}
			f.Expect(err).To(MatchError(c.want))
		})
	}
}

func TestLostErrorNamesBackup(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2")
	f.Expect(f.store.Delete(f.ctx, f.key("1.2"))).To(Succeed())
	err := f.log.Standing(f.ctx, 1, name("1.2"))
	var lost *history.LostError
	f.Expect(errors.As(err, &lost)).To(BeTrue())
	f.Expect(*lost).To(Equal(history.LostError{Workspace: "web", Name: name("1.2")}))
	f.Expect(second(f.log.Append(f.ctx, commit("1.3"), name("1.2")))).To(Succeed(), "a new backup is better than none")
	f.Expect(f.store.Delete(f.ctx, f.key("1.0"))).To(Succeed())
	f.Expect(second(f.log.Forks(f.ctx, 1))).To(MatchError(history.ErrLost))
	f.Expect(second(f.log.Prune(f.ctx, 1, history.Keep{}))).To(MatchError(history.ErrLost))
	f.Expect(f.log.PublishClaim(f.ctx, 1, nodeA, nil)).To(MatchError(history.ErrLost))
}

func TestS4_Forks(t *testing.T) {
	f := newFixture(t)
	f.fill("5.0 5.1 6.0 6.1 6.2 7.0 7.1")
	f.Expect(f.log.Forks(f.ctx, 7)).To(BeEmpty())
	f.inject(commit("6.3"))
	forks, err := f.log.Forks(f.ctx, 7)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(join(forks)).To(Equal("6.3"))
	f.inject(incomplete("5.2"))
	forks, err = f.log.Forks(f.ctx, 7)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(join(forks)).To(Equal("6.3 5.2"), "also of a claim that was not the last before ours")
	f.Expect(f.log.Standing(f.ctx, 7, name("7.1"))).To(Succeed(), "a fork fences nobody")
	f.append(commit("7.2"))
	// The next owner saw the forks: for it they are history.
	f.claim(8, nodeB)
	f.Expect(f.log.Forks(f.ctx, 8)).To(BeEmpty())
	f.inject(commit("4.1"))
	forks, err = f.log.Forks(f.ctx, 8)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(join(forks)).To(Equal("4.1"), "a claim of which nothing was seen")
}

func TestClaimRecord(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2 2.0 3.0 3.1")
	parent := history.Ref{Name: name("3.1"), Hash: "abc"}
	f.Expect(f.log.PublishClaim(f.ctx, 5, nodeB, &parent)).To(Succeed())
	c, _, err := f.log.Read(f.ctx, name("5.0"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Owner).To(Equal(nodeB))
	f.Expect(c.Parent).To(Equal(&parent))
	f.Expect(c.Base).To(Equal(name("3.1")))
	f.Expect(c.Seen).To(Equal(names("3.1 2.0 1.2")))
	f.Expect(c.Complete()).To(BeFalse())
	f.Expect(c.Created.IsZero()).To(BeFalse())
	f.Expect(f.log.PublishClaim(f.ctx, 4, nodeA, nil)).To(MatchError(history.ErrFenced))
}

// readBack proves what a final backup has to: that it is the newest entry, and that all of it is in the store.
func (f *fixture) readBack(ref history.Ref, own []history.Pack) error {
	if err := f.log.Standing(f.ctx, ref.Name.Claim, ref.Name); err != nil {
		return err
	}
	return f.log.Verify(f.ctx, ref, own, make([]byte, 4))
}

func TestS1_ReadBack(t *testing.T) {
	for what, c := range map[string]struct {
		harm func(f *fixture, ref *history.Ref, old, own history.Pack)
		want string
	}{
		"intact":           {func(*fixture, *history.Ref, history.Pack, history.Pack) {}, ""},
		"newer claim":      {func(f *fixture, _ *history.Ref, _, _ history.Pack) { f.claim(2, nodeB) }, "2.0 of node node-b is in the store"},
		"later commit":     {func(f *fixture, _ *history.Ref, _, _ history.Pack) { f.append(commit("1.2")) }, "1.2 of node node-a is in the store"},
		"commit gone":      {func(f *fixture, _ *history.Ref, _, _ history.Pack) { f.drop(f.key("1.1")) }, "not in the store any more: 1.1"},
		"commit replaced":  {func(_ *fixture, ref *history.Ref, _, _ history.Pack) { ref.Hash = strings.Repeat("0", 64) }, "it is not what was written"},
		"commit damaged":   {func(f *fixture, _ *history.Ref, _, _ history.Pack) { f.replace(f.key("1.1"), "{}") }, "damaged"},
		"buried":           {func(f *fixture, _ *history.Ref, _, _ history.Pack) { f.Expect(f.log.Bury(f.ctx, 1)).To(Succeed()) }, "it was deleted under claim 1"},
		"old pack gone":    {func(f *fixture, _ *history.Ref, old, _ history.Pack) { f.drop(packKey(old)) }, "not found"},
		"old pack short":   {func(f *fixture, _ *history.Ref, old, _ history.Pack) { f.replace(packKey(old), "ol") }, "2 bytes instead of 3"},
		"own pack gone":    {func(f *fixture, _ *history.Ref, _, own history.Pack) { f.drop(packKey(own)) }, "not found"},
		"own pack changed": {func(f *fixture, _ *history.Ref, _, own history.Pack) { f.replace(packKey(own), "OWN") }, "the checksum differs"},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			f.claim(1, nodeA)
			old, err := putPack(f.ctx, f.domain, []byte("old"))
			f.Expect(err).NotTo(HaveOccurred())
			own, err := putPack(f.ctx, f.domain, []byte("own"))
			f.Expect(err).NotTo(HaveOccurred())
			made := commit("1.1")
			made.Packs = []history.Pack{old, own}
			ref := f.append(made)
			c.harm(f, &ref, old, own)
			err = f.readBack(ref, []history.Pack{own})
			if c.want == "" {
				f.Expect(err).NotTo(HaveOccurred())
				return
			}
			f.Expect(err).To(MatchError(ContainSubstring(c.want)))
		})
	}
}

func (f *fixture) drop(key string) { f.Expect(f.store.Delete(f.ctx, key)).To(Succeed()) }

func packKey(p history.Pack) string { return "d/team/p/" + p.ID[:2] + "/" + p.ID }

func TestBuryThenNewLife(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 2.0 2.1")
	f.fenced(f.log.Bury(f.ctx, 1), "2.1", "node-a")
	f.Expect(f.log.Bury(f.ctx, 2)).To(Succeed())
	f.Expect(f.log.Bury(f.ctx, 2)).To(Succeed(), "again")
	f.Expect(f.listed()).To(BeEmpty())
	f.Expect(f.log.NewestClaim(f.ctx)).To(Equal(int64(2)), "its claims are not used again")
	_, _, err := f.log.Current(f.ctx)
	f.Expect(err).To(MatchError(history.ErrNoBackup))

	var fenced *history.FencedError
	for _, err := range []error{
		second(f.log.Append(f.ctx, commit("2.2"), name("2.1"))), f.log.PublishClaim(f.ctx, 2, nodeA, nil), f.log.Standing(f.ctx, 2, name("2.1")), f.log.Bury(f.ctx, 1),
	} {
		f.Expect(errors.As(err, &fenced)).To(BeTrue())
		f.Expect(*fenced).To(Equal(history.FencedError{Workspace: "web", By: name("2.0"), Buried: true}))
	}

	f.fill("3.0 3.1")
	f.Expect(f.listed()).To(Equal("3.1 3.0"))
	f.Expect(f.log.Bury(f.ctx, 2)).To(MatchError(history.ErrFenced), "the dead cannot bury the living")
	f.inject(commit("2.3"))
	f.Expect(f.log.Forks(f.ctx, 3)).To(BeEmpty(), "what is dead is no fork")
	f.Expect(f.log.Prune(f.ctx, 3, history.Keep{Last: 1})).To(BeEmpty())
	f.Expect(f.log.Standing(f.ctx, 3, name("3.1"))).To(Succeed())
}

func TestBuryWithoutHistory(t *testing.T) {
	f := newFixture(t)
	f.Expect(f.log.Bury(f.ctx, 4)).To(Succeed())
	f.Expect(f.log.NewestClaim(f.ctx)).To(Equal(int64(4)))
	f.Expect(f.log.Bury(f.ctx, 3)).To(MatchError(history.ErrFenced))
	f.Expect(f.log.Bury(f.ctx, 5)).To(Succeed())
	f.Expect(f.log.NewestClaim(f.ctx)).To(Equal(int64(5)))
}

// The claim's record and the commit are each there whole or not at all, whatever write fails.
func TestS2_EveryFailedWriteCanBeRepeated(t *testing.T) {
	broken := errors.New("broken")
	for failing := range 8 {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d applied %v", failing, applied), func(t *testing.T) {
				f := newFixture(t)
				s, writes := f.store, 0
				hit := func() bool { writes++; return writes == failing+1 }
				if applied {
					s = storetest.LostReply(s, func(string) bool { return hit() })
				} else {
					s = storetest.Faulty(s, func(op, _ string) error {
						if op == "put" && hit() {
							return broken
						}
						return nil
					})
				}
				d, err := history.OpenDomain(f.ctx, s, "team", "cluster", false)
				f.Expect(err).NotTo(HaveOccurred())
				l, c, p := d.Workspace("web"), stray("1.1"), history.Pack{}
				repeat := func(what func() error) {
					if err := what(); err != nil {
						f.Expect(err).To(Or(MatchError(broken), MatchError(storetest.ErrReplyLost)))
						f.Expect(what()).To(Succeed())
					}
				}
				repeat(func() error { return l.PublishClaim(f.ctx, 1, nodeA, nil) })
				repeat(func() (err error) { p, err = putPack(f.ctx, d, []byte("x")); return err })
				c.Packs = []history.Pack{p}
				repeat(func() error { return second(l.Append(f.ctx, c, history.Name{})) })
				repeat(func() error { return d.Pin(f.ctx, "pin", c, history.Pin{Kind: history.PinSnapshot}) })
				repeat(func() error { return l.Bury(f.ctx, 1) })
				objects, err := f.store.List(f.ctx, "d/team/w/", "", 0)
				f.Expect(err).NotTo(HaveOccurred())
				f.Expect(objects).To(HaveLen(3))
				graves, err := f.store.List(f.ctx, "d/team/t/", "", 0)
				f.Expect(err).NotTo(HaveOccurred())
				f.Expect(graves).To(HaveLen(1), "as many as tombstones")
				f.Expect(f.log.Entries(f.ctx)).To(BeEmpty(), "buried")
				_, err = f.domain.Pinned(f.ctx, "pin")
				f.Expect(err).NotTo(HaveOccurred())
			})
		}
	}
}

func TestStoreGoneIsNotFenced(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1")
	f.drop(store.IdentityKey)
	_, err := f.log.Append(f.ctx, commit("1.2"), name("1.1"))
	f.Expect(err).To(MatchError(store.ErrNotInitialized))
	f.Expect(err).NotTo(MatchError(history.ErrFenced))
}

// What a new owner goes on from stays, whenever he takes over while the old one commits and prunes.
func TestS4_RetentionKeepsWhatANewOwnerGoesOnFrom(t *testing.T) {
	for at, want := range map[string]string{"list d/team/w/web/": "1.3", "put d/team/w/web/": "1.3", "delete d/team/w/web/": "1.4"} {
		for _, keep := range []history.Keep{{Last: 1}, {Last: 2}, {Last: 1, Daily: 1}} {
			t.Run(fmt.Sprint(at, keep), func(t *testing.T) {
				f := newFixture(t)
				f.fill("1.0 1.1 1.2 1.3")
				took := false
				old := f.through(storetest.Faulty(f.store, func(op, key string) error {
					if strings.HasPrefix(op+" "+key, at) && !took {
						took = true
						return f.log.PublishClaim(f.ctx, 2, nodeB, nil)
					}
					return nil
				})).Workspace("web")
				_, listed, err := old.Extend(f.ctx, commit("1.4"), name("1.3"))
				if err == nil {
					_, err = listed.Prune(f.ctx, 1, keep)
				}
				f.Expect(took).To(BeTrue())
				f.Expect(err).To(Or(BeNil(), MatchError(history.ErrFenced)))
				base, _, err := f.log.Base(f.ctx, 2)
				f.Expect(err).NotTo(HaveOccurred())
				f.Expect(base.Name.String()).To(Equal(want))
			})
		}
	}
}

// Whoever prunes after Extend asks for nothing but what goes.
func TestExtendSparesAListing(t *testing.T) {
	f := newFixture(t)
	f.fill("1.0 1.1 1.2 1.3")
	var calls []string
	log := f.through(storetest.Faulty(f.store, func(op, key string) error {
		calls = append(calls, op+" "+key)
		return nil
	})).Workspace("web").Remembering()
	c := commit("1.4")
	c.Created = time.Unix(1, 0)
	_, listed, err := log.Extend(f.ctx, c, name("1.3"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(join(entriesOf(f, listed))).To(Equal("1.4 1.3 1.2 1.1 1.0"))
	f.Expect(f.log.Append(f.ctx, commit("1.5"), name("1.4"))).Error().NotTo(HaveOccurred())
	f.Expect(join(entriesOf(f, listed))).To(Equal("1.4 1.3 1.2 1.1 1.0"), "what comes later does not show")
	f.Expect(calls[1:]).To(Equal([]string{"list d/team/g/", "list d/team/w/web/", "put " + f.key("1.4")}))
	f.Expect(listed.Prune(f.ctx, 1, history.Keep{Last: 2})).To(Equal(names("1.2 1.1")))
	f.Expect(f.listed()).To(Equal("1.5 1.4 1.3 1.0"))

	_, none, err := log.Extend(f.ctx, commit("1.6"), name("1.4"))
	f.Expect(err).To(MatchError(history.ErrFenced), "somebody else wrote 1.5")
	f.Expect(none).To(BeNil())
	f.drop(f.key("1.5"))
	f.Expect(second2(log.Extend(f.ctx, commit("1.6"), name("1.5")))).To(MatchError(history.ErrLost))
}

func entriesOf(f *fixture, l *history.Log) []history.Entry {
	entries, err := l.Entries(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	return entries
}

func second2[T, U any](_ T, _ U, err error) error { return err }
