package history

import (
	"fmt"
	"math/rand/v2"
	"testing"

	. "github.com/onsi/gomega"
)

// many is a scenario with more of everybody than can be explored: workspaces that begin with snapshots, go on, and prune, while the
// snapshots are copied and go.
func many(workspaces int) scenario {
	s := scenario{ticks: 1 << 30}
	for i := range workspaces {
		w, snap := fmt.Sprintf("w%d", i), fmt.Sprintf("snap%d", i%3)
		if i < 3 {
			old := fmt.Sprintf("old%d", i)
			s.before = append(s.before, put(old), pinned(snap, modelCommit("z", "1.1", Name{}, modelPack(old, false))))
		}
		s.before = append(s.before, claim(w, 1))
		programs := []program{save(modelCommit(w, "1.1", Name{}), snapshot(snap), w+"a"), pruned(w, 1)}
		for n := int64(2); n < 5; n++ {
			parent := Name{Claim: 1, Number: n - 1}
			programs = append(programs, save(modelCommit(w, fmt.Sprintf("1.%d", n), parent), backup(w, parent), fmt.Sprint(w, n)), pruned(w, 1))
		}
		s.actors = append(s.actors, programs)
	}
	for i := range 3 {
		snap := fmt.Sprintf("snap%d", i)
		s.actors = append(s.actors, []program{copied(snap, snap+"copy"), unpinned(snap), unpinned(snap + "copy")})
	}
	for range 2 {
		var runs []program
		for range 12 {
			runs = append(runs, collecting)
		}
		s.actors = append(s.actors, runs)
	}
	return s
}

// walk takes one way through a scenario: whose turn it is, and whether the clock goes on, is chance.
func (e *explorer) walk(w world, r *rand.Rand) (steps int) {
	for {
		var able []int
		for i, a := range w.actors {
			if a.at != nil {
				able = append(able, i)
			}
		}
		if len(able) == 0 {
			e.settle(&w, e.whole(&w))
			return steps
		}
		steps++
		if r.IntN(40) == 0 && e.mayTick(&w) {
			e.path = append(e.path, "the clock goes on")
			e.tick(&w)
			continue
		}
		i := able[r.IntN(len(able))]
		next := w.actors[i].at.next
		e.path = append(e.path, fmt.Sprintf("%d: %s", i, next))
		e.advance(&w, i, w.answer(*next))
		if writes(next) {
			e.whole(&w)
		}
	}
}

func TestModelAtRandom(t *testing.T) {
	for seed := range uint64(5) {
		for _, paused := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d, paused %t", seed, paused), func(t *testing.T) {
				t.Parallel()
				s := many(6)
				s.paused = paused
				e, w := newExplorer(t, s)
				steps := e.walk(w, rand.New(rand.NewPCG(seed, 1)))
				NewWithT(t).Expect(steps).To(BeNumerically(">", 300))
			})
		}
	}
}
