package fair

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
)

func TestPaceWithoutLimitLetsEverythingPass(t *testing.T) {
	var none *Pace
	NewWithT(t).Expect(none.Wait(t.Context(), 1<<40)).To(Succeed())
	NewWithT(t).Expect(NewPace("bytes", 0)).To(BeNil())
}

// TestPaceLetsASmallTransferPassLargeOnes counts what large transfers get while a small one of another workspace is under way.
func TestPaceLetsASmallTransferPassLargeOnes(t *testing.T) {
	tests := map[string]struct {
		priority Priority
		atMost   int64 // steps of others for each step of the small one, and a few that are under way
	}{
		"a backup beside others": {Background, 1},
		"a start beside backups": {Urgent, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := NewPace("bytes", 1<<20)
			p.rate = rate.NewLimiter(rate.Limit(1e5), p.step) // many steps in a short test: it is their order that counts
			p.step = 100
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var others atomic.Int64
			for range 6 { // all of one workspace: together they get what the small one gets
				go func() {
					for p.Wait(With(ctx, "crawling", Background), p.step) == nil {
						others.Add(1)
					}
				}()
			}
			g.Eventually(func() bool { return p.turns.Crowded() && others.Load() > 10 }).Should(BeTrue())
			const steps = 20
			before := others.Load()
			g.Expect(p.Wait(With(ctx, "small", tt.priority), steps*p.step)).To(Succeed())
			g.Expect(others.Load() - before).To(BeNumerically("<=", steps*tt.atMost+8))
		})
	}
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
