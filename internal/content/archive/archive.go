// Package archive turns a directory tree into packs and back.
//
// The payload is a PAX tar inside one zstd stream, cut into packs of 32 MiB. It keeps owner, mode, times, extended
// attributes, ACLs, capabilities, hard links, FIFOs, whiteouts, holes, and names that are not UTF-8.
//
// Content is hostile: it may change under our hands, and an archive may come from anywhere. Every access goes through
// descriptors below a directory and never follows a symbolic link.
package archive

import (
	"context"
	"strconv"
	"time"
	"unicode/utf8"
)

// PackSize is the size of every pack but the last.
const PackSize = 32 << 20

// maxNamed limits how many paths a report names; the counts go on.
const maxNamed = 100

// Pack is one stored piece of an archive.
type Pack struct {
	ID     string
	Size   int64
	SHA256 string
}

// Sink stores packs. The data may be reused after PutPack has returned.
type Sink interface {
	PutPack(ctx context.Context, data []byte) (Pack, error)
}

// Source returns the packs that a Sink stored. It verifies size and checksum.
type Source interface {
	GetPack(ctx context.Context, p Pack) ([]byte, error)
}

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
	// Unreadable names what could not be read (at most 100) and is missing or without attributes in the archive.
	Unreadable      []Problem
	UnreadableCount int64
	// Changed names files that never held still while they were read (at most 100).
	Changed []string
	// Skipped names sockets and devices (at most 100), which are never kept.
	Skipped      []string
	SkippedCount int64
	// Newest is the newest mtime or ctime seen.
	Newest time.Time
}

// Progress is told the running totals of files and bytes. It must not block.
type Progress func(files, bytes int64)

func (p Progress) tell(r *Report) {
	if p != nil {
		p(r.Files, r.Bytes)
	}
}

func (r *Report) unreadable(path string, err error) {
	r.UnreadableCount++
	if len(r.Unreadable) < maxNamed {
		r.Unreadable = append(r.Unreadable, Problem{Path: display(path), Error: err.Error()})
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

// display quotes paths that would garble a status or a terminal.
func display(path string) string {
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
