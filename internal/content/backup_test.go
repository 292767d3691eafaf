package content_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// settled waits until the clock has moved on, so that the next look at the tree proves something, and takes it.
func (n *node) settled(claim int64) {
	n.f.t.Helper()
	n.f.Eventually(func() int64 {
		n.backup(claim)
		return n.journal().Backup.Read
	}).WithTimeout(time.Minute).Should(BeZero())
}

// An unchanged tree costs a handful of small requests: no content is read, nothing is written.
func TestUnchangedTreeIsNotReadAndWritesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.settled(1)
	f.Expect(f.entries()).To(Equal("1.1 1.0"))
	before := a.journal().Backup
	r := saveRequest(1)
	r.Trigger = "now"
	calls := a.counted(func() { f.Expect(a.Backup(f.ctx, r)).To(Succeed()) })
	f.Expect(a.journal().Backup.Read).To(BeZero())
	f.Expect(matching(calls, "put")).To(BeEmpty())
	f.Expect(matching(calls, "delete")).To(BeEmpty())
	f.Expect(matching(matching(calls, "get"), "/p/")).To(BeEmpty())
	f.Expect(calls).To(HaveLen(1), "whether it still is the newest")
	after := a.journal().Backup
	f.Expect(after.CheckedAt).To(BeTemporally(">", before.CheckedAt))
	f.Expect(after.Trigger).To(Equal("now"))
	f.Expect(f.entries()).To(Equal("1.1 1.0"))
}

// Files that look changed and are not: the tree is read, but nothing stays in the store.
func TestTouchedTreeLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.settled(1)
	packs := f.packs()
	f.Expect(os.Chmod(a.path("file"), 0o600)).To(Succeed())
	f.Expect(os.Chmod(a.path("file"), 0o644)).To(Succeed())
	a.settled(1)
	f.Expect(f.packs()).To(Equal(packs))
	f.Expect(f.entries()).To(Equal("1.1 1.0"))
	calls := a.counted(func() { a.backup(1) })
	f.Expect(matching(calls, "put")).To(BeEmpty(), "what it looks like now is remembered")
}

func TestChangedTreeIsCommitted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	for i, change := range []func() error{
		func() error { return os.WriteFile(a.path("file"), []byte("one"), 0o644) },
		func() error { return os.WriteFile(a.path("file"), []byte("two"), 0o644) },
		func() error { return os.Chmod(a.path("file"), 0o600) },
		func() error { return os.Rename(a.path("file"), a.path("renamed")) },
		func() error { return os.Chown(a.path(""), 5, 5) },
		func() error { return os.Symlink("file", a.path("link")) },
		func() error { return os.Remove(a.path("renamed")) },
	} {
		f.Expect(change()).To(Succeed())
		a.backup(1)
		f.Expect(a.journal().Backup.Last).To(Equal(int64(i + 1)))
	}
	c, _ := f.commit("1.7")
	_, parent := f.commit("1.6")
	f.Expect(c.Parent).To(Equal(&parent))
	id, err := a.Area.Identity()
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(c.Owner).To(Equal(history.Owner{UID: uid, Node: "node-a", Area: id.ID}))
}

func TestFirstBackupAfterARestoreReadsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	f.Expect(os.Mkdir(a.path("dir"), 0o700)).To(Succeed())
	a.release(1)
	b.fill(2)
	calls := b.counted(func() { f.Expect(b.Backup(f.ctx, saveRequest(2))).To(Succeed()) })
	f.Expect(b.journal().Backup.Read).To(BeZero())
	f.Expect(matching(calls, "put")).To(BeEmpty())
	f.Expect(matching(matching(calls, "get"), "/p/")).To(BeEmpty())
	j := b.journal().Backup
	f.Expect(j.Name).To(Equal("1.1"))
	f.Expect(j.Complete).To(BeTrue())
	f.Expect(f.entries()).To(Equal("2.0 1.1 1.0"))

	f.Expect(b.release(2)).To(Equal("1.1"), "what it was restored from is its final backup")
	f.Expect(b.remove(2)).To(BeEmpty())
	a.remove(1)
	a.fill(3)
	f.Expect(a.files()).To(Equal("file=one"))
}

