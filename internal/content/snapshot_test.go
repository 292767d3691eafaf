package content_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

func TestSnapshotOfHeldContent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	c, err := a.Snapshot(f.ctx, saveRequest(1), "snap", true)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Name.String()).To(Equal("1.1"))
	a.write("file", "two")
	again, err := a.Snapshot(f.ctx, saveRequest(1), "snap", true)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(again.ID).To(Equal(c.ID), "a retry changes nothing")
	f.Expect(f.pinned("snap")).To(Equal("file=one"))

	other := fillRequest(1)
	other.UID, other.Name = "uid-2", "api"
	other.Initializer.SnapshotID = named("snap")
	b := f.node("node-b")
	f.Expect(b.Provision(f.ctx, other.Subject, 1, 0)).To(Succeed())
	f.Expect(b.try(other)).To(Succeed())
	o, err := b.Observe(f.ctx, other.Subject)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(files(f, o.Volume.Path)).To(Equal("file=one"))
	f.Expect(o.Marker.Content.Source).To(Equal(content.SourceSnapshot))
	f.Expect(o.Marker.Content.SnapshotID).To(Equal("snap"))

	for range 2 {
		f.Expect(a.DropSnapshot(f.ctx, "team", "snap")).To(Succeed())
	}
	f.Expect(f.pins("")).To(BeEmpty())
}

func TestSnapshotOfWhatNobodyHolds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	_, err := b.Snapshot(f.ctx, saveRequest(0), "snap", false)
	f.Expect(noBackup(f, err).Wanted).To(Equal("a backup"))
	a.fill(1)
	a.write("file", "one")
	a.release(1)
	a.remove(1)
	c, err := b.Snapshot(f.ctx, saveRequest(0), "snap", false)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Name.String()).To(Equal("1.1"))
	f.Expect(f.pinned("snap")).To(Equal("file=one"))
	_, err = b.Snapshot(f.ctx, saveRequest(1), "other", true)
	f.Expect(err).To(MatchError(content.ErrNotOurs))
}

// What cannot be restored is not pinned: the id would be taken for ever.
func TestS1_SnapshotOfABackupThatLacksAPack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	c, _ := f.commit("1.1")
	f.Expect(os.Remove(f.at(packKey(c.Packs[0])))).To(Succeed())
	_, err := a.Snapshot(f.ctx, saveRequest(1), "snap", false)
	f.Expect(err).To(MatchError(store.ErrNotFound))
	f.Expect(f.pins("")).To(BeEmpty())
	c, err = a.Snapshot(f.ctx, saveRequest(1), "snap", true)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Name.String()).To(Equal("1.2"), "a held tree is saved anew")
	f.Expect(f.pinned("snap")).To(Equal("file=one"))
	f.Expect(os.Remove(f.at(packKey(c.Packs[0])))).To(Succeed())
	_, err = a.Snapshot(f.ctx, saveRequest(1), "snap", true)
	f.Expect(err).To(MatchError(store.ErrNotFound), "a retry looks, too")
}

func TestRewind(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	for _, data := range []string{"one", "two", "three"} {
		a.write("file", data)
		a.backup(1)
	}
	a.release(1)
	a.remove(1)
	var last content.Rewound
	for range 2 {
		var err error
		last, err = b.Rewind(f.ctx, subject(1), "1.1", "try one/1")
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(last.Newest).To(Equal("1.3"))
		f.Expect(f.pins("")).To(HaveLen(2), "again makes no more")
	}
	f.Expect(f.pins("before-restore.")).To(Equal([]string{last.PinID}))
	f.Expect(f.pinned(last.PinID)).To(Equal("file=three"))
	f.Expect(f.pins("restored.web.1.1.")).To(HaveLen(1))

	r := fillRequest(2)
	r.Rewind, r.RewindSince = "1.1", 2
	b.fault = func(op, key string) error { // the first attempt ends after the claim
		if op == "get" && strings.Contains(key, "/p/") {
			return errBroken
		}
		return nil
	}
	f.Expect(b.tryFill(r)).To(MatchError(errBroken))
	b.fault = nil
	f.Expect(b.tryFill(r)).To(Succeed())
	f.Expect(b.files()).To(Equal("file=one"))
	f.Expect(b.seen().Marker.Content.Backup).To(Equal("1.1"))
	b.backup(2)
	f.Expect(f.entries()).To(Equal("2.0 1.3 1.2 1.1 1.0"), "nothing has changed since")
	f.Expect(b.release(2)).To(Equal("1.1"))
	f.Expect(b.remove(2)).To(BeEmpty())
	a.fill(3)
	f.Expect(a.files()).To(Equal("file=one"), "who follows goes on from there, not from what was newest before")
	a.write("file", "four")
	keep := saveRequest(3)
	keep.Keep = history.Keep{Last: 1}
	f.Expect(a.Backup(f.ctx, keep)).To(Succeed())
	f.Expect(f.entries()).To(Equal("3.1 3.0"))
	f.Expect(f.pinned(last.PinID)).To(Equal("file=three"), "and that stays")
}

