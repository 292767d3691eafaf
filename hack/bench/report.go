package main

import (
	"fmt"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/progress"
)

// toolVersion is a tool and what it says of itself.
type toolVersion struct{ name, version string }

// document is everything that docs/benchmarks.md is made of.
type document struct {
	date    time.Time
	rounds  int
	machine machine
	tools   []toolVersion
	tree    treeSize
	results results
}

const introduction = `# Benchmarks

Written by ` + "`make bench`" + ` on %s; change the program in ` + "`hack/bench`" + `, not this page. Every number is the median of
%d interleaved rounds on one machine.

- Ratios are ws-daemon's time divided by the other tool's in the same run: below 1 means that ws-daemon is faster. They are what this page is for.
- Times are those of this machine, in the state in which it was. They cannot be compared with times of another run, still less with those of another machine.

`

const comparison = `## What can be compared, and what cannot

- All tools work on the same tree in the same round, each round begins with another one, and every restore ends with ` + "`sync -f`" + ` of the file
  system. What was restored is counted after each restore.
- ws-daemon, restic and borg encrypt. ws-daemon verifies every byte that it restores, restic and borg what they read from their stores; tar and
  cp verify nothing, zstd has a checksum of 32 bits. tar and cp would have to do more to do the same.
- restic compresses with its default, borg with zstd,1, tar-zstd is ` + "`tar | zstd -1 -T2`" + `. A better compression takes more time and less space.
- tar cannot add a small change, and cp keeps no backups: these rows are missing for them.
- One file is restored out of the full backup; out of a tar it is found by reading all before it, and reading goes on to the end.
- Everything lies in memory, the images of ext4 and XFS as well unless they were put elsewhere. A slower disk or store makes all tools alike where it is
  the limit, and the threads of loop devices use the same cores as the tools.
- A repository of the first 20,000 files of the tree is cloned, from a server in this program. ws-daemon clones as another user, in its sandbox, checks every object it
  receives, compares the size with what there is room for, and makes the files with all processors; plain git does none of that. Both end with ` + "`sync -f`" + `.
- Memory is that of the largest process. Values of some MB are those of what starts the tools.
- On a virtual machine, the first use of a page of memory can take much longer than the next. That hits any tool; the fastest round shows it least.
  Before trees of small files are measured, as much memory as they need is used once.

`

const repetition = `## How to repeat

` + "`make bench`" + ` on a quiet machine with apt, as root or with sudo. The first run builds the tree, with npm and Go's module proxy, in some minutes.
It needs up to 15 GiB of free memory (9 GiB with ` + "`BENCH_FLAGS=-million=false`" + `), and leaves nothing but the tree and the times of instant starts in the
user's cache. ` + "`BENCH_FLAGS='-only=clone -output='`" + ` measures instant starts alone and prints them, ` + "`BENCH_FLAGS=-clones=false`" + ` leaves them out.
` + "`BENCH_ROUNDS=1`" + ` is a quick look, ` + "`BENCH_FLAGS=-check`" + ` fails if a limit is not kept, and ` + "`BENCH_FLAGS=-images=DIRECTORY`" + ` puts ext4 and XFS on a real disk.
`

// text is the document in Markdown. Two runs differ only in numbers.
func (d document) text() string {
	var s strings.Builder
	fmt.Fprintf(&s, introduction, d.date.Format(time.DateOnly), d.rounds)
	d.limitTable(&s)
	d.placeTable(&s, tmpfs, "Everything on a tmpfs", works()[:5])
	d.placeTable(&s, ext4, "Restore from a tmpfs to ext4 on a loop device", []work{restore})
	d.placeTable(&s, xfs, "Restore from a tmpfs to XFS on a loop device", []work{restore})
	d.storeTable(&s)
	d.requestTable(&s)
	d.manyTable(&s)
	d.cloneTable(&s)
	d.placeTable(&s, tmpfs, "Clone of a git repository over HTTP to a tmpfs", []work{cloned})
	s.WriteString(comparison)
	d.circumstances(&s)
	s.WriteString(repetition)
	return s.String()
}

func (d document) limitTable(s *strings.Builder) {
	s.WriteString("## Limits\n\nWhat ws-daemon keeps to, measured in this run.\n\n| What | At most | Measured | |\n|---|---|---|---|\n")
	for _, l := range limits() {
		verdict, _ := l.verdict(d.results)
		fmt.Fprintf(s, "| %s | %s | %s | %s |\n", l.what, l.show(l.most(d.results)), l.show(l.got(d.results)), verdict)
	}
	s.WriteString("\n")
}

// missed counts the limits that are not kept.
func (d document) missed() int {
	n := 0
	for _, l := range limits() {
		if _, kept := l.verdict(d.results); !kept {
			n++
		}
	}
	return n
}

func (d document) placeTable(s *strings.Builder, p place, title string, rows []work) {
	fmt.Fprintf(s, "## %s\n\n| Work | Tool | Time (s) | Fastest (s) | ws-daemon's ratio | CPU time (s) | Peak memory (MB) |\n|---|---|---|---|---|---|---|\n", title)
	for _, w := range rows {
		for _, t := range d.tools {
			d.measured(s, key{p, w, t.name})
		}
	}
	s.WriteString("\n")
}