func TestRetention(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	r := saveRequest(1)
	r.Keep = history.Keep{Last: 2}
	for _, data := range []string{"1", "2", "3", "4"} {
		a.write("file", data)
		f.Expect(a.Backup(f.ctx, r)).To(Succeed())
	}
	f.Expect(f.entries()).To(Equal("1.4 1.3 1.0"))
	f.Expect(a.journal().Backup.Count).To(Equal(2))
	f.Expect(a.journal().Backup.Oldest).To(Equal("1.3"))
	a.release(1)
	a.remove(1)
	b := f.node("node-b")
	b.fill(2)
	f.Expect(f.entries()).To(Equal("2.0 1.4 1.3 1.0"), "until the new owner has a backup, nothing goes")
	for _, data := range []string{"5", "6"} {
		b.write("file", data)
		r.Subject = subject(2)
		f.Expect(b.Backup(f.ctx, r)).To(Succeed())
	}
	f.Expect(f.entries()).To(Equal("2.2 2.1 2.0"))
	r.Keep = history.Keep{}
	b.write("file", "7")
	f.Expect(b.Backup(f.ctx, r)).To(Succeed())
	f.Expect(f.entries()).To(Equal("2.3 2.2 2.1 2.0"), "without a rule nothing goes")
}

// A backup exists by one create-only write: whichever call fails before, the newest backup is the old one; a reply that was
// lost does not make two of one.
func TestS2_BackupIsOneWrite(t *testing.T) {
	t.Parallel()
	calls := 0
	for failing := 0; failing <= calls; failing++ {
		for _, lost := range []bool{false, true} {
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			a.backup(1)
			a.write("file", "two")
			at := 0
			fail := func() bool { at++; return at == failing }
			a.fault = func(op, _ string) error {
				if !lost && fail() || lost && op == "put" && at < 0 {
					return errBroken
				}
				return nil
			}
			if lost {
				a.lost = func(string) bool { return fail() }
			}
			err := a.Backup(f.ctx, saveRequest(1))
			calls = max(calls, at)
			entries := f.entries()
			f.Expect(entries).To(Or(Equal("1.1 1.0"), Equal("1.2 1.1 1.0")))
			if err == nil {
				f.Expect(entries).To(Equal("1.2 1.1 1.0"))
			}
			for name := range strings.FieldsSeq(entries) {
				if c, _ := f.commit(name); !c.Name.IsClaim() {
					f.Expect(f.restored(c)).To(Equal(map[int64]string{1: "file=one", 2: "file=two"}[c.Name.Number]))
				}
			}
			a.fault, a.lost = nil, nil
			if failing%2 == 0 {
				a.restart()
			}
			a.backup(1)
			f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"), "call %d", failing)
			c, _ := f.commit("1.2")
			f.Expect(f.restored(c)).To(Equal("file=two"))
			f.Expect(f.pins("")).To(BeEmpty(), "nobody was fenced")
		}
	}
	NewWithT(t).Expect(calls).To(BeNumerically(">", 10))
}

// A file that cannot be read, or what is mounted in the tree, is named; the rest is saved all the same.
func TestS3_UnreadableFilesAreNamedAndTheRestIsSaved(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		harm    func(*fixture, string) func()
		problem string
	}{
		"file":  {unreadable, "secret: resource temporarily unavailable"},
		"mount": {mounted, "secret: another filesystem is mounted here"},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			mend := c.harm(f, a.path("secret"))
			a.backup(1)
			j := a.journal().Backup
			f.Expect(j.Complete).To(BeFalse())
			f.Expect(j.Problem).To(ContainSubstring(c.problem))
			made, _ := f.commit("1.1")
			f.Expect(made.Tree.UnreadableCount).To(Equal(int64(1)))
			f.Expect(f.restored(made)).To(Equal("file=one"))
			a.backup(1)
			f.Expect(f.entries()).To(Equal("1.1 1.0"), "the same tree, incomplete as it is, is one backup")

			_, err := a.Snapshot(f.ctx, saveRequest(1), "snap", true)
			var incomplete *content.IncompleteError
			f.Expect(errors.As(err, &incomplete)).To(BeTrue())
			f.Expect(incomplete.Files).To(HaveLen(1))
			f.Expect(incomplete.Files[0]).To(ContainSubstring(c.problem))
			f.Expect(f.pins("")).To(BeEmpty())

			mend()
			a.backup(1)
			f.Expect(a.journal().Backup.Complete).To(BeTrue())
			f.Expect(a.journal().Backup.Problem).To(BeEmpty())
			f.Expect(a.release(1)).To(Equal("1.2"))
		})
	}
}

