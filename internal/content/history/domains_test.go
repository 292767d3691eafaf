package history_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// Names that sort unlike their directories are found, and what is in a domain costs nothing.
func TestDomains(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	requests := 0
	s := storetest.Faulty(storetest.Filesystem(t), func(op, _ string) error {
		if op == "list" || op == "stat" || op == "get" {
			requests++
		}
		return nil
	})
	g.Expect(history.Domains(ctx, s)).To(BeEmpty())
	for i, name := range []string{"team", "team-a", "team.b", "team0", "team0a", "a", "z"} {
		d, err := history.OpenDomain(ctx, s, name, fmt.Sprintf("cluster-%d", i%2), false)
		g.Expect(err).NotTo(HaveOccurred())
		for range 20 {
			_, err = putPack(ctx, d, []byte("x"))
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	requests = 0
	g.Expect(history.Domains(ctx, s)).To(Equal([]string{"a", "team-a", "team.b", "team", "team0", "team0a", "z"}))
	g.Expect(requests).To(Equal(8))

	for _, key := range []string{"d/README", "d/nodomain/w/web/x", "d/a/LICENSE", "d/lost/LICENSE", "d/_/domain.json", "e/b/domain.json"} {
		g.Expect(s.Put(ctx, key, nil)).To(Succeed())
	}
	g.Expect(history.Domains(ctx, s)).To(Equal([]string{"a", "team-a", "team.b", "team", "team0", "team0a", "z"}))
}

func TestDomainsOfAStoreThatFails(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	inner, broken := storetest.Filesystem(t), errors.New("broken")
	g.Expect(inner.Put(ctx, "d/a/LICENSE", nil)).To(Succeed())
	for _, failing := range []string{"list", "stat"} {
		s := storetest.Faulty(inner, func(op, _ string) error {
			if op == failing {
				return broken
			}
			return nil
		})
		g.Expect(history.Domains(ctx, s)).Error().To(MatchError(broken), failing)
	}
}

// at is a store whose clock stands still.
type at struct {
	store.Store
	now time.Time
}

func (a at) Now(context.Context) (time.Time, error) { return a.now, nil }

func TestOneNodeTakesTheTurn(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	s := storetest.Filesystem(t)
	noon := time.Date(2026, 3, 1, 12, 59, 0, 0, time.UTC)
	turns := func(now time.Time, cluster string) int32 {
		var taken atomic.Int32
		var nodes sync.WaitGroup
		for i := range 8 {
			nodes.Go(func() {
				mine, err := history.TakeTurn(ctx, at{s, now}, cluster, fmt.Sprintf("node-%d", i), time.Hour)
				g.Expect(err).NotTo(HaveOccurred())
				if mine {
					taken.Add(1)
				}
			})
		}
		nodes.Wait()
		return taken.Load()
	}
	g.Expect(turns(noon, "one")).To(Equal(int32(1)))
	g.Expect(turns(noon.Add(-time.Minute), "one")).To(BeZero(), "the same hour")
	g.Expect(turns(noon, "two")).To(Equal(int32(1)), "another cluster has turns of its own")
	g.Expect(turns(noon.Add(time.Minute), "one")).To(Equal(int32(1)), "the next hour")
	objects, err := s.List(ctx, "tend/", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	g.Expect(keys).To(Equal([]string{"tend/one/20260301T130000Z", "tend/two/20260301T120000Z"}), "earlier ones are gone")
	g.Expect(history.TakeTurn(ctx, s, "../x", "node-a", time.Hour)).Error().To(MatchError(ContainSubstring("cluster name")))
}

func TestTurnOfAStoreThatFails(t *testing.T) {
	broken := errors.New("broken")
	for _, failing := range []string{"now", "put", "list", "delete"} {
		g, ctx := NewWithT(t), t.Context()
		inner := storetest.Filesystem(t)
		g.Expect(inner.Put(ctx, "tend/one/19700101T000000Z", nil)).To(Succeed())
		s := storetest.Faulty(inner, func(op, _ string) error {
			if op == failing {
				return broken
			}
			return nil
		})
		mine, err := history.TakeTurn(ctx, s, "one", "node-a", time.Hour)
		g.Expect(err).To(MatchError(broken), failing)
		g.Expect(mine).To(Equal(failing == "list" || failing == "delete"), "nobody else has it any more")
	}
}
