package archive

import (
	"fmt"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

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
		return entryIn(&format.Dir{Entries: s.entries}, name) != nil
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
