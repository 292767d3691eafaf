package content_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

func TestS1_ContentGoesOnlyAfterItsFinalBackup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	f.Expect(a.release(1)).To(Equal("1.1"))
	o := a.seen()
	f.Expect(o.Marker.Released).To(Equal("1.1"))
	f.Expect(o.Position).To(Equal(volume.Withdrawn), "out of everybody's reach")
	f.Expect(a.release(1)).To(Equal("1.1"), "again")
	f.Expect(f.entries()).To(Equal("1.1 1.0"))
	f.Expect(a.remove(1)).To(BeEmpty(), "nothing was unsaved")
	f.Expect(a.remove(1)).To(BeEmpty(), "again")
	f.Expect(f.pins("")).To(BeEmpty())
	_, known := a.Area.Journal().Get(uid)
	f.Expect(known).To(BeFalse())
	c, _ := f.commit("1.1")
	f.Expect(f.restored(c)).To(Equal("file=one"))
}

// Whatever call of the store fails, the content stays until a final backup was read back; then it may go and lacks nothing.
func TestS1_EveryFailureOfTheStoreKeepsTheContent(t *testing.T) {
	t.Parallel()
	calls := 0
	for failing := 0; failing <= calls; failing++ {
		for _, lost := range []bool{false, true} {
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			at := 0
			next := func() bool { at++; return at == failing }
			if lost {
				a.lost = func(string) bool { return next() }
			} else {
				a.fault = func(string, string) error {
					if next() {
						return errBroken
					}
					return nil
				}
			}
			name, err := a.Release(f.ctx, saveRequest(1), idle)
			calls = max(calls, at)
			if err != nil {
				f.Expect(a.seen().Marker.Released).To(BeEmpty(), "call %d", failing)
				f.Expect(a.journal().Backup.Attempts).To(Equal(1))
				f.Expect(files(f, a.withdrawn(""))).To(Equal("file=one"))
				a.fault, a.lost = nil, nil
				name = a.release(1)
			}
			a.fault, a.lost = nil, nil
			f.Expect(a.remove(1)).To(BeEmpty())
			c, _ := f.commit(name)
			f.Expect(f.restored(c)).To(Equal("file=one"), "call %d", failing)
			f.Expect(f.pins("")).To(BeEmpty())
			_, log := f.open()
			current, _, err := log.Current(f.ctx)
			f.Expect(err).NotTo(HaveOccurred())
			f.Expect(current.Name.String()).To(Equal(name))
		}
	}
	NewWithT(t).Expect(calls).To(BeNumerically(">", 10))
}

// Somebody begins to use the content between the two questions, or uses it all the time: it is left to them.
func TestS1_ContentInUseIsNotReleased(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	_, err := a.Release(f.ctx, saveRequest(1), busy)
	f.Expect(err).To(MatchError(content.ErrInUse))
	f.Expect(a.seen().Position).To(Equal(volume.Published))
	f.Expect(a.journal().Backup.Attempts).To(BeZero(), "to wait is no failure")

	for _, take := range []func() error{
		func() error { _, err := a.Release(f.ctx, saveRequest(1), a.busyOnceWithdrawn()); return err },
		func() error { return a.Discard(f.ctx, subject(1), a.busyOnceWithdrawn()) },
		func() error {
			_, err := a.Remove(f.ctx, subject(1), content.Consent{}, a.busyOnceWithdrawn())
			return err
		},
	} {
		f.Expect(take()).To(MatchError(content.ErrInUse))
		f.Expect(a.seen().Position).To(Equal(volume.Published), "put back")
		f.Expect(a.seen().Marker.Released).To(BeEmpty())
	}
	f.Expect(a.files()).To(Equal("file=one"))
	f.Expect(f.entries()).To(Equal("1.0"))
}

func TestS1_ChangeAfterTheReleaseIsKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.release(1)
	f.Expect(os.WriteFile(a.withdrawn("file"), []byte("two"), 0o644)).To(Succeed())
	stray := a.remove(1)
	f.Expect(f.pins("")).To(Equal([]string{stray}))
	f.Expect(stray).To(HavePrefix("stray.web.node-a."))
	f.Expect(f.pinned(stray)).To(Equal("file=two"))
	c, _ := f.commit("1.1")
	f.Expect(f.restored(c)).To(Equal("file=one"), "the backup is what it was")
}

