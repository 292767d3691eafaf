package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestTakeClones(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "clones.json")
	r := results{samples: map[key][]sample{}}
	g.Expect(r.takeClones(file)).To(Succeed())
	g.Expect(r.samples).To(BeEmpty(), "nothing was measured")

	g.Expect(os.WriteFile(file, []byte(`{"0": [2000000000, 1000000000, 3000000000], "5": [3000000000]}`), 0o600)).To(Succeed())
	g.Expect(r.takeClones(file)).To(Succeed())
	wall, ok := median(r, key{thinPool, "start with an empty volume", daemonName}, wallOf)
	g.Expect([]any{wall, ok}).To(Equal([]any{2 * time.Second, true}))
	ratio, ok := over(r, key{thinPool, "start from a template of 5 GiB", daemonName}, key{thinPool, start(0), daemonName}, wallOf)
	g.Expect([]any{ratio, ok}).To(Equal([]any{1.5, true}))

	g.Expect(os.WriteFile(file, []byte("none"), 0o600)).To(Succeed())
	g.Expect(r.takeClones(file)).To(MatchError(ContainSubstring("read the times of instant starts")))
}

// What was measured for another document is never taken for this one's.
func TestClonesThatAreNotAskedFor(t *testing.T) {
	for name, o := range map[string]options{
		"of other tools only": {only: "tar", clones: true},
		"left out":            {clones: false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			o.cache = t.TempDir()
			g.Expect(os.WriteFile(o.clonesFile(), []byte("{}"), 0o600)).To(Succeed())
			g.Expect(measureClones(t.Context(), o)).To(Succeed())
			g.Expect(o.clonesFile()).NotTo(BeAnExistingFile())
			g.Expect(measureClones(t.Context(), o)).To(Succeed())
		})
	}
}
