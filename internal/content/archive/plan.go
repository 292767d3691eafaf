package archive

import (
	"cmp"
	"context"
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
