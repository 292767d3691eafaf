package format

import (
	"cmp"
	"fmt"
	"strings"
)

// Limits of pages. Nothing beyond them is written, and a reader refuses it.
const (
	MaxPageRows  = 1024     // directories and entries
	MaxPageRaw   = 32 << 20 // bytes of an encoded page before compression
	MaxPagePaths = 1 << 20  // bytes of the paths in memory; one that extends the path before it shares its memory
	MaxName      = 255      // bytes
	MaxPath      = 256 << 10
	MaxTarget    = 4095      // bytes of a symbolic link
	MaxPieces    = 1 << 17   // pieces in a page, and so of a file
	MaxXattrName = 255       // bytes
	MaxXattr     = 64 << 10  // bytes of a value
	MaxXattrs    = 1 << 20   // bytes of all names and values of a file
	MaxXattrRows = 1 << 16   // extended attributes in a page, and so of a file
	maxMode      = 0o7777    // permission bits
	modePartial  = 0o10000   // beside them in a class: not all extended attributes could be read
	maxNsec      = 1e9 - 1   // nanoseconds
	maxStretch   = BlockSize // bytes of a piece
)

// The first byte of a class: what columns a row has.
const (
	tagKind       = 0x07 // a Kind, or 0 for a directory
	tagContinued  = 0x08 // of directories
	tagUnreadable = 0x08 // of entries
	tagChanged    = 0x10
	tagXattrs     = 0x20
	tagGroup      = 0x40
	tagPieces     = 0x80
)

// class is what many rows have in common.
type class struct {
	uid, gid uint32
	mode     uint16
	tag      byte
}

// Columns of a page, in their order: texts, numbers, hashes.
const (
	colPaths       = iota // per directory: the end of its path, and NUL
	colNames              // per entry: the end of its name, and NUL
	colShared             // per entry: how many bytes its name shares with the name before
	colTargets            // per symbolic link
	colXattrs             // sets of extended attributes
	colDirs               // per directory: bytes shared with the path before, number of entries, class
	colClasses            // kind, flags, mode and owner
	colEntries            // per entry: class
	colSeconds            // per row: mtime
	colNanoseconds        //
	colSizes              // per readable file
	colPlaces             // per file of one piece: frame and offset
	colPieces             // per file of pieces
	colSets               // per row with xattrs: which set
	colGroups             // per hard link
	colFrames             // where the frames lie
	colPacks              // ids of the packs, with their key generations
	colFrameHashes        // per frame
	colHashes             // per file with content: its hash, then those of its pieces
	pageColumns

	firstNumber = colDirs // where a writer ends a block of zstd: one alphabet each compresses better
	firstHash   = colFrameHashes
)

// Counts at the head of a page, in their order.
const (
	numPacks = iota
	numFrames
	numClasses
	numSets
	numDirs
	numEntries
	pageCounts
)

// Rows is the number of directories (continued ones, too) and entries.
func (p *Page) Rows() int {
	n := len(p.Dirs)
	for i := range p.Dirs {
		n += len(p.Dirs[i].Entries)
	}
	return n
}

// Ref is the page's row in the page table, if it is stored in that frame.
func (p *Page) Ref(f Frame) PageRef {
	first := &p.Dirs[0]
	ref := PageRef{Frame: f, First: first.Path, Entries: uint32(p.Rows())}
	if first.Continued && len(first.Entries) > 0 {
		ref.Name = first.Entries[0].Name
	}
	return ref
}

// Follows checks that a page may stand after another: in order, no directory without its parent, no entry twice. For the
// first page prev is nil: it begins with the root.
func (p *Page) Follows(prev *Page) error {
	first := &p.Dirs[0]
	if prev == nil {
		if first.Path != "" || first.Continued {
			return damaged("first page", "it begins with %.100q instead of the root", first.Path)
		}
		return nil
	}
	last := &prev.Dirs[len(prev.Dirs)-1]
	if !first.Continued {
		if err := follows(last.Path, first.Path); err != nil {
			return damaged("page", "%v", err)
		}
		return nil
	}
	if first.Path != last.Path || len(last.Entries) > 0 && last.Entries[len(last.Entries)-1].Name >= first.Entries[0].Name {
		return damaged("page", "it does not continue %.100q where the page before it ends", last.Path)
	}
	return nil
}

