package store_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

func limits(requests, perSecond int64) store.Limits {
	return store.Limits{
		Requests: fair.NewQueue("requests", requests), Upload: fair.NewPace("upload", perSecond), Download: fair.NewPace("download", perSecond),
	}
}

func TestALimitedStoreIsAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		s, err := store.NewFilesystem(t.TempDir())
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return store.WithLimits(s, limits(4, 1<<30))
	})
}

func TestALimitedStoreIsSwept(t *testing.T) {
	NewWithT(t).Expect(store.Sweep(t.Context(), store.WithLimits(storetest.Filesystem(t), limits(4, 0)))).To(Succeed())
}

// crawling is a store in which each Put takes until somebody lets one go on.
type crawling struct {
	store.Store
	next  chan struct{}
	stuck atomic.Int64
}

func (c *crawling) Put(ctx context.Context, _ string, _ []byte) error {
	c.stuck.Add(1)
	defer c.stuck.Add(-1)
	select {
	case <-c.next:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// upload has a workspace send objects for as long as ctx lasts, so many at once.
func upload(ctx context.Context, s store.Store, workspace string, p fair.Priority, atOnce int) {
	for range atOnce {
		go func() {
			for s.Put(fair.With(ctx, workspace, p), "key", nil) == nil {
			}
		}()
	}
}

// TestBackupsThatCrawlDelayNoStartAndNoStop has more periodic backups than requests may run, none of which makes any progress.
func TestBackupsThatCrawlDelayNoStartAndNoStop(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &crawling{Store: storetest.Filesystem(t), next: make(chan struct{})}
	s := store.WithLimits(c, limits(8, 0))
	for i := range 10 {
		upload(ctx, s, fmt.Sprint(i), fair.Background, 3)
	}
	g.Eventually(c.stuck.Load).Should(BeEquivalentTo(6))
	for range 50 {
		_, err := s.List(fair.With(ctx, "starting", fair.Urgent), "d/", "", 1)
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(c.stuck.Load()).To(BeEquivalentTo(6), "none of them has ended")
}

// TestFinalBackupsThatCrawlLeaveAStartItsShare has final backups that hold every request there may be and want many more: with each
// request that ends, it is the turn of the workspace that has none.
func TestFinalBackupsThatCrawlLeaveAStartItsShare(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &crawling{Store: storetest.Filesystem(t), next: make(chan struct{})}
	l := limits(8, 0)
	s := store.WithLimits(c, l)
	for i := range 4 {
		upload(ctx, s, fmt.Sprint(i), fair.Urgent, 2)
	}
	g.Eventually(c.stuck.Load).Should(BeEquivalentTo(8))
	for i := range 4 {
		upload(ctx, s, fmt.Sprint(i), fair.Urgent, 8)
		g.Eventually(func() int { return l.Requests.Waiting(fmt.Sprint(i)) }).Should(Equal(8))
	}
	for range 20 {
		done := make(chan error, 1)
		go func() {
			_, err := s.List(fair.With(ctx, "starting", fair.Urgent), "d/", "", 1)
			done <- err
		}()
		g.Eventually(func() int { return l.Requests.Waiting("starting") }).Should(Equal(1))
		c.next <- struct{}{} // one of 8 that run, of 40
		g.Eventually(done).Should(Receive(BeNil()))
		g.Eventually(c.stuck.Load).Should(BeEquivalentTo(8))
	}
}

// reading is a store that takes down whose Read is served, and in which each takes until somebody lets one go on.
type reading struct {
	store.Store
	next chan struct{}
	seen chan string
}

func (r *reading) Read(ctx context.Context, key string, _ int64, _ []byte) error {
	r.seen <- key
	select {
	case <-r.next:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestTenRestoresTakeTurns has ten workspaces that read as much as they can at once. Each gets as many requests as every other, to one.
func TestTenRestoresTakeTurns(t *testing.T) {
	g := NewWithT(t)
	const requests, workspaces, rounds = 8, 10, 20
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &reading{Store: storetest.Filesystem(t), next: make(chan struct{}), seen: make(chan string, requests*workspaces)}
	l := limits(requests, 0)
	s := store.WithLimits(r, l)
	read := func(workspace string) {
		for s.Read(fair.With(ctx, workspace, fair.Urgent), workspace, 0, nil) == nil && workspace != "first" {
		}
	}
	for range requests { // nobody begins before all are there
		go read("first")
		g.Eventually(r.seen).Should(Receive(Equal("first")))
	}
	for i := range workspaces {
		for range requests {
			go read(fmt.Sprint(i))
		}
		g.Eventually(func() int { return l.Requests.Waiting(fmt.Sprint(i)) }).Should(Equal(requests))
	}
	served := map[string]int{}
	for range rounds * workspaces {
		r.next <- struct{}{}
		var workspace string
		g.Eventually(r.seen).Should(Receive(&workspace))
		served[workspace]++
	}
	g.Expect(served).To(HaveLen(workspaces))
	for workspace, n := range served {
		g.Expect(n).To(Equal(rounds), workspace)
	}
}
