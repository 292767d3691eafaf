package fair

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
)

func TestPaceWithoutLimitLetsEverythingPass(t *testing.T) {
	var none *Pace
	NewWithT(t).Expect(none.Wait(t.Context(), 1<<40)).To(Succeed())
	NewWithT(t).Expect(NewPace("bytes", 0)).To(BeNil())
}

// transfer is one of several that share a pace.
type transfer struct {
	job
	left, passed int // steps
	turn         *waiter
}

// share has transfers pass until the last one of them has.
func share(p *Pace, all ...*transfer) {
	for _, t := range all {
		t.turn = p.turns.enter(t.job, 1)
	}
	for last := all[len(all)-1]; last.left > 0; {
		i := slices.IndexFunc(all, func(t *transfer) bool {
			select {
			case <-t.turn.granted:
				return true
			default:
				return false
			}
		})
		t := all[i]
		t.left--
		t.passed++
		t.turn = p.pass(t.job, t.left > 0)
	}
}

func TestPaceLetsASmallTransferPassLargeOnes(t *testing.T) {
	crawling := func(workspace string) *transfer { return &transfer{job: job{workspace, Background}, left: 1000} }
	tests := map[string]struct {
		small *transfer
		want  []int // what all have got by then
	}{
		"a backup": {&transfer{job: job{"small", Background}, left: 12}, []int{4, 4, 4, 12, 12}},
		"a start":  {&transfer{job: job{"small", Urgent}, left: 12}, []int{1, 1, 0, 2, 12}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			all := []*transfer{crawling("a"), crawling("a"), crawling("a"), crawling("b"), tt.small}
			share(NewPace("bytes", 1<<20), all...)
			var got []int
			for _, one := range all {
				got = append(got, one.passed)
			}
			NewWithT(t).Expect(got).To(Equal(tt.want))
		})
	}
}

func TestPaceLetsEverythingPassInTheEnd(t *testing.T) {
	g := NewWithT(t)
	p := NewPace("bytes", 1<<20)
	p.rate.SetLimit(rate.Inf)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { g.Expect(p.Wait(With(t.Context(), fmt.Sprint(i%3), Priority(i%2)), 40*p.step+1)).To(Succeed()) })
	}
	wg.Wait()
	g.Expect(p.turns.served).To(BeEquivalentTo(20 * 41))
	g.Expect(p.turns.tenants).To(BeEmpty())
}

// Ten workspaces that send 10 MiB each through 10 MiB a second need ten seconds, and each needs all of them. Nothing here takes any other time.
func TestPaceKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		p := NewPace("bytes", 10<<20)
		began := time.Now()
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				g.Expect(p.Wait(With(t.Context(), fmt.Sprint(i), Background), 10<<20)).To(Succeed())
				g.Expect(time.Since(began)).To(BeNumerically(">", 9*time.Second), "%d", i)
			})
		}
		synctest.Wait()
		g.Expect(p.Wait(With(t.Context(), "urgent", Urgent), 1<<20)).To(Succeed())
		g.Expect(time.Since(began)).To(BeNumerically("<", 300*time.Millisecond), "it comes first")
		all.Wait()
		g.Expect(time.Since(began)).To(BeNumerically("~", 10*time.Second, 200*time.Millisecond))
	})
}

func TestPaceEndsWithItsContext(t *testing.T) {
	g := NewWithT(t)
	p := NewPace("bytes of upload", 100_000)
	g.Expect(p.Wait(t.Context(), p.step)).To(Succeed()) // the burst
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	err := p.Wait(ctx, 1<<30)
	g.Expect(err).To(MatchError(context.DeadlineExceeded))
	g.Expect(fmt.Sprint(err)).To(ContainSubstring("bytes of upload"))
}
