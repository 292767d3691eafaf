// Command bench measures how long backups and restores of a real tree take, beside the tools that people know.
//
// All tools work on the same tree in interleaved rounds on one machine, so their ratios can be compared; absolute times
// cannot, not even between two runs. The results go to docs/benchmarks.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// options of a run.
type options struct {
	rounds int
	work   string // directory of trees, stores and restored trees: a tmpfs, or a disk
	cache  string // directory where the tree is kept between runs
	daemon string // path of the ws-daemon binary
	only   string // names of tools, separated by commas; empty means all
	output string // file of the table; empty means standard output
}

func main() {
	if err := run(flags()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func flags() options {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often every tool does everything")
	flag.StringVar(&o.work, "work", "/dev/shm", "where trees and stores lie while they are measured: a tmpfs, or a disk")
	flag.StringVar(&o.cache, "cache", defaultCache(), "where the tree is kept between runs")
	flag.StringVar(&o.daemon, "ws-daemon", "", "path of the ws-daemon binary")
	flag.StringVar(&o.only, "only", "", "names of the tools to run, separated by commas; all by default")
	flag.StringVar(&o.output, "output", "", "file to write the table to, for example docs/benchmarks.md; standard output by default")
	flag.Parse()
	return o
}

func defaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "ws-daemon-bench")
	}
	return filepath.Join(dir, "ws-daemon", "bench")
}

func run(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	kept, err := buildTree(ctx, o.cache)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(o.work, "ws-daemon-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(scratch); err == nil {
			err = removeErr
		}
	}()
	b := &bench{dir: scratch, tree: filepath.Join(scratch, "tree"), tools: contenders(o), results: results{}}
	fmt.Fprintf(os.Stderr, "copying the tree to %s\n", b.tree)
	if _, err := execute(ctx, command{argv: []string{"cp", "-a", kept, b.tree}}); err != nil {
		return err
	}
	for round := 1; round <= o.rounds; round++ {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, o.rounds)
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	text, err := b.report(ctx, o)
	if err != nil || o.output == "" {
		fmt.Print(text)
		return err
	}
	return os.WriteFile(o.output, []byte(text), 0o644)
}
