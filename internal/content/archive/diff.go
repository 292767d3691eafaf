package archive

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// ChangeKind says how two backups differ at a path.
type ChangeKind string

// Kinds of changes.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
)

// Change is a difference between two backups. What was a directory and is none any more, or the other way round, is removed
// and added.
type Change struct {
	Kind ChangeKind
	Path string // from the root, "" is the root itself; any bytes but NUL
	Dir  bool
	// What has changed: "type", "content", "target", "mode", "owner", "time", "attributes", "links", "readability". For
	// content that is equal a new time alone is told.
	What []string
}

// Diff calls each for every difference between two backups, in tree order. Pages that both share are not read. An error of
// each ends it and is returned.
func Diff(ctx context.Context, from, to Root, source Source, key *format.Key, each func(Change) error) error {
	a, b, err := openTables(from, to, key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &differ{each: each, a: newRowStream(ctx, source, key, a), b: newRowStream(ctx, source, key, b)}
	defer func() {
		cancel()
		d.a.stop()
		d.b.stop()
	}()
	return d.run()
}

// openTables returns the pages that are not in both backups: their rows are the same, so they do not differ.
func openTables(from, to Root, key *format.Key) (a, b []format.PageRef, err error) {
	if a, err = openTable(from, key); err != nil {
		return nil, nil, err
	}
	if b, err = openTable(to, key); err != nil {
		return nil, nil, err
	}
	pages := map[format.Frame]bool{}
	for i := range a {
		pages[a[i].Frame] = true
	}
	shared := map[format.Frame]bool{}
	for i := range b {
		if pages[b[i].Frame] {
			shared[b[i].Frame] = true
		}
	}
	isShared := func(r format.PageRef) bool { return shared[r.Frame] }
	return slices.DeleteFunc(a, isShared), slices.DeleteFunc(b, isShared), nil
}

// rowStream hands out the rows of pages one after the other, while the next pages are read.
type rowStream struct {
	pages   chan *format.Page
	failed  chan error
	current *format.Page
	dir     int // in the page
	entry   int // in the directory, -1 for the directory itself
	err     error
}

// aheadPages is how many pages wait to be compared.
const aheadPages = 64

func newRowStream(ctx context.Context, source Source, key *format.Key, refs []format.PageRef) *rowStream {
	s := &rowStream{pages: make(chan *format.Page, aheadPages), failed: make(chan error, 1), entry: -1}
	pr := pageReader{source: source, key: key, refs: refs, gap: rangeGap}
	pr.each = func(p readPage) error {
		select {
		case s.pages <- p.page:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	go func() {
		defer close(s.pages)
		s.failed <- pr.run(ctx) // before the pages are closed
	}()
	return s
}

// stop waits for the end of the reading, after its context was cancelled.
func (s *rowStream) stop() {
	for range s.pages {
		continue // what is still under way is let go
	}
}

// end notes why there are no more pages.
func (s *rowStream) end() {
	select {
	case s.err = <-s.failed:
	default: // was noted before
	}
}

// next returns the next row; ok is false at the end.
func (s *rowStream) next() (d *format.Dir, e *format.Entry, ok bool) {
	for {
		if s.current == nil || s.dir == len(s.current.Dirs) {
			if s.current, ok = <-s.pages; !ok {
				s.end()
				return nil, nil, false
			}
			s.dir, s.entry = 0, -1
		}
		d = &s.current.Dirs[s.dir]
		s.entry++
		switch {
		case s.entry == 0 && !d.Continued:
			return d, nil, true
		case s.entry == 0:
		case s.entry <= len(d.Entries):
			return d, &d.Entries[s.entry-1], true
		default:
			s.dir, s.entry = s.dir+1, -1
		}
	}
}

// differ walks two streams side by side.
type differ struct {
	each func(Change) error
	a, b *rowStream
}

func (d *differ) run() error {
	ad, ae, aok := d.a.next()
	bd, be, bok := d.b.next()
	for aok || bok {
		if err := cmp.Or(d.a.err, d.b.err); err != nil { // or all that is missing would be told as a difference
			return err
		}
		order := 0
		switch {
		case !bok:
			order = -1
		case !aok:
			order = 1
		default:
			order = compareRows(ad, ae, bd, be)
		}
		if err := d.tell(order, ad, ae, bd, be); err != nil {
			return err
		}
		if order <= 0 {
			ad, ae, aok = d.a.next()
		}
		if order >= 0 {
			bd, be, bok = d.b.next()
		}
	}
	return cmp.Or(d.a.err, d.b.err)
}

// compareRows puts a directory before its entries, and those before the next directory.
func compareRows(ad *format.Dir, ae *format.Entry, bd *format.Dir, be *format.Entry) int {
	return cmp.Or(format.ComparePaths(ad.Path, bd.Path), strings.Compare(nameOf(ae), nameOf(be)))
}

func nameOf(e *format.Entry) string {
	if e == nil {
		return ""
	}
	return e.Name
}

func (d *differ) tell(order int, ad *format.Dir, ae *format.Entry, bd *format.Dir, be *format.Entry) error {
	switch {
	case order < 0:
		return d.each(Change{Kind: Removed, Path: rowPath(ad, ae), Dir: ae == nil})
	case order > 0:
		return d.each(Change{Kind: Added, Path: rowPath(bd, be), Dir: be == nil})
	}
	var what []string
	if ae == nil {
		what = changedMeta(&ad.Meta, &bd.Meta)
	} else {
		what = changedEntry(ae, be)
	}
	if len(what) == 0 {
		return nil
	}
	return d.each(Change{Kind: Changed, Path: rowPath(ad, ae), Dir: ae == nil, What: what})
}

func rowPath(d *format.Dir, e *format.Entry) string {
	if e == nil {
		return d.Path
	}
	return join(d.Path, e.Name)
}

func changedEntry(a, b *format.Entry) []string {
	if (a.Flags^b.Flags)&format.FlagUnreadable != 0 {
		return []string{"readability"}
	}
	if a.Flags&format.FlagUnreadable != 0 {
		return nil
	}
	var what []string
	if a.Kind != b.Kind {
		what = append(what, "type")
	} else if a.Size != b.Size || a.Hash != b.Hash {
		what = append(what, "content")
	}
	x, y := extraOf(&a.Meta), extraOf(&b.Meta)
	if x.Target != y.Target {
		what = append(what, "target")
	}
	what = append(what, changedMeta(&a.Meta, &b.Meta)...)
	if x.Group != y.Group {
		what = append(what, "links")
	}
	return what
}

func changedMeta(a, b *format.Meta) []string {
	var what []string
	if a.Mode != b.Mode {
		what = append(what, "mode")
	}
	if a.UID != b.UID || a.GID != b.GID {
		what = append(what, "owner")
	}
	if a.Sec != b.Sec || a.Nsec != b.Nsec {
		what = append(what, "time")
	}
	if a.Partial != b.Partial || !slices.EqualFunc(extraOf(a).Xattrs, extraOf(b).Xattrs, func(x, y format.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	}) {
		what = append(what, "attributes")
	}
	return what
}

// extraOf returns an empty one for what has none.
func extraOf(m *format.Meta) *format.Extra {
	if m.Extra == nil {
		return &format.Extra{}
	}
	return m.Extra
}

// String returns the change as one line.
func (c Change) String() string {
	path := display(c.Path)
	if c.Dir {
		path += "/"
	}
	if len(c.What) == 0 {
		return fmt.Sprintf("%s %s", c.Kind, path)
	}
	return fmt.Sprintf("%s %s (%s)", c.Kind, path, strings.Join(c.What, ", "))
}