// A process of no known pod that has a file open for writing keeps content from being released, and from being removed.
func TestS1_OpenWriterKeepsContent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	open, err := os.OpenFile(a.path("file"), os.O_WRONLY, 0)
	f.Expect(err).NotTo(HaveOccurred())
	defer open.Close()
	var writer *volume.WriterError
	_, err = a.Release(f.ctx, saveRequest(1), idle)
	f.Expect(errors.As(err, &writer)).To(BeTrue())
	f.Expect(writer.Name).To(Equal("file"))
	f.Expect(a.seen().Marker.Released).To(BeEmpty())
	f.Expect(open.Close()).To(Succeed())
	a.release(1)

	open, err = os.OpenFile(a.withdrawn("file"), os.O_WRONLY, 0)
	f.Expect(err).NotTo(HaveOccurred())
	_, err = a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	f.Expect(errors.As(err, &writer)).To(BeTrue())
	f.Expect(f.pins("")).To(BeEmpty(), "nothing is saved as long as it goes on changing")
	f.Expect(open.Close()).To(Succeed())
	f.Expect(a.remove(1)).To(BeEmpty())
}

// While the backup is read back, which may take long, somebody writes who was nobody's user when it was looked for them.
func TestS1_ChangeDuringReadBackIsKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	wrote := false
	a.fault = func(op, key string) error { // the only content that is fetched is fetched to be read back
		if op == "get" && strings.Contains(key, "/p/") && !wrote {
			wrote = true
			return os.WriteFile(a.withdrawn("file"), []byte("two"), 0o644)
		}
		return nil
	}
	f.Expect(a.release(1)).To(Equal("1.1"))
	f.Expect(wrote).To(BeTrue())
	stray := a.remove(1)
	f.Expect(stray).NotTo(BeEmpty())
	f.Expect(f.pinned(stray)).To(Equal("file=two"))
}

// The journal is a cache: without it the content is compared with the backup once more.
func TestS1_RemoveWithoutJournal(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.release(1)
	a.forget()
	f.Expect(a.journal().Class).To(Equal("default"))
	f.Expect(a.remove(1)).To(BeEmpty())
	f.Expect(f.pins("")).To(BeEmpty())

	a.fill(2)
	a.write("file", "two")
	a.release(2)
	f.Expect(os.WriteFile(a.withdrawn("file"), []byte("three"), 0o644)).To(Succeed())
	a.forget()
	f.Expect(f.pinned(a.remove(2))).To(Equal("file=three"))
}

// Content that changes while it is saved for the last time is not removed.
func TestS1_ChangeWhileTheStrayIsSaved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.fault = func(op, key string) error {
		if op == "put" && strings.Contains(key, "/s/") {
			return os.WriteFile(a.withdrawn("file"), []byte("two"), 0o644)
		}
		return nil
	}
	_, err := a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	f.Expect(err).To(MatchError(content.ErrChanging))
	f.Expect(files(f, a.withdrawn(""))).To(Equal("file=two"))
	a.fault = nil
	a.later(2)
	f.Expect(f.pinned(a.remove(1))).To(Equal("file=two"))
	f.Expect(f.pins("stray.")).To(HaveLen(2))
}

// A bucket rule removed what an unchanged tree's backup refers to: the final backup is made anew.
func TestS1_PackOfTheBackupIsGone(t *testing.T) {
	t.Parallel()
	for what, harm := range map[string]func(f *fixture, path string){
		"gone":    func(f *fixture, path string) { f.Expect(os.Remove(path)).To(Succeed()) },
		"short":   func(f *fixture, path string) { f.Expect(os.Truncate(path, 5)).To(Succeed()) },
		"changed": func(f *fixture, path string) { flip(f, path) },
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			a.backup(1)
			c, _ := f.commit("1.1")
			harm(f, f.at(packKey(c.Packs[0])))
			f.Expect(a.release(1)).To(Equal("1.2"))
			f.Expect(a.remove(1)).To(BeEmpty())
			c, _ = f.commit("1.2")
			f.Expect(f.restored(c)).To(Equal("file=one"))
		})
	}
}

