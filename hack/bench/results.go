package main

import (
	"maps"
	"slices"
	"time"

	"wsdaemon.dev/ws-daemon/internal/progress"
)

// work is something that tools do.
type work string

// The works, in the order in which each round does them.
const (
	full      work = "full backup"
	unchanged work = "backup, nothing changed"
	changed   work = "backup, 1,000 files changed"
	restore   work = "restore"
	single    work = "restore of one file"
	moved     work = "first backup after a restore elsewhere"
)

// cloned is done in rounds of its own: no other tool does anything like it.
const cloned work = "clone of 20,000 files"

func works() []work { return []work{full, single, unchanged, changed, restore, moved} }

// createMany and restoreMany are works on a tree of n small files.
func createMany(n int) work {
	return work("full backup of " + progress.Count(int64(n)) + " small files")
}
func restoreMany(n int) work { return work("restore of " + progress.Count(int64(n)) + " small files") }

// place is where trees are restored to. Everything else is on the tmpfs.
type place string

// The places.
const (
	tmpfs place = "tmpfs"
	ext4  place = "ext4"
	xfs   place = "XFS"
)

// daemonReport is what ws-daemon says of a work itself. Other tools say nothing.
type daemonReport struct {
	BytesRead   int64    `json:"bytesRead"`
	BytesStored int64    `json:"bytesStored"`
	Requests    requests `json:"requests"`
}

// requests to the store, by kind.
type requests map[string]int64

// writing counts those that change the store.
func (r requests) writing() int64 { return r["put"] + r["delete"] }

// reading counts all others, whatever kinds there will be.
func (r requests) reading() (n int64) {
	for _, count := range r {
		n += count
	}
	return n - r.writing()
}

// sample is one measurement.
type sample struct {
	cost

	stored int64 // bytes of the store afterwards
	report daemonReport
}

// key names what was measured.
type key struct {
	place place
	work  work
	tool  string
}

// results of a run.
type results struct {
	samples    map[key][]sample // one for each round
	compressed []int64          // bytes that zstd -1 makes of the files that were changed, one for each round
}

// median of a property of the samples. With an even number it is the upper one of the two in the middle; ok is false without any.
func median[T ~int64](r results, k key, of func(sample) T) (value T, ok bool) {
	all := make([]T, 0, len(r.samples[k]))
	for _, s := range r.samples[k] {
		all = append(all, of(s))
	}
	return middle(all)
}

func middle[T ~int64](all []T) (value T, ok bool) {
	if len(all) == 0 {
		return 0, false
	}
	return slices.Sorted(slices.Values(all))[len(all)/2], true
}

// kinds are those of all requests that ws-daemon reported, sorted.
func (r results) kinds() []string {
	found := map[string]bool{}
	for _, samples := range r.samples {
		for _, s := range samples {
			for kind := range s.report.Requests {
				found[kind] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// fastest time of the samples.
func (r results) fastest(k key) time.Duration {
	return slices.MinFunc(r.samples[k], func(a, b sample) int { return int(a.Wall - b.Wall) }).Wall
}

// over is the median of one key divided by that of another.
func over[T ~int64](r results, k, base key, of func(sample) T) (ratio float64, ok bool) {
	a, okA := median(r, k, of)
	b, okB := median(r, base, of)
	if !okA || !okB || b == 0 {
		return 0, false
	}
	return float64(a) / float64(b), true
}

func wallOf(s sample) time.Duration { return s.Wall }
func cpuOf(s sample) time.Duration  { return s.CPU }
func memoryOf(s sample) int64       { return s.Memory }
func storedOf(s sample) int64       { return s.stored }
func readOf(s sample) int64         { return s.report.BytesRead }
func addedOf(s sample) int64        { return s.report.BytesStored }
func readingOf(s sample) int64      { return s.report.Requests.reading() }
func writingOf(s sample) int64      { return s.report.Requests.writing() }
