// Command bench measures how long backups and restores of a real tree take, beside the tools that people know.
//
// All tools work on the same tree in interleaved rounds on one machine, so their ratios can be compared; absolute times
// cannot, not even between two runs. The results go to docs/benchmarks.md, with the limits that ws-daemon keeps to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// options of a run.
type options struct {
	rounds  int
	daemon  string // path of the ws-daemon binary
	cache   string // directory where the tree is kept between runs
	images  string // directory of the disks' images; empty means the run's own tmpfs
	only    string // names of tools, separated by commas; empty means all
	output  string // file of the document; empty means standard output
	disks   bool   // restore to ext4 and XFS as well
	million bool   // measure trees of small files as well
	git     bool   // measure clones of a repository as well
	clones  bool   // measure instant starts as well
	check   bool   // a limit that is not kept is an error
	prepare bool   // only do what needs no root
}

func main() {
	initializer.Enter()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case helperName:
			os.Exit(helper(os.Args[2:]))
		case clonerName:
			os.Exit(cloner(os.Args[2:]))
		}
	}
	if err := run(flags()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func flags() options {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often every tool does everything")
	flag.StringVar(&o.daemon, "ws-daemon", "bin/ws-daemon", "path of the ws-daemon binary")
	flag.StringVar(&o.cache, "cache", defaultCache(), "where the tree is kept between runs")
	flag.StringVar(&o.images, "images", "", "directory of the images of ext4 and XFS; in memory by default")
	flag.StringVar(&o.only, "only", "", "names of the tools to run, separated by commas, and clone for instant starts; all by default")
	flag.StringVar(&o.output, "output", "", "file to write, for example docs/benchmarks.md; standard output by default")
	flag.BoolVar(&o.disks, "disks", true, "restore to ext4 and XFS on loop devices as well")
	flag.BoolVar(&o.million, "million", true, "measure 100,000 and 1,000,000 small files as well")
	flag.BoolVar(&o.git, "git", true, "measure clones of a git repository as well")
	flag.BoolVar(&o.clones, "clones", true, "measure instant starts in the virtual machine as well")
	flag.BoolVar(&o.check, "check", false, "fail if a limit is missed or was not measured")
	flag.BoolVar(&o.prepare, "prepare", false, "only do what needs no root: build the tree, and measure instant starts for the next run")
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

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if o.rounds < 1 {
		return fmt.Errorf("-rounds %d: at least one round is needed", o.rounds)
	}
	kept := ""
	if o.only != cloneName {
		var err error
		if kept, err = buildTree(ctx, o.cache); err != nil {
			return err
		}
	}
	if o.prepare {
		return measureClones(ctx, o)
	}
	d, err := measureAll(ctx, o, kept)
	if err == nil {
		err = d.results.takeClones(o.clonesFile())
	}
	if err != nil {
		return err
	}
	if err := write(o.output, d.text()); err != nil {
		return err
	}
	if missed := d.missed(); o.check && missed > 0 {
		return fmt.Errorf("%d limits were missed or not measured: see the table of limits", missed)
	}
	return nil
}

// measureAll runs everything on a tmpfs of its own, but instant starts.
func measureAll(ctx context.Context, o options, kept string) (d document, err error) {
	if o.only == cloneName {
		return document{date: time.Now().UTC(), rounds: o.rounds, results: results{samples: map[key][]sample{}}, machine: thisMachine()}, nil
	}
	if err := enterPrivateMounts(); err != nil {
		return d, err
	}
	if err := enoughMemory(o); err != nil {
		return d, err
	}
	dir, release, err := mountScratch()
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, release()) }()
	b, err := newBench(ctx, o, dir, kept)
	if err != nil {
		return d, err
	}
	if err := b.all(ctx); err != nil {
		return d, err
	}
	return b.document(ctx)
}

func write(path, text string) error {
	if path == "" {
		_, err := os.Stdout.WriteString(text)
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