func TestS1_CommitOfTheBackupIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	_, log := f.open()
	entries, err := log.Entries(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	objects, err := f.store.List(f.ctx, "d/team/w/web/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(objects).To(HaveLen(len(entries)))
	f.Expect(f.store.Delete(f.ctx, objects[0].Key)).To(Succeed())
	f.Expect(a.release(1)).To(Equal("1.2"))
	f.Expect(a.journal().Lost).To(Equal("1.1"))
	c, _ := f.commit("1.2")
	f.Expect(f.restored(c)).To(Equal("file=one"))
}

// flip changes the last byte and not the size.
func flip(f *fixture, path string) {
	f.t.Helper()
	data, err := os.ReadFile(path)
	f.Expect(err).NotTo(HaveOccurred())
	data[len(data)-1] ^= 1
	f.Expect(os.Chmod(path, 0o600)).To(Succeed())
	f.Expect(os.WriteFile(path, data, 0o600)).To(Succeed())
}

// A restore that failed half-way leaves nothing that anybody could take for content.
func TestS1_FailedRestoreThenRemove(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.release(1)
	a.remove(1)
	b.fault = func(op, key string) error {
		if op == "get" && strings.Contains(key, "/p/") {
			return errBroken
		}
		return nil
	}
	f.Expect(b.tryFill(fillRequest(2))).To(MatchError(errBroken))
	f.Expect(b.seen().Finished()).To(BeFalse())
	f.Expect(b.Backup(f.ctx, saveRequest(2))).To(MatchError(content.ErrNotOurs))
	_, err := b.Release(f.ctx, saveRequest(2), idle)
	f.Expect(err).To(MatchError(content.ErrNotOurs))
	b.fault = nil
	f.Expect(b.remove(2)).To(BeEmpty())
	f.Expect(f.entries()).To(Equal("2.0 1.1 1.0"), "nothing was committed under claim 2")
	f.Expect(f.pins("")).To(BeEmpty())
	a.fill(3)
	f.Expect(a.files()).To(Equal("file=one"))
	f.Expect(a.seen().Marker.Content.Backup).To(Equal("1.1"))
}

func TestS1_IncompleteBackupKeepsTheContent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	unreadable(f, a.path("secret"))
	a.backup(1)
	f.Expect(a.journal().Backup.Complete).To(BeFalse())
	f.Expect(a.journal().Backup.Problem).To(ContainSubstring("1 files could not be read: secret: resource temporarily unavailable"))

	refuse := func(accept, backup string) {
		t.Helper()
		r := saveRequest(1)
		r.Consent.Incomplete = accept
		_, err := a.Release(f.ctx, r, idle)
		var incomplete *content.IncompleteError
		f.Expect(errors.As(err, &incomplete)).To(BeTrue(), "%v", err)
		f.Expect(incomplete.Backup).To(Equal(backup))
		f.Expect(incomplete.Count).To(Equal(int64(1)))
		f.Expect(a.seen().Marker.Released).To(BeEmpty())
		f.Expect(a.journal().Backup.Reason).To(Equal("Incomplete"))
	}
	refuse("", "1.1")
	refuse("1.0", "1.1")
	refuse("1.2", "1.1")
	f.Expect(os.WriteFile(a.withdrawn("file"), []byte("two"), 0o644)).To(Succeed())
	refuse("1.1", "1.2") // what was accepted is not what lies there now

	r := saveRequest(1)
	r.Consent.Incomplete = "1.2"
	f.Expect(a.Release(f.ctx, r, idle)).To(Equal("1.3"))
	f.Expect(a.Release(f.ctx, r, idle)).To(Equal("1.3"), "again")
	c, _ := f.commit("1.3")
	f.Expect(c.Accepted).To(BeTrue())
	f.Expect(f.restored(c)).To(Equal("file=two"))
	f.Expect(a.remove(1)).To(BeEmpty())
	f.Expect(f.entries()).To(Equal("1.3 1.2 1.1 1.0"))

	b := f.node("node-b")
	b.fill(2)
	f.Expect(b.files()).To(Equal("file=two"), "accepted is complete")
}

// Acceptance is for one release: a crash in the middle of it does not need a person again.
func TestS1_AcceptedBackupIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	unreadable(f, a.path("secret"))
	a.backup(1)
	r := saveRequest(1)
	r.Consent.Incomplete = "1.1"
	a.lost = func(key string) bool { return strings.Contains(key, "/w/web/") }
	_, err := a.Release(f.ctx, r, idle)
	f.Expect(err).To(HaveOccurred())
	a.lost = nil
	a.restart()
	f.Expect(a.Release(f.ctx, r, idle)).To(Equal("1.2"))
	f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
}

// Content without a release, of whatever claim, is saved before it goes; what cannot be read keeps it here.
func TestS1_RemoveOfUnsavedContent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	_, err := a.Remove(f.ctx, subject(1), content.Consent{}, busy)
	f.Expect(err).To(MatchError(content.ErrInUse))
	f.Expect(f.pinned(a.remove(1))).To(Equal("file=one"))

	a.fill(2)
	a.write("file", "two")
	unreadable(f, a.path("secret"))
	a.later(2)
	for range 2 {
		_, err = a.Remove(f.ctx, subject(2), content.Consent{}, idle)
		var incomplete *content.IncompleteError
		f.Expect(errors.As(err, &incomplete)).To(BeTrue(), "%v", err)
		f.Expect(f.pins("stray.web.node-a.")).To(HaveLen(2), "what can be read is kept, once")
		f.Expect(f.pinned(incomplete.Backup)).To(Equal("file=two"))
		f.Expect(os.ReadFile(a.withdrawn("file"))).To(BeEquivalentTo("two"))
	}
}

