package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// treeSize tells trees apart.
type treeSize struct{ entries, files, bytes int64 }

func measureTree(dir string) (s treeSize, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		s.entries++
		if !d.Type().IsRegular() {
			return nil
		}
		s.files++
		info, err := d.Info()
		if err == nil {
			s.bytes += info.Size()
		}
		return err
	})
	return s, err
}

// storeSize is the sum of the sizes of all files of a store, but for caches.
func storeSize(dir string) int64 {
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

// How much a round edits, and how large a file a person edits at most.
const (
	changedFiles       = 1000
	changedDirectories = 150
	editedBytes        = 1 << 20
)

// change appends a line to 1,000 files in about 150 directories, others in each round, and writes their paths to a list, each with a
// zero byte after it.
func change(tree, list string, round int) error {
	some, err := choose(tree, round)
	if err != nil {
		return err
	}
	for _, path := range some {
		if err := appendLine(path, round); err != nil {
			return err
		}
	}
	return os.WriteFile(list, []byte(strings.Join(some, "\x00")+"\x00"), 0o600)
}

// choose returns the files of a round: some of each chosen directory.
func choose(tree string, round int) ([]string, error) {
	all, err := directories(tree)
	if err != nil {
		return nil, err
	}
	var some []string
	for i := round; i < len(all) && len(some) < changedFiles; i += max(1, len(all)/(3*changedDirectories)) {
		some = append(some, all[i][:min(len(all[i]), changedFiles/changedDirectories+1, changedFiles-len(some))]...)
	}
	if len(some) < changedFiles {
		return nil, fmt.Errorf("only %d files were found to change in %s", len(some), tree)
	}
	return some, nil
}

// directories returns the paths of the files in each directory that has some, in the order of a walk.
func directories(tree string) (all [][]string, err error) {
	at := map[string]int{}
	err = walkFiles(tree, func(path string, size int64) {
		if size >= editedBytes {
			return
		}
		dir := filepath.Dir(path)
		if _, ok := at[dir]; !ok {
			at[dir] = len(all)
			all = append(all, nil)
		}
		all[at[dir]] = append(all[at[dir]], path)
	})
	return all, err
}

func walkFiles(tree string, visit func(path string, size int64)) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			visit(path, info.Size())
		}
		return err
	})
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

// pick returns the path of a file of ordinary size in the middle of the tree, relative to it.
func pick(tree string) (string, error) {
	var found []string
	err := walkFiles(tree, func(path string, size int64) {
		if size > 4<<10 && size < 64<<10 {
			found = append(found, path)
		}
	})
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("there is no file of 4 to 64 KiB to restore in %s", tree)
	}
	slices.Sort(found)
	return filepath.Rel(tree, found[len(found)/2])
}
