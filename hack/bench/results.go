package main

import (
	"slices"
	"time"
)

// work is a row of the table.
type work string

// The works, in the order in which each round does them.
const (
	full      work = "full backup"
	unchanged work = "backup, nothing changed"
	changed   work = "backup, 1,000 files changed"
	restore   work = "restore"
	single    work = "restore of one file"
)

var works = []work{full, unchanged, changed, restore, single}

// results are the costs of each work by each tool, one for each round.
type results map[work]map[string][]cost

func (r results) add(w work, tool string, c cost) {
	if r[w] == nil {
		r[w] = map[string][]cost{}
	}
	r[w][tool] = append(r[w][tool], c)
}

// median of a property of the costs; 0 if there are none.
func median[T ~int64](costs []cost, of func(cost) T) T {
	if len(costs) == 0 {
		return 0
	}
	all := make([]T, 0, len(costs))
	for _, c := range costs {
		all = append(all, of(c))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func wallOf(c cost) time.Duration { return c.wall }
func cpuOf(c cost) time.Duration  { return c.cpu }
func memoryOf(c cost) int64       { return c.memory }