// A snapshot that was kept has had its time: whether it is still there is looked at before the content goes.
func TestS1_ExpiredStrayIsNoCopy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	_, log := f.open()
	o, err := a.Area.Identity()
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(o.ID).NotTo(BeEmpty())
	f.Expect(log.PublishClaim(f.ctx, 2, otherOwner, nil)).To(Succeed())
	var fenced *content.FencedError
	f.Expect(errors.As(a.Backup(f.ctx, saveRequest(1)), &fenced)).To(BeTrue())
	f.Expect(a.DropSnapshot(f.ctx, "team", fenced.Stray)).To(Succeed())
	a.later(2)
	stray := a.remove(1)
	f.Expect(f.pins("")).To(Equal([]string{stray}))
	f.Expect(f.pinned(stray)).To(Equal("file=one"))
}

func TestS1_DiscardIsAPersonsWord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	f.Expect(a.Discard(f.ctx, subject(1), busy)).To(MatchError(content.ErrInUse))
	f.Expect(a.Discard(f.ctx, subject(2), idle)).To(MatchError(content.ErrNotOurs))
	f.Expect(a.Discard(f.ctx, subject(1), idle)).To(Succeed())
	f.Expect(a.Discard(f.ctx, subject(1), idle)).To(Succeed(), "again")
	f.Expect(a.seen().Marker.Released).To(Equal(content.Discarded))
	f.Expect(a.remove(1)).To(BeEmpty())
	f.Expect(f.entries()).To(Equal("1.0"))
	f.Expect(f.pins("")).To(BeEmpty())
}

// Users come back before the content went: what was released or discarded counts again.
func TestS1_RevivedContentIsHeldAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.release(1)
	a.fill(1)
	f.Expect(a.seen().Marker.Released).To(BeEmpty())
	f.Expect(a.files()).To(Equal("file=one"))
	a.write("file", "two")
	f.Expect(a.release(1)).To(Equal("1.2"))
	a.fill(1)
	f.Expect(a.Discard(f.ctx, subject(1), idle)).To(Succeed())
	a.fill(1)
	a.write("file", "three")
	f.Expect(a.release(1)).To(Equal("1.3"))
	f.Expect(a.remove(1)).To(BeEmpty())
}

// Absence of a marker proves nothing about what lies beside its place.
func TestS1_ContentWithoutMarkerStays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	f.Expect(os.Remove(filepath.Join(a.dir(), ".ws", "marker"))).To(Succeed())
	name := a.Node
	a.Area.Close()
	a.open(name)
	found, err := a.Recover(f.ctx)
	f.Expect(found).To(BeEmpty())
	f.Expect(err).To(MatchError(And(ContainSubstring("has no marker"), ContainSubstring(a.path("")))))
	_, err = a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	f.Expect(err).To(MatchError(content.ErrNotOurs))
	f.Expect(a.tryFill(fillRequest(1))).To(MatchError(content.ErrNotOurs))
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(content.ErrNotOurs))
	f.Expect(a.files()).To(Equal("file=one"))
}

// A directory among the volumes that somebody else made is left alone: at a start, and under the name of a workspace.
func TestS1_DirectoryOfOthersStays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	file := filepath.Join(a.dir(), "precious")
	f.Expect(os.MkdirAll(a.dir(), 0o700)).To(Succeed())
	f.Expect(os.WriteFile(file, []byte("text"), 0o600)).To(Succeed())
	found, err := a.Recover(f.ctx)
	f.Expect(found).To(BeEmpty())
	f.Expect(err).To(And(MatchError(content.ErrNotOurs), MatchError(ContainSubstring(file+" is in the way"))))
	f.Expect(a.Provision(f.ctx, subject(1), 1<<20, 0)).To(MatchError(ContainSubstring(file + " is in the way")))
	_, err = a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	f.Expect(err).To(MatchError(content.ErrNotOurs))
	f.Expect(os.ReadFile(file)).To(BeEquivalentTo("text"))
	f.Expect(os.ReadDir(a.dir())).To(HaveLen(1))
}

func TestS1_LostContentIsNotRemovedAsSaved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	f.Expect(os.Rename(a.path(""), filepath.Join(a.disk, "elsewhere"))).To(Succeed())
	f.Expect(a.seen().Position).To(Equal(volume.None))
	_, err := a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	f.Expect(err).To(MatchError(content.ErrNotOurs))
	f.Expect(a.try(fillRequest(1))).To(MatchError(volume.ErrNotFound))
	f.Expect(a.Backup(f.ctx, saveRequest(1))).NotTo(Succeed())
	_, err = a.Release(f.ctx, saveRequest(1), idle)
	f.Expect(err).To(HaveOccurred())
	f.Expect(f.entries()).To(Equal("1.0"))
}
