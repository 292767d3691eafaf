package archive

import (
	"fmt"
	"slices"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

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
	return a.Kind == b.Kind && a.Flags == b.Flags && a.Partial == b.Partial && a.Size == b.Size && a.Hash == b.Hash && a.Mode == b.Mode && a.Sec == b.Sec &&
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
