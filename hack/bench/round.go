package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// bench is a run.
type bench struct {
	dir, tree string
	tools     []tool
	results   results
	stored    map[string][]int64 // bytes of each tool's store after its full backup, one for each round
	summary   map[work][]byte    // what ws-daemon reported of each work last
	one       func() (string, error)
}

// round has every tool do every work once. Within a work the tools follow each other, beginning with another one each time.
func (b *bench) round(ctx context.Context, n int) error {
	tools := slices.Concat(b.tools[n%len(b.tools):], b.tools[:n%len(b.tools)])
	defer func() { _ = os.RemoveAll(filepath.Join(b.dir, "stores")) }()
	for _, t := range tools {
		if err := b.init(ctx, t); err != nil {
			return err
		}
	}
	for _, w := range works {
		if w == changed {
			if err := change(b.tree, n); err != nil {
				return err
			}
		}
		for _, t := range tools {
			if err := b.measure(ctx, w, t); err != nil {
				return fmt.Errorf("%s by %s: %w", w, t.name, err)
			}
		}
	}
	return nil
}

func (b *bench) places(t tool) (places, error) {
	if b.one == nil {
		b.one = sync.OnceValues(func() (string, error) { return pick(b.tree) })
	}
	file, err := b.one()
	return places{
		tree: b.tree, store: filepath.Join(b.dir, "stores", t.name), out: filepath.Join(b.dir, "out"), file: file,
	}, err
}

func (b *bench) init(ctx context.Context, t tool) error {
	p, err := b.places(t)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.store, 0o700); err != nil || t.init == nil {
		return err
	}
	c := t.init(p)
	c.env = environment(t, p)
	_, err = execute(ctx, *c)
	return err
}

func (b *bench) measure(ctx context.Context, w work, t tool) error {
	if t.do[w] == nil {
		return nil
	}
	p, err := b.places(t)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(p.out); err != nil {
		return err
	}
	if err := os.Mkdir(p.out, 0o755); err != nil {
		return err
	}
	c := t.do[w](p)
	c.env = environment(t, p)
	took, err := execute(ctx, *c)
	if err != nil {
		return err
	}
	b.results.add(w, t.name, took)
	b.note(w, t, p, took)
	fmt.Fprintf(os.Stderr, "  %-28s %-18s %8.2f s\n", w, t.name, took.wall.Seconds())
	return os.RemoveAll(p.out)
}

func environment(t tool, p places) []string {
	if t.env == nil {
		return nil
	}
	return t.env(p)
}

// note keeps what is told beside times: the size of the store, and the daemon's own report.
func (b *bench) note(w work, t tool, p places, took cost) {
	if b.stored == nil {
		b.stored, b.summary = map[string][]int64{}, map[work][]byte{}
	}
	if w == full {
		b.stored[t.name] = append(b.stored[t.name], size(p.store))
	}
	if t.name == "ws-daemon" {
		b.summary[w] = took.output
	}
}

// size is the sum of the sizes of all files below a directory, but for caches.
func size(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "cache" || d.Name() == "base") {
			return filepath.SkipDir
		}
		if info, err := d.Info(); err == nil && d.Type().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// change appends a line to 1,000 files in about 150 directories, others in each round.
func change(tree string, round int) error {
	const files, directories = 1000, 150
	byDir, order := map[string][]string{}, []string{}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			dir := filepath.Dir(path)
			if byDir[dir] == nil {
				order = append(order, dir)
			}
			byDir[dir] = append(byDir[dir], path)
		}
		return err
	})
	if err != nil {
		return err
	}
	left := files
	for i := round; i < len(order) && left > 0; i += max(1, len(order)/(3*directories)) {
		some := byDir[order[i]]
		for _, path := range some[:min(len(some), files/directories+1, left)] {
			if err := appendLine(path, round); err != nil {
				return err
			}
			left--
		}
	}
	if left > 0 {
		return fmt.Errorf("only %d files were found to change", files-left)
	}
	return nil
}

func appendLine(path string, round int) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, info.Mode()|0o200); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "\n// changed in round %d\n", round)
	return err
}

// pick returns the path of a file of ordinary size in the middle of the tree.
func pick(tree string) (string, error) {
	var found []string
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Size() > 4<<10 && info.Size() < 64<<10 {
			found = append(found, path)
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no file to restore in %s: %w", tree, err)
	}
	return filepath.Rel(tree, found[len(found)/2])
}