// A request to go back in time stands until content was made of it, under whichever claim, and not a moment longer.
func TestRewindStands(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "two")
	a.release(1)
	a.remove(1)
	newest, _ := f.commit("1.2")
	request := func(claim int64) content.FillRequest {
		r := fillRequest(claim)
		r.Rewind, r.RewindSince, r.Expected = "1.1", 2, history.Ref{Name: newest.Name}
		return r
	}
	b := f.node("node-b")
	b.fault = func(op, key string) error {
		if op == "get" && strings.Contains(key, "/p/") {
			return errBroken
		}
		return nil
	}
	f.Expect(b.tryFill(request(2))).To(MatchError(errBroken))
	c := f.node("node-c")
	f.Expect(c.tryFill(request(3))).To(Succeed())
	c.write("lost", "with the node")
	readable := unreadable(f, c.path("secret"))
	c.backup(3)
	f.Expect(f.entries()).To(HavePrefix("3.1 3.0"))
	readable()
	c = f.node("node-e")
	f.Expect(c.tryFill(request(4))).To(Succeed(), "an incomplete backup is nothing to go on from")
	f.Expect(c.files()).To(Equal("file=one"), "the next owner takes the request over")
	c.write("file", "one, and more")
	c.backup(4)
	d := f.node("node-d")
	f.Expect(d.tryFill(request(5))).To(Succeed())
	f.Expect(d.files()).To(Equal("file=one, and more"), "what was made of it is not taken back")
}

func TestRewindPastDamage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "two")
	a.release(1)
	a.remove(1)
	f.damage("1.2")
	var damaged *content.DamagedError
	f.Expect(errors.As(a.tryFill(fillRequest(2)), &damaged)).To(BeTrue(), "what is newest is not passed over")

	rewound, err := a.Rewind(f.ctx, subject(1), "1.1", "x")
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(rewound.Newest).To(BeEmpty())
	f.Expect(rewound.Damage).To(ContainSubstring("damaged"))
	f.Expect(f.pins("")).To(HaveLen(1))
	r := fillRequest(2)
	r.Rewind, r.RewindSince = "1.1", 2
	f.Expect(a.tryFill(r)).To(Succeed())
	f.Expect(a.files()).To(Equal("file=one"))
}

func TestRewindRefusesAndTolerates(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	unreadable(f, a.path("secret"))
	a.backup(1)
	_, err := a.Rewind(f.ctx, subject(1), "1.9", "x")
	f.Expect(noBackup(f, err).Wanted).To(Equal("backup 1.9"))
	_, err = a.Rewind(f.ctx, subject(1), "x", "x")
	f.Expect(err).To(HaveOccurred())
	rewound, err := a.Rewind(f.ctx, subject(1), "1.1", "x")
	f.Expect(err).NotTo(HaveOccurred(), "an incomplete backup is better than none, if somebody asks for it")
	f.Expect(rewound).To(Equal(content.Rewound{}))
	a.remove1(f)
	c, _ := f.commit("1.1")
	f.Expect(os.Remove(f.at(packKey(c.Packs[0])))).To(Succeed())
	_, err = a.Rewind(f.ctx, subject(1), "1.1", "y")
	f.Expect(err).To(MatchError(store.ErrNotFound))
	f.Expect(f.pins("restored.")).To(HaveLen(1), "what lacks a pack is not pinned")
}

// remove1 gives the content of claim 1 up.
func (n *node) remove1(f *fixture) {
	f.t.Helper()
	f.Expect(n.Discard(f.ctx, subject(1), idle)).To(Succeed())
	n.remove(1)
}

func TestRewindToTheNewest(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	f.Expect(a.Rewind(f.ctx, subject(1), "1.1", "x")).To(Equal(content.Rewound{}))
	f.Expect(f.pins("before-restore.")).To(BeEmpty())
}

func TestBuryAndTend(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.release(1)
	a.remove(1)
	for range 2 {
		f.Expect(a.Bury(f.ctx, subject(1))).To(Succeed())
	}
	f.Expect(a.Tend(f.ctx, "team", time.Hour)).To(BeZero(), "the grace is not over")
	r := fillRequest(2)
	r.UID = "uid-2"
	b.f.Expect(b.tryFill(r)).To(Succeed())
	o, err := b.Observe(f.ctx, r.Subject)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(o.Marker.Content.Source).To(Equal(content.SourceEmpty), "a new life")
	f.Expect(files(f, o.Volume.Path)).To(BeEmpty())
	f.Expect(a.Bury(f.ctx, subject(1))).To(MatchError(history.ErrFenced))
	f.Expect(a.Tend(f.ctx, "team", -time.Hour)).To(Equal(2), "the dead backup and its claim")
	f.Expect(a.Tend(f.ctx, "team", -time.Hour)).To(BeZero())
	f.Expect(f.entries()).To(Equal("2.0"))
}

// Stray snapshots have their time by the store's clock, whatever the node's says.
func TestStraysExpire(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	stray := a.remove(1)
	d, _ := f.open()
	p, err := d.Pinned(f.ctx, stray)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(p.Kind).To(Equal(history.PinStray))
	f.Expect(p.Expires).To(BeTemporally("~", time.Now().Add(720*time.Hour), time.Minute))
	f.Expect(a.Tend(f.ctx, "team", 0)).To(BeZero())

	a.StrayRetention = -time.Hour
	a.later(100)
	a.fill(2)
	a.write("file", "two")
	f.Expect(a.remove(2)).NotTo(Equal(stray))
	f.Expect(a.Tend(f.ctx, "team", 0)).To(Equal(1))
	f.Expect(f.pins("")).To(Equal([]string{stray}))
}

// A snapshot in the wrong hands: fenced while it is made.
func TestSnapshotFailsAsABackupDoes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.fault = func(op, key string) error {
		if op == "put" && strings.Contains(key, "/s/") {
			return errBroken
		}
		return nil
	}
	_, err := a.Snapshot(f.ctx, saveRequest(1), "snap", true)
	f.Expect(errors.Is(err, errBroken)).To(BeTrue())
	a.fault = nil
	c, err := a.Snapshot(f.ctx, saveRequest(1), "snap", true)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Name.String()).To(Equal("1.1"), "the backup of the first attempt")
}
