package main

import (
	_ "embed"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

//go:embed testdata/report.md
var wanted string

// three makes the samples of three rounds around what is given: one better, one worse.
func three(seconds float64, megabytes, storedMB int64, r daemonReport) []sample {
	all := make([]sample, 0, 3)
	for _, factor := range []float64{1.5, 0.5, 1} {
		all = append(all, sample{
			cost:   cost{time.Duration(seconds * factor * 1e9), time.Duration(2 * seconds * factor * 1e9), megabytes * 1e6},
			stored: storedMB * 1e6, report: r,
		})
	}
	return all
}

// fixed is a document of made-up results. Two limits are missed: restores to ext4, and the memory of creating a million files.
func fixed() document {
	small, large := manyCounts()[0], manyCounts()[1]
	none := daemonReport{}
	return document{
		date: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), rounds: 3,
		machine: machine{"Processor X", 2, 24 << 30, "6.1.0"},
		tools:   []toolVersion{{daemonName, "ws-daemon v1"}, {"tar", "tar 1.34"}, {"tar-zstd", "zstd 1.5"}, {"cp", "cp 9.1"}, {"restic", "restic 0.14"}, {"git", "git version 2.39.5"}},
		tree:    treeSize{139_351, 125_870, 1_061_700_000},
		results: results{compressed: []int64{1.1e6, 1e6, 1.2e6}, samples: map[key][]sample{
			{tmpfs, full, daemonName}:               three(2, 120, 350, daemonReport{1e9, 350e6, requests{"put": 12, "get": 3, "stat": 4, "list": 5}}),
			{tmpfs, full, "tar"}:                    three(1, 3, 1100, none),
			{tmpfs, full, "tar-zstd"}:               three(2.5, 22, 360, none),
			{tmpfs, full, "restic"}:                 three(10, 200, 400, none),
			{tmpfs, unchanged, daemonName}:          three(0.25, 90, 0, daemonReport{Requests: requests{"get": 1, "list": 2}}),
			{tmpfs, unchanged, "restic"}:            three(4, 150, 0, none),
			{tmpfs, changed, daemonName}:            three(0.5, 95, 0, daemonReport{6e6, 3e6, requests{"put": 2, "get": 2, "list": 2}}),
			{tmpfs, changed, "restic"}:              three(5, 160, 0, none),
			{tmpfs, restore, daemonName}:            three(1, 80, 0, daemonReport{Requests: requests{"get": 40, "list": 1}}),
			{tmpfs, restore, "tar"}:                 three(2, 3, 0, none),
			{tmpfs, restore, "cp"}:                  three(2.5, 4, 0, none),
			{tmpfs, restore, "restic"}:              three(8, 230, 0, none),
			{ext4, restore, daemonName}:             three(4, 80, 0, none),
			{ext4, restore, "tar"}:                  three(5, 3, 0, none),
			{xfs, restore, daemonName}:              three(3, 80, 0, none),
			{xfs, restore, "tar"}:                   three(5, 3, 0, none),
			{tmpfs, single, daemonName}:             three(0.03, 40, 0, daemonReport{Requests: requests{"get": 3, "list": 1}}),
			{tmpfs, single, "tar"}:                  three(0.3, 3, 0, none),
			{tmpfs, moved, daemonName}:              three(0.4, 90, 0, daemonReport{Requests: requests{"put": 2, "get": 3, "stat": 4, "list": 2}}),
			{tmpfs, cloned, daemonName}:             three(1.5, 60, 0, none),
			{tmpfs, cloned, "git"}:                  three(3, 70, 0, none),
			{tmpfs, createMany(small), daemonName}:  three(1, 100, 0, none),
			{tmpfs, createMany(large), daemonName}:  three(10, 600, 0, none),
			{tmpfs, restoreMany(small), daemonName}: three(0.8, 90, 0, none),
			{tmpfs, restoreMany(small), "cp"}:       three(1.5, 4, 0, none),
			{tmpfs, restoreMany(large), daemonName}: three(8, 400, 0, none),
			{tmpfs, restoreMany(large), "cp"}:       three(18, 4, 0, none),
			{thinPool, start(0), daemonName}:        three(2, 0, 0, none),
			{thinPool, start(1), daemonName}:        three(2.2, 0, 0, none),
			{thinPool, start(5), daemonName}:        three(2.4, 0, 0, none),
		}},
	}
}

func TestReport(t *testing.T) {
	NewWithT(t).Expect(fixed().text()).To(Equal(wanted))
}

// Without other tools and without disks there is still a document.
func TestReportOfLittle(t *testing.T) {
	g := NewWithT(t)
	text := document{tools: []toolVersion{{daemonName, "v1"}}}.text()
	g.Expect(text).To(ContainSubstring("| time of restore on ext4 / tar | 0.700 × | – | not measured |\n"))
	g.Expect(text).NotTo(ContainSubstring("NaN"))
}
