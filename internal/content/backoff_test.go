package content_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		failures int
		limit    time.Duration
		pause    time.Duration
	}{
		{0, time.Minute, time.Second},
		{1, time.Minute, time.Second},
		{2, time.Minute, 2 * time.Second},
		{3, time.Minute, 4 * time.Second},
		{6, time.Minute, 32 * time.Second},
		{7, time.Minute, time.Minute},
		{8, time.Minute, time.Minute},
		{math.MaxInt, time.Minute, time.Minute},
		{-1, time.Minute, time.Second},
		{1, 0, 0},
		{5, 0, 0},
		{1, time.Millisecond, time.Millisecond},
		{13, time.Hour, time.Hour},
		{100, math.MaxInt64 / 2, math.MaxInt64 / 2},
	} {
		t.Run(fmt.Sprint(c.failures, c.limit), func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(content.Backoff(c.failures, c.limit, "seed")).To(Equal(content.Jitter(c.pause, "seed")))
		})
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	g.Expect(content.Jitter(0, "seed")).To(BeZero())
	low, high := time.Hour, time.Hour
	for i := range 5000 {
		seed := fmt.Sprint(i)
		d := content.Jitter(time.Hour, seed)
		g.Expect(d).To(Equal(content.Jitter(time.Hour, seed)), "always the same for one seed")
		low, high = min(low, d), max(high, d)
	}
	g.Expect(low).To(BeNumerically(">=", 54*time.Minute))
	g.Expect(low).To(BeNumerically("<", 54*time.Minute+10*time.Second))
	g.Expect(high).To(BeNumerically("<=", 66*time.Minute))
	g.Expect(high).To(BeNumerically(">", 66*time.Minute-10*time.Second))
	const years = 20 * 365 * 24 * time.Hour
	for i := range 100 {
		g.Expect(content.Jitter(years, fmt.Sprint(i))).To(BeNumerically("~", years, years/10), "nothing overflows")
	}
}
