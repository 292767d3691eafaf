package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report writes what was measured as a document.
func (b *bench) report(ctx context.Context, o options) (string, error) {
	var s strings.Builder
	entries, bytes, err := count(b.tree)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&s, "# Benchmarks\n\nWritten by `make bench` on %s. Medians of %d interleaved rounds; each ratio is ws-daemon's time divided by the\n"+
		"tool's, and is worth more than the times: those depend on the machine and the day.\n\n", time.Now().UTC().Format(time.DateOnly), o.rounds)
	fmt.Fprintf(&s, "- Tree: npm packages and a git repository, %d entries, %.1f MB of file data (`hack/bench`)\n", entries, float64(bytes)/1e6)
	fmt.Fprintf(&s, "- Machine: %d cores, %s, kernel %s, file system %s\n", runtime.NumCPU(), processor(), kernel(), fileSystem(b.dir))
	fmt.Fprintf(&s, "- ws-daemon: AES-256-GCM, every byte verified on restore; tar-zstd: `tar | zstd -1 -T2`; cp: `cp -a`; borg: zstd,1\n")
	for _, t := range b.tools {
		version, err := versionOf(ctx, t)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&s, "- %s: %s\n", t.name, version)
	}
	for _, w := range works {
		b.table(&s, w)
	}
	b.sizes(&s)
	return s.String(), nil
}

func (b *bench) table(s *strings.Builder, w work) {
	fmt.Fprintf(s, "\n## %s%s\n\n| Tool | Time (s) | Ratio | CPU (s) | Peak memory (MB) |\n|---|---|---|---|---|\n", strings.ToUpper(string(w[:1])), w[1:])
	base := median(b.results[w]["ws-daemon"], wallOf)
	for _, t := range b.tools {
		costs := b.results[w][t.name]
		if len(costs) == 0 {
			continue
		}
		wall := median(costs, wallOf)
		fmt.Fprintf(s, "| %s | %.2f | %.2f | %.2f | %.0f |\n", t.name, wall.Seconds(), float64(base)/float64(wall),
			median(costs, cpuOf).Seconds(), float64(median(costs, memoryOf))/1e6)
	}
	if text := strings.TrimSpace(string(b.summary[w])); text != "" {
		fmt.Fprintf(s, "\nws-daemon's own report of the last round:\n\n```json\n%s\n```\n", text)
	}
}

func (b *bench) sizes(s *strings.Builder) {
	fmt.Fprintf(s, "\n## Stored bytes after the full backup\n\n| Tool | MB | Ratio |\n|---|---|---|\n")
	middle := func(all []int64) int64 {
		slices.Sort(all)
		return all[len(all)/2]
	}
	for _, t := range b.tools {
		if len(b.stored[t.name]) == 0 {
			continue
		}
		n := middle(b.stored[t.name])
		ratio := "–"
		if base := b.stored["ws-daemon"]; len(base) > 0 && n > 0 {
			ratio = fmt.Sprintf("%.2f", float64(middle(base))/float64(n))
		}
		fmt.Fprintf(s, "| %s | %.1f | %s |\n", t.name, float64(n)/1e6, ratio)
	}
}

func count(tree string) (entries, bytes int64, err error) {
	err = filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		if info, err := d.Info(); err == nil && d.Type().IsRegular() {
			bytes += info.Size()
		}
		return nil
	})
	return entries, bytes, err
}

func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	names := map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs"}
	if name, ok := names[int64(st.Type)]; ok { //nolint:unconvert // its type differs by architecture
		return name
	}
	return fmt.Sprintf("%#x", st.Type)
}
