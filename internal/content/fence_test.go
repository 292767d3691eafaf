package content_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// fenced expects a backup to be refused and returns the stray snapshot that was made in its place.
func (n *node) fenced(claim int64) string {
	n.f.t.Helper()
	return strayOf(n.f, n.Backup(n.f.ctx, saveRequest(claim)))
}

func strayOf(f *fixture, err error) string {
	f.t.Helper()
	f.Expect(err).To(MatchError(history.ErrFenced))
	var fenced *content.FencedError
	f.Expect(errors.As(err, &fenced)).To(BeTrue())
	return fenced.Stray
}

// The owner that lost the workspace commits nothing more. Its work is kept, once for every state of the tree.
func TestS4_FencedOwnerCommitsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.settled(1)
	b.fill(2)
	f.Expect(b.files()).To(Equal("file=one"))

	f.Expect(a.fenced(1)).To(BeEmpty(), "the tree equals its backup")
	f.Expect(a.journal().Backup.Reason).To(Equal("Fenced"))
	f.Expect(f.pins("")).To(BeEmpty())
	a.write("file", "two")
	stray := a.fenced(1)
	f.Expect(a.fenced(1)).To(Equal(stray), "for the same tree")
	a.restart()
	f.Expect(a.fenced(1)).To(Equal(stray), "for the same tree, after a restart")
	f.Expect(f.pins("")).To(Equal([]string{stray}))
	f.Expect(f.pinned(stray)).To(Equal("file=two"))
	a.later(2)
	a.write("file", "three")
	second := a.fenced(1)
	f.Expect(f.pins("")).To(ConsistOf(stray, second))
	f.Expect(f.pinned(second)).To(Equal("file=three"))
	f.Expect(f.entries()).To(Equal("2.0 1.1 1.0"))

	_, err := a.Release(f.ctx, saveRequest(1), idle)
	f.Expect(strayOf(f, err)).To(Equal(second))
	f.Expect(a.seen().Marker.Released).To(BeEmpty(), "the workspace was not given up by its owner")
	f.Expect(a.remove(1)).To(Equal(second))
	f.Expect(f.pins("")).To(ConsistOf(stray, second))
	b.write("file", "four")
	b.backup(2)
	f.Expect(f.entries()).To(Equal("2.1 2.0 1.1 1.0"), "the new owner noticed nothing")
	f.Expect(b.journal().Fork).To(BeEmpty())
}

func TestS4_FencedOwnerCannotClaimBuryOrSnapshot(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	b.fill(2)
	f.Expect(a.Bury(f.ctx, subject(1))).To(MatchError(history.ErrFenced))
	_, err := a.Snapshot(f.ctx, saveRequest(1), "snap", true)
	f.Expect(err).To(MatchError(history.ErrFenced))
	f.Expect(f.pins("")).To(BeEmpty())
	f.Expect(a.NewestClaim(f.ctx, subject(1))).To(Equal(int64(2)))
	f.Expect(f.node("node-c").tryFill(fillRequest(1))).To(MatchError(history.ErrFenced))
	f.Expect(f.node("node-d").tryFill(fillRequest(2))).To(MatchError(history.ErrFenced))
}

// The old owner's commit was under way when the workspace was taken over: it is kept, and fences nobody.
func TestS4_CommitInFlightIsAForkAndPinned(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "two")
	a.fault = func(op, key string) error {
		if op == "put" && strings.Contains(key, "/w/web/") && f.entries() == "1.1 1.0" {
			b.fill(2) // between the old owner's look and its write
		}
		return nil
	}
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(Succeed(), "it was committed all the same")
	f.Expect(f.entries()).To(Equal("2.0 1.2 1.1 1.0"))
	f.Expect(a.fenced(1)).To(BeEmpty(), "the next one tells")
	f.Expect(b.files()).To(Equal("file=one"))
	b.backup(2)
	b.write("file", "three")
	r := saveRequest(2)
	r.Keep = history.Keep{Last: 1}
	f.Expect(b.Backup(f.ctx, r)).To(Succeed())
	f.Expect(f.pins("")).To(Equal([]string{"fork.web.1.2"}))
	f.Expect(b.journal().Fork).To(Equal("fork.web.1.2"))
	f.Expect(f.pinned("fork.web.1.2")).To(Equal("file=two"))
	f.Expect(f.entries()).To(Equal("2.1 2.0"), "once pinned it need not stay in the history")
	f.Expect(a.fenced(1)).NotTo(BeEmpty(), "its tree is in no backup any more")
}

