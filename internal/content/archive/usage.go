package archive

import (
	"cmp"
	"slices"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// usage notes which bytes of the decoded frames a backup needs. Frames are numbered as those of the places.
type usage struct{ frames []frameUse }

// frameUse is what is needed of one frame. Content mostly comes in the order in which it was stored, so this is short: one
// extent for a frame of which everything is needed.
type frameUse struct {
	extents []extent
	mixed   bool // they do not ascend, or overlap
}

// extent is a stretch of a decoded frame.
type extent struct{ from, to uint32 }

// entry notes the content of an entry.
func (u *usage) entry(e *format.Entry) {
	if hasContent(e) {
		u.add(e.Frame, e.Off, uint32(e.Size))
		return
	}
	for i := range piecesOf(e) {
		p := &e.Extra.Pieces[i]
		u.add(p.Frame, p.Off, p.Len)
	}
}

func (u *usage) add(frame, off, length uint32) {
	if n := int(frame) + 1; n > len(u.frames) {
		u.frames = append(u.frames, make([]frameUse, n-len(u.frames))...)
	}
	u.frames[frame].add(extent{off, off + length})
}

func (f *frameUse) add(e extent) {
	if len(f.extents) == 0 {
		f.extents = append(f.extents, e)
		return
	}
	last := &f.extents[len(f.extents)-1]
	switch {
	case e.from == last.to:
		last.to = e.to
	case e.from >= last.from && e.to <= last.to: // another file with the same content
	default:
		f.mixed = f.mixed || e.from < last.to
		f.extents = append(f.extents, e)
	}
}

// sorted returns the extents, ascending and disjoint; those that meet are one.
func (f *frameUse) sorted() []extent {
	if !f.mixed {
		return f.extents
	}
	slices.SortFunc(f.extents, func(a, b extent) int { return cmp.Compare(a.from, b.from) })
	out := f.extents[:1]
	for _, e := range f.extents[1:] {
		if last := &out[len(out)-1]; e.from <= last.to {
			last.to = max(last.to, e.to)
		} else {
			out = append(out, e)
		}
	}
	f.extents, f.mixed = out, false
	return out
}

// live is the part of the stored bytes that the bytes needed are of the decoded ones, rounded up.
func (f *frameUse) live(frame *format.Frame) int64 {
	needed := int64(0)
	for _, e := range f.sorted() {
		needed += int64(e.to - e.from)
	}
	if needed == 0 {
		return 0
	}
	raw := int64(frame.Raw)
	return (int64(frame.Stored)*needed + raw - 1) / raw
}

// live sums up the bytes that are needed of each pack. frames are those of the places.
func (u *usage) live(frames []format.Frame) map[format.PackID]int64 {
	live := map[format.PackID]int64{}
	for n := range u.frames {
		if needed := u.frames[n].live(&frames[n]); needed > 0 {
			live[frames[n].Pack] += needed
		}
	}
	return live
}
