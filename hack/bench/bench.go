package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// bench is a run.
type bench struct {
	options

	dir     string // of everything; a tmpfs
	tree    string
	file    string // path of the one file to restore, relative to the tree
	tools   []tool
	sizes   map[string]treeSize // of trees
	url     string              // of the repository that is cloned, "" if none is
	self    string              // path of this program
	results results
	warmed  int64 // bytes
}

// newBench copies the kept tree to the scratch directory.
func newBench(ctx context.Context, o options, dir, kept string) (*bench, error) {
	tools, err := contenders(o)
	if err != nil {
		return nil, err
	}
	if len(tools) == 0 {
		return nil, fmt.Errorf("none of the tools %q is there", o.only)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bench{
		options: o, dir: dir, self: self, tree: filepath.Join(dir, "tree"), tools: tools,
		sizes: map[string]treeSize{}, results: results{samples: map[key][]sample{}},
	}
	say("copying the tree to %s", b.tree)
	if _, _, err := execute(ctx, expand("cp -a {kept} {tree}", "{kept}", kept, "{tree}", b.tree)); err != nil {
		return nil, err
	}
	b.file, err = pick(b.tree)
	if err != nil {
		return nil, err
	}
	return b, b.remember(b.tree)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// remember notes the size of a tree, with which what is restored is compared.
func (b *bench) remember(tree string) (err error) {
	b.sizes[tree], err = measureTree(tree)
	return err
}

// all does all rounds.
func (b *bench) all(ctx context.Context) error {
	if b.git { // before what takes much longer
		if err := b.repositories(ctx); err != nil {
			return err
		}
	}
	for n := 1; n <= b.rounds; n++ {
		say("round %d of %d", n, b.rounds)
		if err := b.round(ctx, n); err != nil {
			return err
		}
	}
	if !b.million {
		return nil
	}
	return b.many(ctx)
}

// round has every tool do every work once. Within a work the tools follow each other, beginning with another one each time.
func (b *bench) round(ctx context.Context, n int) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Join(b.dir, "stores"))) }()
	tools := slices.Concat(b.tools[n%len(b.tools):], b.tools[:n%len(b.tools)])
	for _, t := range tools {
		if err := b.init(ctx, t, b.places(t)); err != nil {
			return err
		}
	}
	for _, w := range works() {
		if err := b.work(ctx, w, n, tools); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) work(ctx context.Context, w work, n int, tools []tool) error {
	if w == changed {
		if err := b.change(ctx, n); err != nil {
			return err
		}
	}
	for _, t := range tools {
		if err := b.measure(ctx, key{tmpfs, w, t.name}, t, b.places(t)); err != nil {
			return err
		}
	}
	if w != restore || !b.disks {
		return nil
	}
	for _, d := range disks() {
		for _, t := range tools {
			if err := b.onDisk(ctx, d, t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) places(t tool) places {
	return places{
		tree: b.tree, store: filepath.Join(b.dir, "stores", t.name), out: filepath.Join(b.dir, "out"), file: b.file, url: b.url, self: b.self,
	}
}

func (b *bench) init(ctx context.Context, t tool, p places) error {
	if err := os.MkdirAll(p.store, 0o700); err != nil || t.init == "" {
		return err
	}
	_, _, err := execute(ctx, p.expand(t.init), p.environment(t)...)
	return err
}

// onDisk measures a restore to a new file system, so that no tool finds another's leftovers.
func (b *bench) onDisk(ctx context.Context, d disk, t tool) (err error) {
	if t.do[restore] == "" {
		return nil
	}
	images := b.images
	if images == "" {
		images = b.dir
	}
	at := filepath.Join(b.dir, "disk")
	release, err := mountDisk(ctx, d, images, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	p := b.places(t)
	p.out = filepath.Join(at, "out")
	return b.measure(ctx, key{d.place, restore, t.name}, t, p)
}

// measure does a work once and keeps what it took.
func (b *bench) measure(ctx context.Context, k key, t tool, p places) (err error) {
	if err := os.Mkdir(p.out, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.out)) }()
	if before := t.before[k.work]; before != "" {
		if _, _, err := execute(ctx, p.expand(before), p.environment(t)...); err != nil {
			return err
		}
	}
	script := t.do[k.work]
	if script == "" {
		return nil
	}
	took, output, err := execute(ctx, p.expand(script), p.environment(t)...)
	if err != nil {
		return fmt.Errorf("%s by %s: %w", k.work, t.name, err)
	}
	say("  %-5s %-40s %-10s %8.2f s", k.place, k.work, k.tool, took.Wall.Seconds())
	return b.keep(k, p, took, output)
}

// keep adds a sample, after a look at what was restored.
func (b *bench) keep(k key, p places, took cost, output []byte) error {
	if err := b.inspect(k.work, p); err != nil {
		return fmt.Errorf("%s by %s: %w", k.work, k.tool, err)
	}
	s := sample{cost: took}
	if k.work == full {
		s.stored = storeSize(p.store)
	}
	if k.tool == daemonName {
		if err := json.Unmarshal(output, &s.report); err != nil {
			return fmt.Errorf("read the report of %s: %w", k.work, err)
		}
	}
	b.results.samples[k] = append(b.results.samples[k], s)
	return nil
}

// inspect makes sure that a restore did what it was measured for.
func (b *bench) inspect(w work, p places) error {
	switch w {
	case cloned:
		return countClone(p.out)
	case single:
		_, err := os.Lstat(filepath.Join(p.out, p.file))
		return err
	case restore, restoreMany(manyCounts()[0]), restoreMany(manyCounts()[1]):
		got, err := measureTree(p.out)
		if err == nil && got != b.sizes[p.tree] {
			err = fmt.Errorf("restored %+v, but the tree has %+v", got, b.sizes[p.tree])
		}
		return err
	default:
		return nil
	}
}

// change edits the tree and notes what zstd makes of the edited files.
func (b *bench) change(ctx context.Context, round int) error {
	list := filepath.Join(b.dir, "changed")
	if err := change(b.tree, list, round); err != nil {
		return err
	}
	_, output, err := execute(ctx, expand("xargs -0 -a {list} cat | zstd -q -1 | wc -c", "{list}", list))
	if err != nil {
		return err
	}
	var n int64
	if _, err := fmt.Sscan(string(output), &n); err != nil {
		return fmt.Errorf("read the size of the changed files: %w", err)
	}
	b.results.compressed = append(b.results.compressed, n)
	return b.remember(b.tree)
}

func (b *bench) document(ctx context.Context) (document, error) {
	d := document{date: time.Now().UTC(), rounds: b.rounds, tree: b.sizes[b.tree], results: b.results, machine: thisMachine()}
	for _, t := range b.tools {
		version, err := versionOf(ctx, t)
		if err != nil {
			return d, err
		}
		d.tools = append(d.tools, toolVersion{t.name, version})
	}
	return d, nil
}
