package archive

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// assembler makes the rows of the manifest out of what was found, and of the parent where nothing has changed.
type assembler struct {
	tree   *scanTree
	links  *hardLinks
	places *places
	extras *extras
	cursor *parentCursor
	press  *press

	compaction *compaction // nil: all content is where it was
	numbers    []uint32    // of the frames of the parent's page at hand
	numbered   int         // that page
	usage      usage       // what the rows need of the frames
	stamps     []stamp
	path       []byte
	paths      pathSlab
	dir        string // path of the directory at hand
	cutter     format.Cutter
	draft      *draft
	start      int // of the entries of the directory at hand, in the draft
	err        error
}

// assemble gives all rows to the press.
func (a *assembler) assemble(ctx context.Context) error {
	a.numbered = -1
	a.stamps = make([]stamp, 0, len(a.tree.order)+a.tree.count)
	a.draft = a.press.blank()
	for _, d := range a.tree.order {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.path = d.pathAfter(a.path)
		if d.parent != nil {
			d.hash = d.parent.hash.Child(d.name)
		}
		a.directory(d)
		if a.cursor.err != nil {
			return a.cursor.err
		}
		if a.err != nil {
			return a.err
		}
	}
	a.press.add(a.draft, a.places.frames.list)
	return nil
}

func (a *assembler) directory(d *dirNode) {
	a.dir = a.paths.add(a.path)
	known, _ := a.cursor.seek(a.path)
	same := a.self(d, known)
	a.draft.count(same, a.cursor)
	if known {
		a.cursor.enter()
	}
	for i := range d.rows {
		if r := &d.rows[i]; !r.has(rowGone) {
			a.row(d, r, known)
		}
	}
	if known {
		a.cursor.leave()
	}
}

// self adds the row of a directory, and reports whether it is the one that the parent has.
func (a *assembler) self(d *dirNode, known bool) (same bool) {
	dir := format.Dir{Path: a.dir, Meta: d.self.meta(a.extras.get(d.self.extra), 0)}
	if known {
		p := a.cursor.directory()
		if !d.self.has(rowTodo) {
			dir.Extra, dir.Partial = p.Extra, p.Partial
		}
		same = sameMeta(&dir.Meta, &p.Meta)
	}
	if a.cutter.Dir(d.hash, &dir) {
		a.turn()
	}
	a.draft.page.Dirs = append(a.draft.page.Dirs, dir)
	a.start = len(a.draft.entries)
	a.stamps = append(a.stamps, d.self.stamp())
	return same
}

// turn begins a new page.
func (a *assembler) turn() {
	a.press.add(a.draft, a.places.frames.list)
	a.draft = a.press.blank()
	a.start = 0
}

// row adds an entry. known says that the cursor stands in the same directory of the parent.
func (a *assembler) row(d *dirNode, r *row, known bool) {
	var e *format.Entry
	if known {
		e = a.seekEntry(d.nameOf(r))
	}
	entry, same := a.entry(d, r, e)
	moved, err := a.compaction.relocate(&entry)
	a.err = cmp.Or(a.err, err)
	if a.cutter.Entry(d.hash, a.dir, &entry) {
		a.turn()
		a.draft.page.Dirs = append(a.draft.page.Dirs, format.Dir{Path: a.dir, Continued: true})
	}
	a.draft.count(same && !moved, a.cursor)
	a.draft.entries = append(a.draft.entries, entry)
	a.draft.page.Dirs[len(a.draft.page.Dirs)-1].Entries = a.draft.entries[a.start:]
	a.stamps = append(a.stamps, r.stamp())
	a.usage.entry(&entry)
	if e != nil {
		a.cursor.step()
	}
}

// seekEntry goes to a name in the directory of the parent.
func (a *assembler) seekEntry(name []byte) *format.Entry {
	e := a.cursor.current()
	for e != nil && e.Name < string(name) {
		a.cursor.step()
		e = a.cursor.current()
	}
	if e == nil || e.Name != string(name) {
		return nil
	}
	a.number()
	return e
}

// number finds the numbers of the frames of the parent's page at hand.
func (a *assembler) number() {
	if a.numbered != a.cursor.number {
		var err error
		a.numbered = a.cursor.number
		a.numbers, err = a.places.knowFrames(a.cursor.page.Frames)
		a.err = cmp.Or(a.err, err)
	}
}

