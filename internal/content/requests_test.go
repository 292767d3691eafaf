package content_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// spent counts requests that read and that write.
func spent(calls []string) (reads, writes int) {
	for _, call := range calls {
		if strings.HasPrefix(call, "put ") || strings.HasPrefix(call, "delete ") {
			writes++
		} else {
			reads++
		}
	}
	return reads, writes
}

// TestAPeriodicBackupTakesThreeRequestsEachWay changes a few files of many between two backups of which one has to go for each that
// comes.
func TestAPeriodicBackupTakesThreeRequestsEachWay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	for i := range 200 {
		a.write(fmt.Sprint(i), strings.Repeat("content ", i))
	}
	r := saveRequest(1)
	r.Keep = history.Keep{Last: 3, Daily: 1}
	for i := range 5 {
		a.write("changing", fmt.Sprint("before", i))
		f.Expect(a.Backup(f.ctx, r)).To(Succeed())
	}
	for i := range 8 {
		for j := range 5 {
			a.write(fmt.Sprint(j), fmt.Sprint("changed ", i))
		}
		calls := a.counted(func() { f.Expect(a.Backup(f.ctx, r)).To(Succeed()) })
		reads, writes := spent(calls)
		f.Expect(reads).To(BeNumerically("<=", 3), "%q", calls)
		f.Expect(writes).To(BeNumerically("<=", 3), "%q", calls)
		f.Expect(matching(calls, "delete ")).To(HaveLen(1), "retention goes on")
	}
	f.Expect(a.journal().Backup.Count).To(Equal(3))
	f.Expect(f.entries()).To(Equal("1.13 1.12 1.11 1.0"))
	a.settled(1)
	calls := a.counted(func() { f.Expect(a.Backup(f.ctx, r)).To(Succeed()) })
	f.Expect(calls).To(Equal([]string{"list d/team/w/web/"}), "nothing has changed")
}

// TestAFullBackupTakesFewRequestsBesideItsPacks counts them for a backup that nothing is known for. Two packs take as many as one, so
// that 1 GB, which has some thirty packs, or sixty in a directory, takes no more. With the final one each pack is also looked at and read.
func TestAFullBackupTakesFewRequestsBesideItsPacks(t *testing.T) {
	t.Parallel()
	beside := func(megabytes int) (packs, others int, all []string) {
		f := newFixture(t)
		a := f.node("node-a")
		a.fill(1)
		random := rand.NewChaCha8([32]byte{1})
		for i := range megabytes {
			data := make([]byte, 1<<20)
			_, _ = random.Read(data)
			a.write(fmt.Sprint(i), string(data))
		}
		all = a.counted(func() { a.backup(1) })
		packs = len(matching(all, "put d/team/p/"))
		return packs, len(all) - packs, all
	}
	g := NewWithT(t)
	small, few, calls := beside(1)
	g.Expect(small).To(Equal(1))
	g.Expect(few).To(BeNumerically("<=", 40), "%q", calls)
	large, same, calls := beside(40)
	g.Expect(large).To(BeNumerically(">", 2))
	g.Expect(same).To(Equal(few), "%q", calls)
}

// TestWhatIsFamiliarIsAskedAgain says when a backup looks whether all that it refers to is there.
func TestWhatIsFamiliarIsAskedAgain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		then  func(*fixture, *node)
		stats int
	}{
		"soon":                 {func(*fixture, *node) {}, 0},
		"after a day":          {func(_ *fixture, n *node) { n.later(25 * 60 * 60) }, 1},
		"in a new process":     {func(_ *fixture, n *node) { n.restart() }, 1},
		"when the clock jumps": {func(_ *fixture, n *node) { n.later(-60 * 60) }, 1},
		"after a failure": {func(f *fixture, n *node) {
			n.fault = func(op, _ string) error {
				if op == "put" {
					return errBroken
				}
				return nil
			}
			f.Expect(n.Backup(f.ctx, saveRequest(1))).To(MatchError(errBroken))
			n.fault = nil
		}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			a.settled(1)
			a.write("file", "two")
			tt.then(f, a)
			calls := a.counted(func() { a.backup(1) })
			f.Expect(matching(calls, "stat d/team/p/")).To(HaveLen(tt.stats), "%q", calls)
			f.Expect(f.entries()).To(HavePrefix("1.2 "))
		})
	}
}

// TestS10_WhatVanishedIsFoundByTheNextBackup takes things away between two backups of one process.
func TestS10_WhatVanishedIsFoundByTheNextBackup(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*node){
		"unchanged": func(*node) {},
		"changed":   func(n *node) { n.write("more", "two") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			a.settled(1)
			f.Expect(os.RemoveAll(f.at("d"))).To(Succeed())
			change(a)
			a.backup(1)
			f.Expect(a.journal().Lost).To(Equal("1.1"))
			c, _ := f.commit(a.journal().Backup.Name)
			f.Expect(f.restored(c)).To(Equal(a.files()))
		})
	}
}

// TestS4_WhatIsFamiliarYieldsToANewOwner has another node take over between two backups of one process.
func TestS4_WhatIsFamiliarYieldsToANewOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.settled(1)
	b.fill(2)
	a.write("file", "two")
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(history.ErrFenced))
	f.Expect(f.entries()).To(Equal("2.0 1.1 1.0"))
	f.Expect(f.pins("stray.")).To(HaveLen(1))
	f.Expect(f.pinned(f.pins("stray.")[0])).To(Equal("file=two"))
	f.Expect(b.files()).To(Equal("file=one"))
}

// A node on which workspaces come and go does not gather what it knew of them.
func TestNothingStaysFamiliarOfWhatIsRemoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	f.Expect(a.Familiar(uid)).To(BeTrue())
	a.release(1)
	a.remove(1)
	f.Expect(a.Familiar(uid)).To(BeFalse())
}
