package content_test

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// litter is a domain in which packs come and go.
type litter struct {
	*walk
	domain, through *history.Domain // of the same store, on the two ways
	needed          history.Pack    // by a backup
}

// ahead is a store whose clock makes everything in it older: that of a server shows whole seconds only, and not always the right one.
type ahead struct{ store.Store }

func (a ahead) Now(ctx context.Context) (time.Time, error) {
	now, err := a.Store.Now(ctx)
	return now.Add(time.Minute), err
}

// breakCollections breaks one request after the other of a collection that condemns, rescues and sweeps.
func (w *walk) breakCollections() {
	l := &litter{walk: w}
	var err error
	l.domain, err = history.OpenDomain(w.ctx, ahead{w.direct}, "litter", cluster, false)
	w.Expect(err).NotTo(HaveOccurred())
	l.through, err = history.OpenDomain(w.ctx, ahead{w.through}, "litter", cluster, false)
	w.Expect(err).NotTo(HaveOccurred())
	log := l.domain.Workspace("web")
	w.Expect(log.PublishClaim(w.ctx, 1, otherOwner, nil)).To(Succeed())
	l.needed = l.pack()
	_, err = log.Append(w.ctx, l.commit(l.needed), history.Name{})
	w.Expect(err).NotTo(HaveOccurred())
	l.sweep()
	count := l.breakCollection(0)
	w.t.Logf("a collection that condemns, and one that rescues and sweeps, make %d requests", count)
	for at := 1; at <= count; at++ {
		l.breakCollection(at)
	}
}

// pack stores a pack.
func (l *litter) pack() history.Pack {
	p := history.Pack{ID: history.NewID(), Size: 4, New: true}
	l.Expect(l.domain.PutPack(l.ctx, p.ID, []byte("pack"))).To(Succeed())
	return p
}

func (l *litter) commit(p history.Pack) history.Commit {
	return history.Commit{
		ID: history.NewID(), Domain: "litter", Workspace: "web", Name: history.Name{Claim: 1, Number: 1}, Owner: otherOwner, Packs: []history.Pack{p},
	}
}

func (l *litter) collect(d *history.Domain) (history.Collection, error) {
	return d.Collect(l.ctx, history.CollectOptions{Delete: true}) // without waiting
}

// sweep is a collection to which nothing happens.
func (l *litter) sweep() {
	_, err := l.collect(l.domain)
	l.Expect(err).NotTo(HaveOccurred())
}

// packs are the ids of those in the store.
func (l *litter) packs() []string {
	objects, err := l.direct.List(l.ctx, "d/litter/p/", "", 0)
	l.Expect(err).NotTo(HaveOccurred())
	var ids []string
	for _, o := range objects {
		ids = append(ids, o.Key[len("d/litter/p/00/"):])
	}
	return ids
}

// pin writes a snapshot like somebody who has not heard what is condemned, and returns its key.
func (l *litter) pin(p history.Pack) string {
	record := history.PinnedCommit{Format: 1, ID: "late", Pin: history.Pin{Kind: history.PinSnapshot}, Commit: l.commit(p)}
	record.Commit.Format = 1
	data, err := json.Marshal(record)
	l.Expect(err).NotTo(HaveOccurred())
	const key = "d/litter/s/late"
	l.Expect(l.direct.Put(l.ctx, key, store.AppendSum(data))).To(Succeed())
	return key
}

// breakCollection breaks one request of two collections, between which somebody begins to need one of two packs, and returns how many
// there were. One collection more finishes the work.
func (l *litter) breakCollection(at int) int {
	orphan, wanted := l.pack(), l.pack()
	l.breakAt(at)
	_, condemnErr := l.collect(l.through)
	pin := l.pin(wanted)
	swept, sweepErr := l.collect(l.through)
	count := l.count()
	l.Expect(count).To(BeNumerically(">=", at), "nothing was broken")
	l.breakAt(0)
	l.Expect(l.packs()).To(ContainElements(l.needed.ID, wanted.ID), "request %d: %v, %v", at, condemnErr, sweepErr)
	if condemnErr == nil && sweepErr == nil {
		l.Expect([]int64{swept.Removed, swept.Rescued}).To(Equal([]int64{1, 1}), "request %d", at)
	}
	if slices.Contains(l.packs(), orphan.ID) {
		l.Expect(swept.Removed).To(BeZero(), "request %d: %v, %v", at, condemnErr, sweepErr)
	}
	l.sweep()
	l.Expect(l.packs()).To(ConsistOf(l.needed.ID, wanted.ID), "the collection after the fault at request %d", at)
	l.Expect(l.direct.Delete(l.ctx, pin, "d/litter/p/"+wanted.ID[:2]+"/"+wanted.ID)).To(Succeed())
	return count
}