// What was accepted as unreadable and can be read later is kept.
func TestS3_AcceptedFileBecomesReadable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	mend := unreadable(f, a.path("secret"))
	a.backup(1)
	r := saveRequest(1)
	r.Consent.Incomplete = "1.1"
	f.Expect(a.Release(f.ctx, r, idle)).To(Equal("1.2"))
	mend()
	f.Expect(os.WriteFile(a.withdrawn("secret"), []byte("found"), 0o644)).To(Succeed())
	f.Expect(f.pinned(a.remove(1))).To(Equal("file=one secret=found"))
}

// The newest complete backup stays whatever incomplete ones follow, and is what the next owner gets.
func TestS3_IncompleteIsNoBase(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "two")
	unreadable(f, a.path("secret"))
	a.backup(1)
	f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
	b.fill(2)
	f.Expect(b.files()).To(Equal("file=one"))
	f.Expect(b.journal().Backup.Name).To(Equal("1.1"))
}

// Long paths are a user's choice: they must not burst the journal or a commit.
func TestS6_LongPathsAreCut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	dir := a.path("")
	for range 12 {
		dir += "/" + strings.Repeat("d", 250)
		f.Expect(os.Mkdir(dir, 0o755)).To(Succeed())
	}
	unreadable(f, dir+"/f")
	a.backup(1)
	c, _ := f.commit("1.1")
	f.Expect(c.Tree.Unreadable).To(HaveLen(1))
	f.Expect(len(c.Tree.Unreadable[0].Path)).To(BeNumerically("<", 1100))
	f.Expect(c.Tree.Unreadable[0].Path).To(HaveSuffix("…"))
}

func TestFailuresAreCountedAndTimed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	a.now = func(time.Time) time.Time { return at }
	a.fault = func(op, key string) error {
		if op == "put" && strings.Contains(key, "/p/") {
			return errBroken
		}
		return nil
	}
	for attempt := 1; attempt <= 3; attempt++ {
		f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(errBroken))
		j := a.journal().Backup
		f.Expect(j.Attempts).To(Equal(attempt))
		f.Expect(j.Reason).To(Equal("UploadFailed"))
		f.Expect(j.Failure).To(ContainSubstring("broken"))
		f.Expect(j.LastFailure.Equal(at)).To(BeTrue())
		f.Expect(j.NextAttempt.Equal(at.Add(content.Backoff(attempt, time.Minute, uid)))).To(BeTrue())
		f.Expect(j.FailingSince.Add(time.Duration(attempt-1) * time.Minute).Equal(at)).To(BeTrue())
		at = at.Add(time.Minute)
	}
	a.fault = nil
	a.backup(1)
	j := a.journal().Backup
	f.Expect([]any{j.Attempts, j.Failure, j.Reason}).To(Equal([]any{0, "", ""}))
	f.Expect(j.NextAttempt.IsZero() && j.FailingSince.IsZero()).To(BeTrue())
}

// A shutdown is no failure, a deadline is.
func TestS5_CancelledBackupIsNoFailure(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	for _, step := range []string{"get store.json", "list d/team/w/web", "put d/team/p/", "put d/team/w/web"} {
		ctx, cancel := context.WithCancel(f.ctx)
		a.fault = func(op, key string) error {
			if strings.HasPrefix(op+" "+key, step) {
				cancel()
			}
			return nil
		}
		f.Expect(a.Backup(ctx, saveRequest(1))).To(MatchError(context.Canceled), step)
		cancel()
		f.Expect(a.journal().Backup.Attempts).To(BeZero(), step)
		f.Expect(f.entries()).To(Equal("1.0"), step)
	}
	ctx, cancel := context.WithTimeout(f.ctx, 300*time.Millisecond)
	defer cancel()
	a.fault = func(op, key string) error {
		if op == "put" && strings.Contains(key, "/p/") {
			<-ctx.Done()
		}
		return nil
	}
	f.Expect(a.Backup(ctx, saveRequest(1))).To(MatchError(context.DeadlineExceeded))
	f.Expect(a.journal().Backup.Attempts).To(Equal(1))
	f.Expect(a.journal().Backup.Reason).To(Equal("TimedOut"))
	a.fault = nil
	a.backup(1)
	f.Expect(f.entries()).To(Equal("1.1 1.0"))
}

