package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

// manyCounts are the sizes of the trees of small files, the smaller one first.
func manyCounts() [2]int { return [2]int{100_000, 1_000_000} }

// manyPerDirectory is the number of files in each directory of these trees.
const manyPerDirectory = 100

// warmth is about what a tree of a million files takes in memory, twice and with its store, in bytes.
const warmth = 11 << 30

// many measures how time and memory grow with the number of files.
func (b *bench) many(ctx context.Context) error {
	if err := b.warm(); err != nil {
		return err
	}
	for _, n := range manyCounts() {
		say("making %d small files", n)
		if err := makeMany(ctx, b.manyTree(n), n); err != nil {
			return err
		}
		if err := b.remember(b.manyTree(n)); err != nil {
			return err
		}
	}
	for round := 1; round <= b.rounds; round++ {
		say("round %d of %d with small files", round, b.rounds)
		for _, n := range manyCounts() {
			if err := b.manyRound(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// warm uses as much memory as is going to be used, once: on a virtual machine the first use of a page takes much longer than the next,
// and that would be measured as growth.
func (b *bench) warm() (err error) {
	file, err := os.Create(filepath.Join(b.dir, "warm"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	for zeros := make([]byte, 1<<20); err == nil && b.warmed < warmth; b.warmed += int64(len(zeros)) {
		_, err = file.Write(zeros)
	}
	return err
}

func (b *bench) manyTree(n int) string { return filepath.Join(b.dir, "many-"+strconv.Itoa(n)) }

// manyRound measures those tools that say how they handle such a tree.
func (b *bench) manyRound(ctx context.Context, n int) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Join(b.dir, "stores"))) }()
	for _, t := range b.tools {
		if t.do[restoreMany(n)] == "" {
			continue
		}
		p := b.places(t)
		p.tree = b.manyTree(n)
		err := b.init(ctx, t, p)
		for _, w := range []work{createMany(n), restoreMany(n)} {
			if err == nil {
				err = b.measure(ctx, key{tmpfs, w, t.name}, t, p)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeMany makes n files of up to 2 KiB of hexadecimal digits, the same ones in each run.
func makeMany(ctx context.Context, dir string, n int) error {
	source := rand.NewChaCha8([32]byte{})
	size := rand.New(source)
	var raw [1 << 10]byte
	for i := 0; i < n; i += manyPerDirectory {
		if err := ctx.Err(); err != nil {
			return err
		}
		below := filepath.Join(dir, fmt.Sprintf("%03d/%03d", i/manyPerDirectory/100, i/manyPerDirectory%100))
		if err := os.MkdirAll(below, 0o755); err != nil {
			return err
		}
		for j := i; j < min(n, i+manyPerDirectory); j++ {
			some := raw[:size.IntN(len(raw))]
			_, _ = source.Read(some)
			if err := os.WriteFile(filepath.Join(below, strconv.Itoa(j)), []byte(hex.EncodeToString(some)), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
