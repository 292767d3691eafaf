package archive

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// selection are the paths that somebody wants of a tree: files, or directories with all that is in them. A nil one is everything.
type selection struct {
	paths []string
	found []bool
}

// newSelection cleans the paths as a person writes them.
func newSelection(paths []string) (*selection, error) {
	s := &selection{}
	for _, path := range paths {
		clean := strings.Trim(strings.TrimPrefix(path, "./"), "/")
		if clean == "" || clean == "." {
			return nil, nil //nolint:nilnil // The root is everything.
		}
		for part := range strings.SplitSeq(clean, "/") {
			if part == "" || part == "." || part == ".." || len(part) > 255 || strings.Contains(part, "\x00") {
				return nil, fmt.Errorf("path %s is not one within a backup: give it from the top, without \"..\"", display(path))
			}
		}
		s.paths = append(s.paths, clean)
	}
	if len(s.paths) == 0 {
		return nil, nil //nolint:nilnil // Nothing chosen is everything.
	}
	s.found = make([]bool, len(s.paths))
	return s, nil
}

// dir reports whether a directory is needed, and whether all that is in it is.
func (s *selection) dir(path string) (keep, all bool) {
	if s == nil {
		return true, true
	}
	for i, p := range s.paths {
		switch {
		case path == p:
			s.found[i] = true
			return true, true
		case below(path, p):
			return true, true
		case path == "" || below(p, path):
			keep = true
		}
	}
	return keep, false
}

// entry reports whether an entry of a directory that is not wanted as a whole is.
func (s *selection) entry(dir, name string) bool {
	if s == nil {
		return true
	}
	for i, p := range s.paths {
		if len(p) >= len(name) && p == join(dir, name) {
			s.found[i] = true
			return true
		}
	}
	return false
}

// see notes which paths are in a directory that is wanted as a whole.
func (s *selection) see(d *format.Dir) {
	if s == nil {
		return
	}
	for i, p := range s.paths {
		if s.found[i] || dirOf(p) != d.Path {
			continue
		}
		name := strings.TrimPrefix(p[len(d.Path):], "/")
		_, s.found[i] = slices.BinarySearchFunc(d.Entries, name, func(e format.Entry, name string) int {
			return strings.Compare(e.Name, name)
		})
	}
}

// missing returns an error that names the first path that nothing was found of.
func (s *selection) missing() error {
	if s == nil {
		return nil
	}
	if i := slices.Index(s.found, false); i >= 0 {
		return &PathError{Path: s.paths[i]}
	}
	return nil
}

// PathError says that a backup does not have a path.
type PathError struct{ Path string }

func (e *PathError) Error() string {
	return fmt.Sprintf("there is no %s in the backup: see what there is with `ws-daemon archive ls`", display(e.Path))
}

// below reports whether path lies in dir.
func below(path, dir string) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// pages returns the numbers of the pages that have what a restore of the selection needs: also the directories that it is in.
func (s *selection) pages(refs []format.PageRef) []int {
	return s.choose(refs, func(wanted []bool, p string) {
		for dir := p; dir != ""; {
			dir = dirOf(dir)
			markDir(refs, wanted, dir)
		}
		markEntries(refs, wanted, dirOf(p))
		markTree(refs, wanted, p)
	})
}

// rows returns the numbers of the pages that have anything of the selection.
func (s *selection) rows(refs []format.PageRef) []int {
	return s.choose(refs, func(wanted []bool, p string) {
		markEntries(refs, wanted, dirOf(p))
		markTree(refs, wanted, p)
	})
}

// files returns the numbers of the pages that have the entries of the selection, if that is what they are.
func (s *selection) files(refs []format.PageRef) []int {
	return s.choose(refs, func(wanted []bool, p string) { markEntries(refs, wanted, dirOf(p)) })
}

func (s *selection) choose(refs []format.PageRef, mark func(wanted []bool, path string)) []int {
	wanted := make([]bool, len(refs))
	for _, p := range s.paths {
		mark(wanted, p)
	}
	var numbers []int
	for i, w := range wanted {
		if w {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

func dirOf(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// firstPage is the first page that begins with the directory or a later one.
func firstPage(refs []format.PageRef, dir string) int {
	return sort.Search(len(refs), func(i int) bool { return format.ComparePaths(refs[i].First, dir) >= 0 })
}

// markDir marks where a directory can begin: on the last page that begins before it, or on the first that begins with it.
func markDir(refs []format.PageRef, wanted []bool, dir string) {
	i := firstPage(refs, dir)
	if i > 0 {
		wanted[i-1] = true
	}
	if i < len(refs) && refs[i].First == dir {
		wanted[i] = true
	}
}

// markEntries marks all pages that can have entries of a directory.
func markEntries(refs []format.PageRef, wanted []bool, dir string) {
	markDir(refs, wanted, dir)
	for i := firstPage(refs, dir); i < len(refs) && refs[i].First == dir; i++ {
		wanted[i] = true
	}
}

// markTree marks all pages that can have anything of a directory or below it.
func markTree(refs []format.PageRef, wanted []bool, dir string) {
	markDir(refs, wanted, dir)
	for i := firstPage(refs, dir); i < len(refs) && (refs[i].First == dir || below(refs[i].First, dir)); i++ {
		wanted[i] = true
	}
}
