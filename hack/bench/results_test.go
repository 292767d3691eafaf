package main

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// walls makes samples that took so many milliseconds.
func walls(milliseconds ...int64) []sample {
	var all []sample
	for _, n := range milliseconds {
		all = append(all, sample{cost: cost{Wall: time.Duration(n) * time.Millisecond}})
	}
	return all
}

func TestMedian(t *testing.T) {
	k := key{tmpfs, full, "tar"}
	for name, c := range map[string]struct {
		samples []sample
		want    time.Duration
		ok      bool
	}{
		"none":     {nil, 0, false},
		"one":      {walls(7), 7 * time.Millisecond, true},
		"two":      {walls(7, 3), 7 * time.Millisecond, true},
		"three":    {walls(9, 1, 5), 5 * time.Millisecond, true},
		"one slow": {walls(1000, 2, 3, 2, 3), 3 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := results{samples: map[key][]sample{k: c.samples}}
			got, ok := median(r, k, wallOf)
			g.Expect(got).To(Equal(c.want))
			g.Expect(ok).To(Equal(c.ok))
			g.Expect(r.samples[k]).To(Equal(c.samples), "the order of rounds stays")
		})
	}
}

func TestOver(t *testing.T) {
	g := NewWithT(t)
	a, b, zero, none := key{tool: "a"}, key{tool: "b"}, key{tool: "zero"}, key{tool: "none"}
	r := results{samples: map[key][]sample{a: walls(10, 30, 20), b: walls(80, 10, 90), zero: walls(0)}}
	ratio, ok := over(r, a, b, wallOf)
	g.Expect(ratio).To(Equal(0.25))
	g.Expect(ok).To(BeTrue())
	for _, k := range []key{zero, none} {
		_, ok = over(r, a, k, wallOf)
		g.Expect(ok).To(BeFalse())
	}
	_, ok = over(r, none, a, wallOf)
	g.Expect(ok).To(BeFalse())
	g.Expect(r.fastest(b)).To(Equal(10 * time.Millisecond))
}

func TestRequestKinds(t *testing.T) {
	g := NewWithT(t)
	r := requests{"put": 1, "get": 20, "stat": 300, "list": 4000, "read": 1_000_000, "delete": 50_000}
	g.Expect(r.reading()).To(Equal(int64(1_004_320)))
	g.Expect(r.writing()).To(Equal(int64(50_001)))
}

func TestKinds(t *testing.T) {
	g := NewWithT(t)
	g.Expect(results{}.kinds()).To(BeEmpty())
	g.Expect(fixed().results.kinds()).To(Equal([]string{"get", "list", "put", "stat"}))
}