// ComparePaths orders directories as a tree does: component by component.
func ComparePaths(a, b string) int {
	n := shared(a, b)
	if n == len(a) || n == len(b) {
		return cmp.Compare(len(a), len(b))
	}
	return cmp.Compare(rank(a[n]), rank(b[n]))
}

// rank sorts the end of a component before everything else in it.
func rank(c byte) int {
	if c == '/' {
		return -1
	}
	return int(c)
}

// follows checks that a directory comes right after another, whose parents are known to have come before.
func follows(prev, next string) error {
	slash := strings.LastIndexByte(next, '/')
	name := next[slash+1:]
	rest, inside := beneath(prev, next[:max(slash, 0)])
	sibling, _, _ := strings.Cut(rest, "/")
	if !inside || slash == 0 || sibling >= name {
		return fmt.Errorf("directory %.100q cannot come after %.100q", next, prev)
	}
	if len(next) > MaxPath || !validName(name) {
		return fmt.Errorf("directory %.100q has no valid name", next)
	}
	return nil
}

// beneath returns the path as it is called from one of its parents, or from itself.
func beneath(path, parent string) (string, bool) {
	if parent == "" || path == parent {
		return path[len(parent):], true
	}
	rest, ok := strings.CutPrefix(path, parent)
	if !ok || rest[0] != '/' {
		return "", false
	}
	return rest[1:], true
}

func validName(name string) bool {
	if len(name) == 0 || len(name) > MaxName {
		return false
	}
	for i := range len(name) {
		if name[i] == 0 || name[i] == '/' {
			return false
		}
	}
	return name[0] != '.' || name != "." && name != ".."
}

func validPath(path string) bool {
	if len(path) > MaxPath {
		return false
	}
	for path != "" {
		name, rest, more := strings.Cut(path, "/")
		if !validName(name) || more && rest == "" {
			return false
		}
		path = rest
	}
	return true
}

// check holds a page against every rule, before it is written and after it was read.
func (p *Page) check() error {
	if n := p.Rows(); len(p.Dirs) == 0 || n > MaxPageRows {
		return fmt.Errorf("it has %d directories and %d rows", len(p.Dirs), n)
	}
	if !validPath(p.Dirs[0].Path) {
		return fmt.Errorf("directory %.100q has no valid path", p.Dirs[0].Path)
	}
	for i := range p.Dirs {
		d := &p.Dirs[i]
		if i > 0 {
			if err := follows(p.Dirs[i-1].Path, d.Path); err != nil {
				return err
			}
		}
		if err := d.check(i == 0); err != nil {
			return err
		}
		if err := p.checkEntries(d); err != nil {
			return err
		}
	}
	return p.checkSums()
}

func (p *Page) checkEntries(d *Dir) error {
	prev := ""
	for i := range d.Entries {
		e := &d.Entries[i]
		if e.Name <= prev || !validName(e.Name) {
			return fmt.Errorf("entry %.100q cannot come after %.100q in directory %.100q", e.Name, prev, d.Path)
		}
		prev = e.Name
		if fault := p.entryFault(e); fault != "" {
			return fmt.Errorf("entry %.100q in directory %.100q: %s", e.Name, d.Path, fault)
		}
	}
	return nil
}

// checkSums limits what rows have together.
func (p *Page) checkSums() error {
	var sum weight
	prev := ""
	for i := range p.Dirs {
		d := &p.Dirs[i]
		sum.paths += pathCost(prev, d.Path)
		sum.add(d.Extra)
		prev = d.Path
		for j := range d.Entries {
			sum.add(d.Entries[j].Extra)
		}
	}
	if sum.exceeds() {
		return fmt.Errorf("it has %d bytes of paths, %d pieces and %d extended attributes", sum.paths, sum.pieces, sum.xattrs)
	}
	return nil
}

// weight is what the rows of a page have together.
type weight struct{ paths, pieces, xattrs int }

func (w *weight) add(x *Extra) {
	if x != nil {
		w.pieces += len(x.Pieces)
		w.xattrs += len(x.Xattrs)
	}
}

