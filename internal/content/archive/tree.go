package archive

import (
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// Tree is a manifest in memory, all pages decoded.
//
// Its rows are numbered from 0 in tree order: every directory that is not Continued, followed by its entries, those in
// continued directories included. That is the order of the stamps of an [Index].
type Tree struct {
	Refs   []format.PageRef // the page table
	Frames []format.Frame   // those with content that any row needs, each once; the rows' frames are indexes into it
	Dirs   []format.Dir     // as in the pages: one whose entries fill several pages comes again, Continued
	Rows   int
}

// frameSet numbers frames in the order in which they come.
type frameSet struct {
	list    []format.Frame
	numbers map[framePlace]uint32
}

// framePlace is what tells one frame from another.
type framePlace struct {
	pack  format.PackID
	index uint32
}

// add returns the number of a frame. Whether the one of that number is described in the same way, the caller checks.
func (s *frameSet) add(f *format.Frame) uint32 {
	place := framePlace{f.Pack, f.Index}
	n, ok := s.numbers[place]
	if !ok {
		if s.numbers == nil {
			s.numbers = map[framePlace]uint32{}
		}
		n = s.reserve()
		s.numbers[place] = n
		s.list[n] = *f
	}
	return n
}

// reserve returns the number of a frame that is not known yet.
func (s *frameSet) reserve() uint32 {
	s.list = append(s.list, format.Frame{})
	return uint32(len(s.list) - 1)
}

// hasContent reports whether an entry names a frame itself, not by its pieces.
func hasContent(e *format.Entry) bool {
	return e.Kind == format.KindFile && e.Size > 0 && e.Flags&format.FlagUnreadable == 0 && (e.Extra == nil || e.Extra.Pieces == nil)
}

// renumber replaces the frames of an entry. Entries may share what is in Extra, so it is copied.
func renumber(e *format.Entry, numbers []uint32) {
	if hasContent(e) {
		e.Frame = numbers[e.Frame]
		return
	}
	if e.Extra == nil || len(e.Extra.Pieces) == 0 {
		return
	}
	extra := *e.Extra
	extra.Pieces = make([]format.Piece, len(e.Extra.Pieces))
	for i, p := range e.Extra.Pieces {
		p.Frame = numbers[p.Frame]
		extra.Pieces[i] = p
	}
	e.Extra = &extra
}