// entry makes an entry, and reports whether it is the one that the parent has. Where the parent has equal content at other
// places, those stay, so that its pages stay, too.
func (a *assembler) entry(d *dirNode, r *row, e *format.Entry) (made format.Entry, same bool) {
	group := a.links.groupOf(d, r, a.path)
	if e != nil && !r.has(rowTodo|rowFollower|rowUnreadable) {
		made, same = a.parents(e), groupIn(e) == group
		if !same {
			made.Extra = withGroup(made.Extra, group)
		}
	} else {
		made = a.made(d, r, group)
		if same = e != nil && sameEntry(&made, e); same {
			made = a.parents(e)
		}
	}
	if n, ok := a.links.leads[r]; ok {
		a.links.groups[n].entry = made
	}
	return made, same
}

// parents returns the parent's entry, with the numbers that its frames have here.
func (a *assembler) parents(e *format.Entry) format.Entry {
	made := *e
	renumber(&made, a.numbers)
	return made
}

// made returns an entry of what was read.
func (a *assembler) made(d *dirNode, r *row, group uint64) format.Entry {
	name := d.nameOf(r)
	//nolint:gosec // The names of a tree are never changed, and copying a million of them takes time.
	e := format.Entry{Name: unsafe.String(&name[0], len(name)), Kind: r.entryKind()}
	switch {
	case r.has(rowUnreadable):
		e.Flags = format.FlagUnreadable
		return e
	case r.has(rowFollower):
		leader := a.links.groups[r.place].entry
		leader.Name = e.Name
		return leader
	}
	x := a.extras.get(r.extra)
	e.Meta, e.Size = r.meta(x, group), r.size
	if r.has(rowChanged) {
		e.Flags = format.FlagChanged
	}
	switch {
	case x != nil && x.Pieces != nil:
		e.Hash = x.hash
	case r.place != 0:
		p := a.places.at(r.place)
		e.Hash, e.Frame, e.Off = p.hash, p.frame, p.off
	}
	return e
}

func (r *row) meta(x *rowExtra, group uint64) format.Meta {
	m := format.Meta{Mode: r.mode &^ unix.S_IFMT, Sec: r.sec, Nsec: r.nsec, UID: r.uid, GID: r.gid}
	if x != nil {
		m.Extra, m.Partial = &x.Extra, x.partial
	}
	if group != 0 {
		m.Extra = withGroup(m.Extra, group)
	}
	return m
}

// withGroup returns a copy, because entries may share what they have.
func withGroup(x *format.Extra, group uint64) *format.Extra {
	var made format.Extra
	if x != nil {
		made = *x
	}
	made.Group = group
	if made.Group == 0 && made.Target == "" && made.Xattrs == nil && made.Pieces == nil {
		return nil
	}
	return &made
}

// stamp returns what the index is to know of a row.
func (r *row) stamp() stamp {
	return stamp{ino: r.ino, sec: r.csec, nsec: r.cnsec, racy: r.has(rowSuspect | rowUnreadable | rowChanged)}
}

func sameMeta(a, b *format.Meta) bool {
	return a.Mode == b.Mode && a.Partial == b.Partial && a.UID == b.UID && a.GID == b.GID && a.Sec == b.Sec && a.Nsec == b.Nsec &&
		slices.EqualFunc(xattrsIn(a.Extra), xattrsIn(b.Extra), sameXattr)
}

// sameEntry compares everything but where the content lies.
func sameEntry(a, b *format.Entry) bool {
	return a.Kind == b.Kind && a.Flags == b.Flags && a.Size == b.Size && a.Hash == b.Hash && sameMeta(&a.Meta, &b.Meta) &&
		groupIn(a) == groupIn(b) && targetIn(a) == targetIn(b)
}

func targetIn(e *format.Entry) string {
	if e.Extra == nil {
		return ""
	}
	return e.Extra.Target
}

// pathSlab keeps paths. One that extends the path before it shares its memory, so that a deep tree takes no more than a wide
// one.
type pathSlab struct {
	slab  *strings.Builder
	start int
	last  string
}

const pathSlabSize = 16 << 10

func (s *pathSlab) add(path []byte) string {
	grown := s.slab != nil && len(path) >= len(s.last) && string(path[:len(s.last)]) == s.last
	need := len(path)
	if grown {
		need -= len(s.last)
	}
	if s.slab == nil || s.slab.Cap()-s.slab.Len() < need {
		s.slab, grown = new(strings.Builder), false
		s.slab.Grow(pathSlabSize + 2*len(path))
	}
	if grown {
		path = path[len(s.last):]
	} else {
		s.start = s.slab.Len()
	}
	s.slab.Write(path)
	s.last = s.slab.String()[s.start:]
	return s.last
}