func TestS4_EqualContentIsAdopted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	before, err := os.Stat(a.path("file"))
	f.Expect(err).NotTo(HaveOccurred())
	calls := a.counted(func() { a.fill(2) })
	f.Expect(matching(matching(calls, "get"), "/p/")).To(BeEmpty(), "nothing is restored")
	after, err := os.Stat(a.path("file"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(os.SameFile(before, after)).To(BeTrue())
	m := a.seen().Marker
	f.Expect(m.Claim).To(Equal(int64(2)))
	f.Expect(m.Content.Source).To(Equal(content.SourceAdopted))
	f.Expect(m.Content.Backup).To(Equal("1.1"))
	a.write("file", "two")
	a.backup(2)
	f.Expect(f.entries()).To(Equal("2.1 2.0 1.1 1.0"))
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(content.ErrNotOurs), "the old claim is over")
	f.Expect(f.pins("")).To(BeEmpty())

	a.release(2)
	a.fill(3)
	f.Expect(a.seen().Position).To(Equal(volume.Published), "also what was released already")
	f.Expect(a.seen().Marker.Released).To(BeEmpty())
	f.Expect(a.files()).To(Equal("file=two"))
}

func TestS4_OtherContentIsKeptThenReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "unsaved")
	b.fill(2)
	b.write("file", "two")
	b.release(2)
	b.remove(2)

	r := fillRequest(3)
	r.InUse = busy
	f.Expect(a.tryFill(r)).To(MatchError(content.ErrInUse))
	f.Expect(a.files()).To(Equal("file=unsaved"), "users are not cut off")
	theirs, _ := f.commit("2.1")
	restoring := "get " + packKey(theirs.Packs[0])
	for _, step := range []string{"put d/team/p/", "put d/team/s/", "get d/team/p/", restoring} {
		a.fault = func(op, key string) error {
			if strings.HasPrefix(op+" "+key, step) {
				return errBroken
			}
			return nil
		}
		f.Expect(a.tryFill(fillRequest(3))).To(MatchError(errBroken), step)
		f.Expect(a.seen().Finished()).To(Equal(step != restoring), "until what holds it was read back: %s", step)
	}
	a.fault = nil
	a.fill(3)
	f.Expect(a.files()).To(Equal("file=two"))
	f.Expect(f.pins("")).To(HaveLen(1))
	f.Expect(f.pinned(f.pins("stray.web.node-a.")[0])).To(Equal("file=unsaved"))
	f.Expect(a.withdrawn("")).NotTo(BeADirectory())
}

// Unreadable files keep content of an older claim where it is: it cannot be saved as a whole.
func TestS4_UnreadableContentIsNotReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	b.fill(2)
	mend := unreadable(f, a.path("secret"))
	var incomplete *content.IncompleteError
	f.Expect(errors.As(a.tryFill(fillRequest(3)), &incomplete)).To(BeTrue())
	f.Expect(a.seen().Finished()).To(BeTrue())
	mend()
	a.later(2)
	a.fill(3)
	f.Expect(a.files()).To(Equal("file=one"))
	f.Expect(f.pins("stray.")).To(HaveLen(2))
}

