package main

import (
	"testing"

	. "github.com/onsi/gomega"
)

func TestVerdicts(t *testing.T) {
	ours, theirs := key{tmpfs, restore, daemonName}, key{tmpfs, restore, "tar"}
	for name, c := range map[string]struct {
		samples map[key][]sample
		shown   string
		verdict string
	}{
		"faster than promised":  {map[key][]sample{ours: walls(30), theirs: walls(100)}, "0.300 ×", "ok"},
		"just as promised":      {map[key][]sample{ours: walls(700), theirs: walls(1000)}, "0.700 ×", "ok"},
		"slower than promised":  {map[key][]sample{ours: walls(701), theirs: walls(1000)}, "0.701 ×", "missed"},
		"ours was not measured": {map[key][]sample{theirs: walls(1000)}, "–", "not measured"},
		"the other was not":     {map[key][]sample{ours: walls(1000)}, "–", "not measured"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l := faster(tmpfs, restore, "tar", 0.7)
			r := results{samples: c.samples}
			verdict, kept := l.verdict(r)
			g.Expect(verdict).To(Equal(c.verdict))
			g.Expect(kept).To(Equal(c.verdict == "ok"))
			g.Expect(l.show(l.got(r))).To(Equal(c.shown))
		})
	}
}

func TestLimitOfUploads(t *testing.T) {
	g := NewWithT(t)
	most, ok := compressedChange(results{compressed: []int64{9e6, 1e6, 2e6}})
	g.Expect(ok).To(BeTrue())
	g.Expect(most).To(BeNumerically("~", 4.2, 1e-9))
	_, ok = compressedChange(results{})
	g.Expect(ok).To(BeFalse())
}

func TestGrowthIsJudgedByThatOfACopy(t *testing.T) {
	small, large := manyCounts()[0], manyCounts()[1]
	for name, c := range map[string]struct {
		ours, copies int64 // times as long
		verdict      string
	}{
		"as long for each file":                  {11, 10, "ok"},
		"longer for each file":                   {12, 10, "missed"},
		"longer for each file, as a copy takes":  {17, 16, "ok"},
		"longer for each file than a copy takes": {18, 16, "missed"},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, _ := growsAs("cp", "time", restoreMany(large), restoreMany(small)).verdict(results{samples: map[key][]sample{
				{tmpfs, restoreMany(small), daemonName}: walls(100), {tmpfs, restoreMany(large), daemonName}: walls(100 * c.ours),
				{tmpfs, restoreMany(small), "cp"}: walls(100), {tmpfs, restoreMany(large), "cp"}: walls(100 * c.copies),
			}})
			NewWithT(t).Expect(verdict).To(Equal(c.verdict))
		})
	}
}

func TestMissed(t *testing.T) {
	g := NewWithT(t)
	g.Expect(document{}.missed()).To(Equal(len(limits())), "what was not measured is not kept")
	g.Expect(fixed().missed()).To(Equal(2))
}