func (w *weight) exceeds() bool {
	return w.paths > MaxPagePaths || w.pieces > MaxPieces || w.xattrs > MaxXattrRows
}

// pathCost is the memory that a path takes after another.
func pathCost(prev, path string) int {
	if strings.HasPrefix(path, prev) {
		return len(path) - len(prev)
	}
	return len(path)
}

func (d *Dir) check(first bool) error {
	x := d.Extra
	if d.Continued && (!first || d.Meta != Meta{} || len(d.Entries) == 0) {
		return fmt.Errorf("directory %.100q is not well continued", d.Path)
	}
	if x != nil && (x.Target != "" || x.Group != 0 || x.Pieces != nil) {
		return fmt.Errorf("directory %.100q has attributes of an entry", d.Path)
	}
	if fault := d.fault(); fault != "" {
		return fmt.Errorf("directory %.100q: %s", d.Path, fault)
	}
	return nil
}

func (m *Meta) fault() string {
	if m.Mode > maxMode || m.Nsec > maxNsec {
		return "its mode or time is out of range"
	}
	if m.Extra == nil || len(m.Extra.Xattrs) == 0 {
		return ""
	}
	prev, total := "", 0
	for _, a := range m.Extra.Xattrs {
		if a.Name <= prev || len(a.Name) > MaxXattrName || strings.IndexByte(a.Name, 0) >= 0 || len(a.Value) > MaxXattr {
			return fmt.Sprintf("its extended attribute %.100q cannot be", a.Name)
		}
		prev = a.Name
		total += len(a.Name) + len(a.Value)
	}
	if total > MaxXattrs {
		return "its extended attributes are too large"
	}
	return ""
}

// entryFault says what is wrong with an entry.
func (p *Page) entryFault(e *Entry) string {
	if e.Kind < KindFile || e.Kind > KindWhiteout || e.Flags&^(FlagUnreadable|FlagChanged) != 0 {
		return "its kind or flags are unknown"
	}
	if fault := e.fault(); fault != "" {
		return fault
	}
	readable := e.Flags&FlagUnreadable == 0
	if fault := e.targetFault(readable && e.Kind == KindSymlink); fault != "" {
		return fault
	}
	if readable && e.Kind == KindFile && e.Size != 0 {
		return p.contentFault(e)
	}
	if e.Size != 0 || e.Hash != (Hash{}) || e.Frame != 0 || e.Off != 0 || e.pieces() != nil {
		return "it has content although it cannot"
	}
	return ""
}

// targetFault says what is wrong with the target of an entry that must have one, or must not.
func (e *Entry) targetFault(want bool) string {
	target := ""
	if e.Extra != nil {
		target = e.Extra.Target
	}
	if want != (target != "") || len(target) > MaxTarget || strings.IndexByte(target, 0) >= 0 {
		return "its target cannot be"
	}
	return ""
}

// pieces are nil for a file that is one piece.
func (e *Entry) pieces() []Piece {
	if e.Extra == nil {
		return nil
	}
	return e.Extra.Pieces
}

// contentFault says what is wrong with the content of a file that has some.
func (p *Page) contentFault(e *Entry) string {
	pieces := e.pieces()
	if pieces == nil {
		if e.Size < 0 || e.Size > BlockSize || !p.holds(e.Frame, e.Off, uint32(e.Size)) {
			return "its content is not in its frame"
		}
		return ""
	}
	if e.Size < 0 || e.Frame != 0 || e.Off != 0 {
		return "its size or place cannot be"
	}
	end := int64(0)
	for i := range pieces {
		c := &pieces[i]
		if c.At < end || c.Len == 0 || c.Len > maxStretch || c.At > e.Size-int64(c.Len) || !p.holds(c.Frame, c.Off, c.Len) {
			return fmt.Sprintf("its piece at %d is out of place", c.At)
		}
		end = c.At + int64(c.Len)
	}
	return ""
}

func (p *Page) holds(frame, off, length uint32) bool {
	return uint64(frame) < uint64(len(p.Frames)) && uint64(off)+uint64(length) <= uint64(p.Frames[frame].Raw)
}
