package archive

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// maxFrame bounds the memory that one frame takes, stored or decoded.
const maxFrame = 64<<20 + 1<<20

// plan is a manifest in memory, laid out so that its rows can be done in any order. No path is kept, only names and parents:
// memory does not grow with the depth of a tree.
type plan struct {
	dirs      []planDir // in tree order
	stretches []stretch // the entries of all directories, in tree order
	entries   uint32    // how many there are
	frames    []format.Frame
	packs     map[format.PackID]int64

	refs     []ref    // what is in the frames
	refStart []uint32 // of each frame, and the end

	large  []uint32 // entries whose content is pieces, perhaps none
	others []uint32 // entries without content
	links  []link   // further names
	groups map[uint64]uint32
}

// planDir is a directory of a plan.
type planDir struct {
	format.Meta
	name    string // the last component
	parent  int32  // -1 of the root
	end     int32  // the first directory after it that is not below it
	stretch int32  // the first of its stretches, or of those of the next directory
	before  uint32 // entries of the directories before it
	lost    bool   // its attributes are not known
}

// stretch are entries of one directory, where the page has them: entries are the most of a plan, and are not copied. Their
// frames are those of the plan.
type stretch struct {
	entries []format.Entry
	first   uint32 // number of the first entry
	dir     int32
}

// ref is content of one entry in a frame.
type ref struct {
	entry uint32
	piece uint32 // wholeFile if it is all of the content
}

const wholeFile = 1<<32 - 1

// link is a name of a file that has an earlier one.
type link struct {
	entry, first uint32
	leads        bool // it is the first of the further names
}

