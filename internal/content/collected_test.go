package content_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// A workspace begins with a snapshot, which is removed while the first backup goes on from it, and a collector condemns what it had, at any
// request: the backup, or the next attempt, is whole after the sweep all the same, and so is the backup after that. Nothing else stays.
func TestABackupOutlivesTheCollectionOfWhatItBeganWith(t *testing.T) {
	t.Parallel()
	at := 1
	for ; collectedAt(t, at); at++ {
	}
	NewWithT(t).Expect(at).To(BeNumerically(">", 5))
}

// collectedAt says whether a backup made as many requests.
func collectedAt(t *testing.T, at int) bool {
	t.Helper()
	f := newFixture(t)
	f.onlyPinned("snap")
	n := f.node("node-a")
	r := fillRequest(1)
	r.Initializer = content.Initializer{SnapshotID: named("snap")}
	f.Expect(n.tryFill(r)).To(Succeed())
	n.write("more", "own")
	d, _ := f.open()
	collect := func() {
		f.Expect(d.Collect(f.ctx, history.CollectOptions{Delete: true})).Error().NotTo(HaveOccurred())
	}
	calls := 0
	n.fault = func(string, string) error {
		if calls++; calls == at {
			f.Expect(d.Unpin(f.ctx, "snap")).To(Succeed())
			collect()
		}
		return nil
	}
	if err := n.Backup(f.ctx, saveRequest(1)); err != nil {
		n.backup(1)
	}
	n.fault = nil
	f.Expect(d.Unpin(f.ctx, "snap")).To(Succeed())
	whole := func() {
		for range 3 {
			collect()
		}
		c, _ := f.commit(strings.Fields(f.entries())[0])
		f.Expect(f.restored(c)).To(Equal("file=of base more=own"), "request %d", at)
	}
	whole()
	n.restart()
	n.backup(1)
	whole()
	return calls >= at
}

// onlyPinned leaves a snapshot of a workspace that is gone.
func (f *fixture) onlyPinned(id string) {
	f.t.Helper()
	f.other("base")
	d, _ := f.open()
	c, _, err := d.Workspace("base").Read(f.ctx, history.Name{Claim: 1, Number: 1})
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(d.Pin(f.ctx, id, c, history.Pin{Kind: history.PinSnapshot})).To(Succeed())
	objects, err := f.store.List(f.ctx, "d/team/w/base/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	for _, o := range objects {
		f.Expect(f.store.Delete(f.ctx, o.Key)).To(Succeed())
	}
}