// A release that is cancelled anywhere goes on where it was.
func TestS5_CancelledReleaseGoesOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	calls := len(a.counted(func() { a.release(1) }))
	f.Expect(calls).To(BeNumerically(">", 10))
	for at := 1; at <= calls; at++ {
		f := newFixture(t)
		a := f.node("node-a")
		a.fill(1)
		a.write("file", "one")
		ctx, cancel := context.WithCancel(f.ctx)
		n := 0
		a.fault = func(string, string) error {
			if n++; n == at {
				cancel()
			}
			return nil
		}
		name, err := a.Release(ctx, saveRequest(1), idle)
		cancel()
		f.Expect(a.journal().Backup.Attempts).To(BeZero())
		a.fault = nil
		if err != nil {
			f.Expect(a.seen().Marker.Released).To(BeEmpty())
			if at%2 == 0 {
				a.restart()
			}
			name = a.release(1)
		}
		f.Expect(name).To(Equal("1.1"))
		f.Expect(a.remove(1)).To(BeEmpty())
		f.Expect(f.entries()).To(Equal("1.1 1.0"), "call %d", at)
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	o := a.seen()
	f.Expect(o.Exists()).To(BeFalse())
	f.Expect(o.Finished()).To(BeFalse())
	f.Expect(a.Provision(f.ctx, subject(1), 1<<20, 0)).To(Succeed())
	f.Expect(a.Provision(f.ctx, subject(1), 1<<21, 0)).To(Succeed())
	f.Expect(a.Provision(f.ctx, subject(1), 1<<20, 0)).To(MatchError(volume.ErrShrink))
	o = a.seen()
	f.Expect(o.Volume.Size).To(Equal(int64(1 << 21)))
	f.Expect(o.Finished()).To(BeFalse())
	f.Expect(o.Marker).To(HaveField("Claim", int64(1)))
	unknown := subject(1)
	unknown.Class = "fast"
	f.Expect(a.Provision(f.ctx, unknown, 1, 0)).To(MatchError(content.ErrUnknownClass))
	_, err := a.Observe(f.ctx, unknown)
	f.Expect(err).To(MatchError(content.ErrUnknownClass), "what cannot be looked at is not absent")
	calls := a.counted(func() { a.seen() })
	f.Expect(calls).To(BeEmpty(), "it asks nobody")
}

func TestExportAndImport(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	d, _ := f.open()
	standalone := content.Standalone{Domain: d, Namespace: "team", Workspace: "web"}
	c, _ := f.commit("1.1")
	tarball, err := os.Create(f.t.TempDir() + "/tar")
	f.Expect(err).NotTo(HaveOccurred())
	defer tarball.Close()
	f.Expect(standalone.Export(f.ctx, c, tarball)).To(Succeed())
	a.write("file", "two")
	a.backup(1)
	_, err = tarball.Seek(0, io.SeekStart)
	f.Expect(err).NotTo(HaveOccurred())
	imported, err := standalone.Import(f.ctx, tarball)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(imported.Name.String()).To(Equal("2.1"))
	f.Expect(imported.Tree.Digest).To(Equal(c.Tree.Digest))
	f.Expect(f.restored(imported.Commit)).To(Equal("file=one"))
	var fenced *content.FencedError
	f.Expect(errors.As(a.Backup(f.ctx, saveRequest(1)), &fenced)).To(BeTrue())
	f.Expect(fenced.Stray).To(BeEmpty(), "nothing was unsaved")
	b.fill(3)
	f.Expect(b.files()).To(Equal("file=one"))
	_, err = standalone.Import(f.ctx, strings.NewReader("no tar"))
	f.Expect(err).To(HaveOccurred())
	f.Expect(f.entries()).To(Equal("3.0 2.1 2.0 1.2 1.1 1.0"))
}