// dirPath returns the path of a directory, "" of the root.
func (p *plan) dirPath(dir int32) string {
	var parts []string
	for d := dir; d > 0; d = p.dirs[d].parent {
		parts = append(parts, p.dirs[d].name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// path returns the path of an entry.
func (p *plan) path(entry uint32) string {
	e, dir := p.entry(entry)
	return join(p.dirPath(dir), e.Name)
}

// entry finds an entry and its directory.
func (p *plan) entry(number uint32) (*format.Entry, int32) {
	s := &p.stretches[p.stretchOf(number)]
	return &s.entries[number-s.first], s.dir
}

func (p *plan) stretchOf(entry uint32) int {
	return sort.Search(len(p.stretches), func(i int) bool { return p.stretches[i].first > entry }) - 1
}

// stretchesOf returns the entries of a directory.
func (p *plan) stretchesOf(dir int32) []stretch {
	end := len(p.stretches)
	if int(dir)+1 < len(p.dirs) {
		end = int(p.dirs[dir+1].stretch)
	}
	return p.stretches[p.dirs[dir].stretch:end]
}

// all calls do for every entry in tree order.
func (p *plan) all(do func(number uint32, e *format.Entry) error) error {
	for i := range p.stretches {
		s := &p.stretches[i]
		for j := range s.entries {
			if err := do(s.first+uint32(j), &s.entries[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// files calls do for every entry in tree order, and tells it whether the entry is a further name of an earlier one.
func (p *plan) files(do func(number uint32, e *format.Entry, further bool)) {
	next := 0
	_ = p.all(func(i uint32, e *format.Entry) error {
		further := next < len(p.links) && p.links[next].entry == i
		if further {
			next++
		}
		do(i, e, further)
		return nil
	})
}

// digest computes the digest of the tree.
func (p *plan) digest(ctx context.Context) (format.Hash, error) {
	digest := format.NewDigester()
	var path []byte
	ends := make([]int, len(p.dirs)) // of the paths
	for i := range p.dirs {
		d := &p.dirs[i]
		if d.parent >= 0 {
			path = path[:ends[d.parent]]
			if len(path) > 0 {
				path = append(path, '/')
			}
			path = append(path, d.name...)
		}
		ends[i] = len(path)
		digest.Dir(&format.Dir{Path: string(path), Meta: d.Meta})
		for _, s := range p.stretchesOf(int32(i)) {
			for j := range s.entries {
				digest.Entry(&s.entries[j])
			}
		}
		if ctx.Err() != nil {
			return format.Hash{}, context.Cause(ctx)
		}
	}
	return digest.Sum(), nil
}

// planner builds a plan from pages in their order.
type planner struct {
	plan   *plan
	frames frameSet
	want   *selection // nil: everything
	mend   bool       // directories that are missing are made up
	path   []byte     // of the last directory
	stack  []int32    // the last directory and what it is in, the root first
	ends   []int      // lengths of their paths
	mended func(path string)
}

func newPlanner(root Root, want *selection) *planner {
	p := &plan{packs: map[format.PackID]int64{}, groups: map[uint64]uint32{}}
	for i := range root.Packs {
		p.packs[root.Packs[i].ID] = root.Packs[i].Size
	}
	return &planner{plan: p, want: want}
}

func damagedf(message string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(message, args...), format.ErrDamaged)
}

// add takes over what is wanted of a page.
func (b *planner) add(page *format.Page) error {
	frames, err := b.addFrames(page.Frames)
	if err != nil {
		return err
	}
	for i := range page.Dirs {
		if err := b.addDir(&page.Dirs[i], frames); err != nil {
			return err
		}
	}
	return nil
}

// addFrames returns the numbers that the frames of a page have in the plan.
func (b *planner) addFrames(frames []format.Frame) ([]uint32, error) {
	numbers := make([]uint32, len(frames))
	for i := range frames {
		f := &frames[i]
		if err := b.plan.checkFrame(f); err != nil {
			return nil, err
		}
		numbers[i] = b.frames.add(f)
		if b.frames.list[numbers[i]] != *f {
			return nil, damagedf("frame %d of pack %v is described in two ways", f.Index, f.Pack)
		}
	}
	return numbers, nil
}

// checkFrame refuses a frame that cannot be in its pack before anything is read or allocated.
func (p *plan) checkFrame(f *format.Frame) error {
	size, known := p.packs[f.Pack]
	switch {
	case !known:
		return damagedf("pack %v is not among the packs of the backup", f.Pack)
	case int64(f.Offset)+int64(f.Stored) > size:
		return damagedf("frame %d of pack %v does not fit into its %d bytes", f.Index, f.Pack, size)
	case f.Stored > maxFrame || f.Raw > maxFrame:
		return damagedf("frame %d of pack %v is too large", f.Index, f.Pack)
	}
	return nil
}

func (b *planner) addDir(d *format.Dir, frames []uint32) error {
	keep, all := b.want.dir(d.Path)
	if !keep {
		return nil
	}
	if err := b.enter(d); err != nil {
		return err
	}
	entries := d.Entries
	if !all {
		entries = b.selected(d)
	} else {
		b.want.see(d)
	}
	return b.addEntries(d.Path, entries, frames)
}

func (b *planner) selected(d *format.Dir) []format.Entry {
	var kept []format.Entry
	for i := range d.Entries {
		if b.want.entry(d.Path, d.Entries[i].Name) {
			kept = append(kept, d.Entries[i])
		}
	}
	return kept
}

// addEntries adds entries of the last directory, and takes them over from the page.
func (b *planner) addEntries(dir string, entries []format.Entry, frames []uint32) error {
	if len(entries) == 0 {
		return nil
	}
	p := b.plan
	last := int32(len(p.dirs) - 1)
	if before := p.stretchesOf(last); len(before) > 0 {
		if s := &before[len(before)-1]; s.entries[len(s.entries)-1].Name >= entries[0].Name {
			return damagedf("%s is not in order", display(join(dir, entries[0].Name)))
		}
	}
	for i := range entries {
		renumber(&entries[i], frames)
	}
	p.stretches = append(p.stretches, stretch{entries: entries, first: p.entries, dir: last})
	p.entries += uint32(len(entries))
	return nil
}

// enter makes a directory the last one.
func (b *planner) enter(d *format.Dir) error {
	if len(b.stack) > 0 && string(b.path) == d.Path {
		if d.Continued {
			return nil
		}
		return damagedf("directory %s is there twice", display(d.Path))
	}
	if d.Continued && !b.mend {
		return damagedf("directory %s goes on without having begun", display(d.Path))
	}
	if len(b.stack) == 0 {
		return b.enterRoot(d)
	}
	cut := max(strings.LastIndexByte(d.Path, '/'), 0)
	before := b.leave(cut)
	if b.ends[len(b.ends)-1] != cut || string(b.path[:cut]) != d.Path[:cut] {
		if !b.mend {
			return damagedf("directory %s has no parent", display(d.Path))
		}
		return b.mendParents(d)
	}
	name := d.Path[cut:]
	name = strings.TrimPrefix(name, "/")
	if name <= before || name == "" {
		return damagedf("directory %s is not in order", display(d.Path))
	}
	if b.hasEntry(name) {
		return damagedf("%s is a directory and something else", display(d.Path))
	}
	b.push(d.Path, name, d.Meta, d.Continued)
	if d.Continued {
		b.mended(d.Path)
	}
	return nil
}

func (b *planner) enterRoot(d *format.Dir) error {
	if d.Path != "" && !b.mend {
		return damagedf("the root directory is missing")
	}
	lost := d.Path != "" || d.Continued
	if !lost {
		b.push("", "", d.Meta, false)
		return nil
	}
	b.push("", "", format.Meta{}, true)
	b.mended("")
	return b.enter(d)
}

// leave goes up to the directory whose path has at most that length, and returns the name of the one that it came from.
func (b *planner) leave(length int) (before string) {
	for len(b.stack) > 1 && b.ends[len(b.ends)-1] > length {
		last := b.stack[len(b.stack)-1]
		before = b.plan.dirs[last].name
		b.plan.dirs[last].end = int32(len(b.plan.dirs))
		b.stack, b.ends = b.stack[:len(b.stack)-1], b.ends[:len(b.ends)-1]
	}
	// The root has the length of its children's parents; a directory at the top is left as well.
	return before
}

// mendParents makes up the directories that a directory is in.
func (b *planner) mendParents(d *format.Dir) error {
	common := b.commonLength(d.Path)
	b.leave(common)
	from := b.ends[len(b.ends)-1]
	rest := strings.TrimPrefix(d.Path[from:], "/")
	parent, _, found := strings.Cut(rest, "/")
	if !found {
		return damagedf("directory %s is not in order", display(d.Path))
	}
	path := strings.TrimPrefix(d.Path[:from]+"/"+parent, "/")
	b.push(path, parent, format.Meta{}, true)
	b.mended(path)
	return b.enter(d)
}

// commonLength is the length of the path of the innermost directory on the stack that path is in.
func (b *planner) commonLength(path string) int {
	for i := len(b.ends) - 1; i > 0; i-- {
		if n := b.ends[i]; n < len(path) && path[n] == '/' && path[:n] == string(b.path[:n]) {
			return n
		}
	}
	return 0
}

func (b *planner) push(path, name string, m format.Meta, lost bool) {
	p := b.plan
	parent := int32(-1)
	if len(b.stack) > 0 {
		parent = b.stack[len(b.stack)-1]
	}
	b.stack, b.ends = append(b.stack, int32(len(p.dirs))), append(b.ends, len(path))
	b.path = append(b.path[:0], path...)
	d := planDir{Meta: m, name: strings.Clone(name), parent: parent, stretch: int32(len(p.stretches)), before: p.entries, lost: lost}
	p.dirs = append(p.dirs, d)
}

// hasEntry reports whether the innermost directory has an entry of that name.
func (b *planner) hasEntry(name string) bool {
	for _, s := range b.plan.stretchesOf(b.stack[len(b.stack)-1]) {
		if s.entries[len(s.entries)-1].Name < name {
			continue
		}
		_, found := slices.BinarySearchFunc(s.entries, name, func(e format.Entry, name string) int {
			return cmp.Compare(e.Name, name)
		})
		return found
	}
	return false
}

// finish sorts out how the entries are made. What the plan needs no more is let go.
func (b *planner) finish() (*plan, error) {
	p := b.plan
	if len(p.dirs) == 0 && !b.mend {
		return nil, damagedf("the root directory is missing")
	}
	if len(p.dirs) == 0 {
		b.push("", "", format.Meta{}, true)
		b.mended("")
	}
	for _, d := range b.stack {
		p.dirs[d].end = int32(len(p.dirs))
	}
	p.frames, p.packs = b.frames.list, nil
	s := sorter{plan: p, linked: map[uint32]bool{}, whole: b.want == nil && !b.mend, counts: make([]uint32, len(p.frames)+1)}
	if err := p.all(s.sort); err != nil {
		return nil, err
	}
	s.fill()
	return p, nil
}

// sorter tells entries with content from others and from further names of one inode, and collects what is in each frame.
type sorter struct {
	plan   *plan
	whole  bool // every name is in the plan
	linked map[uint32]bool
	counts []uint32
}

func (s *sorter) sort(i uint32, e *format.Entry) error {
	if e.Flags&format.FlagUnreadable != 0 {
		return nil
	}
	further, err := s.further(e, i)
	if err != nil {
		return fmt.Errorf("%s: %w", display(s.plan.path(i)), err)
	}
	if !further {
		s.count(e, i)
	}
	return nil
}

// further reports whether an entry is a further name of what the plan has already.
func (s *sorter) further(e *format.Entry, i uint32) (bool, error) {
	if e.Extra == nil || e.Extra.Group == 0 {
		return false, nil
	}
	p := s.plan
	first, known := p.groups[e.Extra.Group]
	if known {
		if other, _ := p.entry(first); !sameFile(other, e) {
			return false, damagedf("it should be the same file as %s, but is described otherwise", display(p.path(first)))
		}
		p.links = append(p.links, link{entry: i, first: first, leads: !s.linked[first]})
		s.linked[first] = true
		return true, nil
	}
	if s.whole && format.GroupOf(p.path(i)) != e.Extra.Group {
		return false, damagedf("it is a hard link, but the first name of the file is missing")
	}
	p.groups[e.Extra.Group] = i
	return false, nil
}

// sameFile compares everything but the names and the places of the content.
func sameFile(a, b *format.Entry) bool {
	x, y := a.Extra, b.Extra
	return a.Kind == b.Kind && a.Flags == b.Flags && a.Size == b.Size && a.Hash == b.Hash && a.Mode == b.Mode && a.Sec == b.Sec &&
		a.Nsec == b.Nsec && a.UID == b.UID && a.GID == b.GID && x.Target == y.Target && slices.EqualFunc(x.Xattrs, y.Xattrs, sameXattr)
}

func (s *sorter) count(e *format.Entry, i uint32) {
	p := s.plan
	switch {
	case e.Kind != format.KindFile:
		p.others = append(p.others, i)
	case piecesOf(e) != nil:
		p.large = append(p.large, i)
		for _, piece := range e.Extra.Pieces {
			s.counts[piece.Frame+1]++
		}
	case e.Size == 0:
		p.others = append(p.others, i)
	default:
		s.counts[e.Frame+1]++
	}
}

// fill lists the content of the frames, each in tree order.
func (s *sorter) fill() {
	p := s.plan
	for i := 1; i < len(s.counts); i++ {
		s.counts[i] += s.counts[i-1]
	}
	p.refStart = slices.Clone(s.counts)
	p.refs = make([]ref, s.counts[len(p.frames)])
	p.files(func(i uint32, e *format.Entry, further bool) {
		switch {
		case further:
		case hasContent(e):
			s.put(e.Frame, ref{i, wholeFile})
		default:
			for k, piece := range piecesOf(e) {
				s.put(piece.Frame, ref{i, uint32(k)})
			}
		}
	})
}

func (s *sorter) put(frame uint32, r ref) {
	s.plan.refs[s.counts[frame]] = r
	s.counts[frame]++
}

// piecesOf returns the pieces of a file that has some.
func piecesOf(e *format.Entry) []format.Piece {
	if e.Extra == nil {
		return nil
	}
	return e.Extra.Pieces
}

// fetchOrder returns the frames with content, in the order of their places, packs in the order of their first use.
func (p *plan) fetchOrder() (frames []format.Frame, numbers []uint32) {
	rank := map[format.PackID]int{}
	for n := range p.frames {
		if p.refStart[n] == p.refStart[n+1] {
			continue
		}
		if _, known := rank[p.frames[n].Pack]; !known {
			rank[p.frames[n].Pack] = len(rank)
		}
		numbers = append(numbers, uint32(n))
	}
	slices.SortFunc(numbers, func(a, b uint32) int {
		x, y := &p.frames[a], &p.frames[b]
		return cmp.Or(cmp.Compare(rank[x.Pack], rank[y.Pack]), cmp.Compare(x.Offset, y.Offset))
	})
	frames = make([]format.Frame, len(numbers))
	for i, n := range numbers {
		frames[i] = p.frames[n]
	}
	return frames, numbers
}