func (d document) measured(s *strings.Builder, k key) {
	wall, ok := median(d.results, k, wallOf)
	if !ok {
		return
	}
	ratio := "–"
	if value, ok := over(d.results, key{k.place, k.work, daemonName}, k, wallOf); ok && k.tool != daemonName {
		ratio = fmt.Sprintf("%.2f", value)
	}
	cpu, _ := median(d.results, k, cpuOf)
	memory, _ := median(d.results, k, memoryOf)
	fmt.Fprintf(s, "| %s | %s | %.2f | %.2f | %s | %.2f | %.0f |\n", k.work, k.tool, wall.Seconds(), d.results.fastest(k).Seconds(), ratio,
		cpu.Seconds(), float64(memory)/1e6)
}

func (d document) storeTable(s *strings.Builder) {
	s.WriteString("## Bytes stored by the full backup\n\n| Tool | MB | ws-daemon's ratio |\n|---|---|---|\n")
	ours := key{tmpfs, full, daemonName}
	for _, t := range d.tools {
		k := key{tmpfs, full, t.name}
		stored, ok := median(d.results, k, storedOf)
		if !ok {
			continue
		}
		ratio := "–"
		if value, ok := over(d.results, ours, k, storedOf); ok && k != ours {
			ratio = fmt.Sprintf("%.3f", value)
		}
		fmt.Fprintf(s, "| %s | %.1f | %s |\n", t.name, float64(stored)/1e6, ratio)
	}
	s.WriteString("\n")
}

func (d document) requestTable(s *strings.Builder) {
	kinds := d.results.kinds()
	fmt.Fprintf(s, "## What ws-daemon asks of its store\n\nRequests by kind, as `--json` reports them. Content read is that of the tree.\n\n"+
		"| Work |%s Content read (MB) | Stored (MB) |\n|---|%s---|---|\n", cells(kinds), strings.Repeat("---|", len(kinds)))
	for _, w := range works() {
		k := key{tmpfs, w, daemonName}
		if len(d.results.samples[k]) == 0 {
			continue
		}
		counts := make([]string, 0, len(kinds))
		for _, kind := range kinds {
			n, _ := median(d.results, k, func(s sample) int64 { return s.report.Requests[kind] })
			counts = append(counts, fmt.Sprint(n))
		}
		read, _ := median(d.results, k, readOf)
		stored, _ := median(d.results, k, addedOf)
		fmt.Fprintf(s, "| %s |%s %.1f | %.1f |\n", w, cells(counts), float64(read)/1e6, float64(stored)/1e6)
	}
	if n, ok := middle(d.results.compressed); ok {
		fmt.Fprintf(s, "\nzstd -1 makes %.1f MB of the 1,000 changed files.\n", float64(n)/1e6)
	}
	s.WriteString("\n")
}

// cells of a row, each with what ends it.
func cells(texts []string) string {
	var s strings.Builder
	for _, text := range texts {
		fmt.Fprintf(&s, " %s |", text)
	}
	return s.String()
}

// manyTable has a row for each work on each tree of small files.
func (d document) manyTable(s *strings.Builder) {
	s.WriteString("## Many small files\n\nOn a tmpfs: files of up to 2 KiB, 100 in each directory. Restores have to write every file; cp shows how the time of that alone " +
		"grows on this machine: where that is more than 11 times as much, the limit of ours is a tenth above it.\n\n| Work | Tool | Time (s) | CPU time (s) | Peak memory (MB) |\n|---|---|---|---|---|\n")
	for _, of := range []func(int) work{createMany, restoreMany} {
		for _, n := range manyCounts() {
			for _, tool := range []string{daemonName, "cp"} {
				d.manyRow(s, key{tmpfs, of(n), tool})
			}
		}
	}
	s.WriteString("\n")
}

func (d document) manyRow(s *strings.Builder, k key) {
	wall, ok := median(d.results, k, wallOf)
	if !ok {
		return
	}
	cpu, _ := median(d.results, k, cpuOf)
	memory, _ := median(d.results, k, memoryOf)
	fmt.Fprintf(s, "| %s | %s | %.2f | %.2f | %.0f |\n", k.work, k.tool, wall.Seconds(), cpu.Seconds(), float64(memory)/1e6)
}

func (d document) circumstances(s *strings.Builder) {
	fmt.Fprintf(s, "## Machine, tree and versions\n\n- Machine: %s, %d cores, %.1f GiB of memory, kernel %s\n", d.machine.processor, d.machine.cores,
		float64(d.machine.memory)/(1<<30), d.machine.kernel)
	fmt.Fprintf(s, "- Tree: npm packages and a git repository, %s entries, %s files, %.1f MB of file data\n",
		progress.Count(d.tree.entries), progress.Count(d.tree.files), float64(d.tree.bytes)/1e6)
	for _, t := range d.tools {
		fmt.Fprintf(s, "- %s: %s\n", t.name, t.version)
	}
	s.WriteString("\n")
}