func TestS4_LostJournalGoesOnWithItsOwnNumbers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "two")
	a.backup(1)
	a.forget()
	a.backup(1)
	f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"), "nothing has changed")
	f.Expect(a.journal().Backup.Name).To(Equal("1.2"))
	a.forget()
	a.write("file", "three")
	a.backup(1)
	f.Expect(f.entries()).To(Equal("1.3 1.2 1.1 1.0"))
	f.Expect(f.pins("")).To(BeEmpty())
	c, _ := f.commit("1.3")
	f.Expect(f.restored(c)).To(Equal("file=three"))
}

// Another daemon that believes to be us, from another disk, is not us.
func TestS4_SameClaimOfAnotherDiskFences(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	_, log := f.open()
	_, err := log.Append(f.ctx, history.Commit{ID: history.NewID(), Name: history.Name{Claim: 1, Number: 1}, Owner: otherOwner}, history.Name{})
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(f.pinned(a.fenced(1))).To(Equal("file=one"))
	a.forget()
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(history.ErrFenced))
}

// A write that was given up is applied late, at any moment of a later attempt: it is ours and fences nobody.
func TestS4_LateCommitFencesNobody(t *testing.T) {
	t.Parallel()
	for _, moment := range []string{"before", "list d/team/w/web/", "put d/team/p/", "put d/team/w/web/"} {
		t.Run(moment, func(t *testing.T) {
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			late := a.delayed()
			f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(errBroken))
			a.fault = func(string, string) error { return nil }
			f.Expect(a.Backup(f.ctx, func() content.SaveRequest {
				a.fault = func(op, key string) error { // settle gives the write up; then nothing else works
					if op == "put" && strings.Contains(key, "/p/") {
						return errBroken
					}
					return nil
				}
				return saveRequest(1)
			}())).To(MatchError(errBroken))
			f.Expect(a.journal().Backup.Abandoned).To(HaveLen(1))
			a.write("file", "two")
			if moment == "before" {
				late()
			}
			a.fault = func(op, key string) error {
				if strings.HasPrefix(op+" "+key, moment) {
					late()
				}
				return nil
			}
			a.backup(1)
			a.fault = nil
			f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
			c, _ := f.commit("1.2")
			f.Expect(f.restored(c)).To(Equal("file=two"))
			f.Expect(f.pins("")).To(BeEmpty())
			f.Expect(a.journal().Backup.Name).To(Equal("1.2"))
		})
	}
}

// delayed holds the node's next commit back: its writer is told that it failed. The commit is made when late is called.
func (n *node) delayed() (late func()) {
	var key string
	var data []byte
	n.Store = &holding{Store: n.Store, hold: func(k string, d []byte) bool {
		if key != "" || !strings.Contains(k, "/w/web/") {
			return false
		}
		key, data = k, slices.Clone(d)
		return true
	}}
	done := false
	return func() {
		n.f.t.Helper()
		if !done {
			done = true
			n.f.Expect(n.f.store.Put(n.f.ctx, key, data)).To(Succeed())
		}
	}
}

// Two nodes take over in turn, each with the other's last state.
func TestS4_TakeOverBackAndForth(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	nodes := []*node{f.node("node-a"), f.node("node-b")}
	nodes[0].fill(1)
	want := ""
	for claim := int64(1); claim <= 6; claim++ {
		n, other := nodes[(claim+1)%2], nodes[claim%2]
		if claim > 1 {
			n.later(2 * int(claim))
			n.fill(claim)
			f.Expect(n.files()).To(Equal(want))
			other.later(2 * int(claim))
			other.fenced(claim - 1)
		}
		want = "file=" + strings.Repeat("x", int(claim))
		n.write("file", strings.TrimPrefix(want, "file="))
		n.backup(claim)
	}
	f.Expect(f.pins("")).To(BeEmpty(), "everything was backed up in time")
	f.Expect(f.entries()).To(HavePrefix("6.1 6.0 5.1 5.0"))
}
