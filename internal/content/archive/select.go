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
		s.found[i] = entryIn(d, nameIn(p)) != nil
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

// pages returns the numbers of the pages that a restore of the selection needs: those of the directories that it is in, of
// its files, and of its directories. A path that may be a directory of one page is taken for a file first: see rest.
func (s *selection) pages(refs []format.PageRef) []int {
	wanted := make([]bool, len(refs))
	for _, p := range s.paths {
		for dir := p; dir != ""; {
			dir = dirOf(dir)
			wanted[placeOf(refs, dir, "")] = true
		}
		wanted[filePage(refs, p)] = true
		if first, end := treePages(refs, p); end > first+1 {
			markAll(wanted, first, end)
		}
	}
	return marked(wanted)
}

// rest returns the numbers of the pages that are needed besides, because what was taken for a file is not there as one.
func (s *selection) rest(refs []format.PageRef, read map[int]readPage) []int {
	wanted := make([]bool, len(refs))
	for _, p := range s.paths {
		first, _ := treePages(refs, p)
		file := read[filePage(refs, p)].page // nil if it could not be read
		if _, all := read[first]; !all && (file == nil || entryOf(file, p) == nil) {
			wanted[first] = true
		}
	}
	return marked(wanted)
}

// rows returns the numbers of the pages that have anything of the selection.
func (s *selection) rows(refs []format.PageRef) []int {
	wanted := make([]bool, len(refs))
	for _, p := range s.paths {
		wanted[filePage(refs, p)] = true
		first, end := treePages(refs, p)
		markAll(wanted, first, end)
	}
	return marked(wanted)
}

func markAll(wanted []bool, from, to int) {
	for i := from; i < to; i++ {
		wanted[i] = true
	}
}

func marked(wanted []bool) (numbers []int) {
	for i, w := range wanted {
		if w {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// dirOf returns the directory that a path lies in, nameIn what it is called there.
func dirOf(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

func nameIn(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// entryOf returns the entry of a path, nil if the page does not have it.
func entryOf(page *format.Page, path string) *format.Entry {
	dir := dirOf(path)
	for i := range page.Dirs {
		if d := &page.Dirs[i]; d.Path == dir {
			return entryIn(d, nameIn(path))
		}
	}
	return nil
}

func entryIn(d *format.Dir, name string) *format.Entry {
	i, found := slices.BinarySearchFunc(d.Entries, name, func(e format.Entry, name string) int { return strings.Compare(e.Name, name) })
	if !found {
		return nil
	}
	return &d.Entries[i]
}

// placeOf is the number of the page that has a name in a directory if any has, or the directory itself if the name is empty.
func placeOf(refs []format.PageRef, dir, name string) int {
	return sort.Search(len(refs), func(i int) bool { return refs[i].Compare(dir, name) > 0 }) - 1
}

// filePage is the number of the page that has the entry of a path if any has.
func filePage(refs []format.PageRef, path string) int {
	return placeOf(refs, dirOf(path), nameIn(path))
}

// treePages are the pages that can have anything of a directory or below it: from the first up to the end.
func treePages(refs []format.PageRef, dir string) (first, end int) {
	first = placeOf(refs, dir, "")
	for end = first + 1; end < len(refs) && (refs[end].First == dir || below(refs[end].First, dir)); {
		end++
	}
	return first, end
}
