package archive

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// maxNamed limits how many paths a report names; the counts go on.
const maxNamed = 100

// Problem is a path and what is wrong with it. A path that is not clean UTF-8 is quoted (%q).
type Problem struct {
	Path  string
	Error string
}

// Report says what was read or written.
type Report struct {
	// Digest is the hexadecimal SHA-256 of everything that a restore brings back. It does not depend on the node: equal
	// trees have equal digests.
	Digest string
	// Files counts names of regular files (each hard link counts), Dirs includes the root, Links are symbolic links,
	// Others FIFOs and whiteouts.
	Files, Dirs, Links, Others int64
	// Bytes is the sum of the sizes of regular files, each hard-linked file once.
	Bytes int64
	// Unreadable names what could not be read (at most 100) and is missing or without attributes in the backup.
	Unreadable      []Problem
	UnreadableCount int64
	// Changed names files that never held still while they were read (at most 100).
	Changed []string
	// Skipped names sockets and devices (at most 100), which are never kept.
	Skipped      []string
	SkippedCount int64
	// Altered names what a restore has made, and this filesystem cannot hold as it was (at most 100).
	Altered      []Problem
	AlteredCount int64
	// Newest is the newest mtime or ctime seen.
	Newest time.Time
}

// Progress is told the running totals of files and bytes. It must not block. It is called by one goroutine at a time.
type Progress func(files, bytes int64)

func (r *Report) unreadable(path string, err error) {
	r.UnreadableCount++
	if len(r.Unreadable) < maxNamed {
		r.Unreadable = append(r.Unreadable, Problem{Path: display(path), Error: err.Error()})
	}
}

func (r *Report) altered(path string, err error) {
	r.AlteredCount++
	if len(r.Altered) < maxNamed {
		r.Altered = append(r.Altered, Problem{Path: display(path), Error: err.Error()})
	}
}

func (r *Report) changed(path string) {
	if len(r.Changed) < maxNamed {
		r.Changed = append(r.Changed, display(path))
	}
}

func (r *Report) skipped(path string) {
	r.SkippedCount++
	if len(r.Skipped) < maxNamed {
		r.Skipped = append(r.Skipped, display(path))
	}
}

func (r *Report) newest(times ...time.Time) {
	for _, t := range times {
		if t.After(r.Newest) {
			r.Newest = t
		}
	}
}

// display quotes paths that would garble a status or a terminal. The root is shown as ".".
func display(path string) string {
	if path == "" {
		return "."
	}
	if !utf8.ValidString(path) {
		return strconv.Quote(path)
	}
	for _, c := range path {
		if !strconv.IsPrint(c) {
			return strconv.Quote(path)
		}
	}
	return path
}
