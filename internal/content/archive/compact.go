package archive

import (
	"cmp"
	"fmt"
	"slices"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

const (
	// smallPack is the size in bytes below which a pack counts as small, and manySmall how many of them a backup may need.
	smallPack = 8 << 20
	manySmall = 64
	// minLive is the part of the bytes of its packs that a backup needs at least, in percent.
	minLive = 60
	// fewDead is how many bytes may be dead whatever part of all that is: it costs less than moving the rest.
	fewDead = 16 << 20
	// maxRewritten is the part of all bytes that one run stores again at most, and maxReread the part that it reads for that,
	// in percent. It is never less than a pack.
	maxRewritten = 10
	maxReread    = 25
)

// compaction moves what is needed of some packs into new ones, so that a backup needs few packs, and little of them is
// dead. The old packs stay as they are: they are collected when no backup needs them any more.
type compaction struct {
	victims map[format.PackID]bool
	frames  []uint32                 // numbers of those that lie in victims and are needed, in the order of their places
	extents map[uint32][]movedExtent // what is needed of each, ascending
}

// movedExtent is a stretch of an old frame, and where it begins now.
type movedExtent struct {
	extent
	frame, off uint32
}

// planCompaction chooses the packs, nil if there is no need. The new ones of this run do not count.
func (c *creation) planCompaction(a *assembler, outs []*pageOut) *compaction {
	if c.parent == nil || c.options.Source == nil {
		return nil
	}
	frames := c.places.frames.list
	live, read := a.usage.live(frames), map[format.PackID]int64{}
	for n := range a.usage.frames {
		if f := &frames[n]; len(a.usage.frames[n].extents) > 0 {
			read[f.Pack] += int64(f.Stored)
		}
	}
	for _, out := range outs {
		if out.reuse >= 0 { // pages are kept, so moving them takes no reading
			f := &c.parent.refs[out.reuse].Frame
			live[f.Pack] += int64(f.Stored)
		}
	}
	victims := chooseVictims(c.parent.root.Packs, live, read)
	if len(victims) == 0 {
		return nil
	}
	return newCompaction(victims, &a.usage, frames)
}

func newCompaction(victims map[format.PackID]bool, u *usage, frames []format.Frame) *compaction {
	k := &compaction{victims: victims, extents: map[uint32][]movedExtent{}}
	rank := map[format.PackID]int{}
	for n := range u.frames {
		pack := frames[n].Pack
		extents := u.frames[n].sorted()
		if len(extents) == 0 || !victims[pack] {
			continue
		}
		if _, known := rank[pack]; !known {
			rank[pack] = len(rank)
		}
		moved := make([]movedExtent, len(extents))
		for i := range extents {
			moved[i].extent = extents[i]
		}
		k.frames, k.extents[uint32(n)] = append(k.frames, uint32(n)), moved
	}
	slices.SortFunc(k.frames, func(a, b uint32) int {
		x, y := &frames[a], &frames[b]
		return cmp.Or(cmp.Compare(rank[x.Pack], rank[y.Pack]), cmp.Compare(x.Offset, y.Offset))
	})
	return k
}

// chooseVictims takes the small packs if there are many, and those with the least that is needed if that is little in all.
// live is what is needed of each pack, read what has to be read for moving that.
func chooseVictims(packs []Pack, live, read map[format.PackID]int64) map[format.PackID]bool {
	var needed, small []Pack
	total, alive := int64(0), int64(0)
	for _, p := range packs {
		p.Live = live[p.ID]
		if p.Live == 0 {
			continue
		}
		needed = append(needed, p)
		total, alive = total+p.Size, alive+p.Live
		if p.Size < smallPack {
			small = append(small, p)
		}
	}
	victims := map[format.PackID]bool{}
	rewritten, reread := total*maxRewritten/100, total*maxReread/100
	choose := func(list []Pack) {
		for _, p := range list {
			if !victims[p.ID] && (p.Live <= rewritten && read[p.ID] <= reread || len(victims) == 0) {
				victims[p.ID] = true
				rewritten, reread = rewritten-p.Live, reread-read[p.ID]
			}
		}
	}
	if alive*100 < total*minLive && total-alive > fewDead {
		slices.SortFunc(needed, func(a, b Pack) int { return cmp.Compare(a.Live*b.Size, b.Live*a.Size) })
		choose(slices.DeleteFunc(needed, func(p Pack) bool { return p.Live*100 >= p.Size*minLive }))
	}
	if len(small) > manySmall {
		slices.SortFunc(small, func(a, b Pack) int { return cmp.Compare(a.Live, b.Live) })
		choose(small)
	}
	return victims
}

// relocate gives an entry the places that its content has now, and reports whether they are others.
func (k *compaction) relocate(e *format.Entry) (moved bool, err error) {
	if k == nil {
		return false, nil
	}
	if hasContent(e) {
		return k.place(&e.Frame, &e.Off, uint32(e.Size))
	}
	pieces := piecesOf(e)
	if !slices.ContainsFunc(pieces, func(p format.Piece) bool { return k.extents[p.Frame] != nil }) {
		return false, nil
	}
	extra := *e.Extra // entries may share it
	extra.Pieces = slices.Clone(pieces)
	for i := range extra.Pieces {
		p := &extra.Pieces[i]
		if _, err := k.place(&p.Frame, &p.Off, p.Len); err != nil {
			return false, err
		}
	}
	e.Extra = &extra
	return true, nil
}

// place replaces a place if that has moved.
func (k *compaction) place(frame, off *uint32, length uint32) (bool, error) {
	extents := k.extents[*frame]
	if extents == nil {
		return false, nil
	}
	i, found := slices.BinarySearchFunc(extents, *off, func(x movedExtent, off uint32) int { return cmp.Compare(x.from, off) })
	if !found {
		i--
	}
	if i < 0 || *off+length > extents[i].to { // the tree was the same when the extents were noted
		return false, fmt.Errorf("move content: bytes %d to %d of frame %d are not among what was moved", *off, *off+length, *frame)
	}
	x := &extents[i]
	*frame, *off = x.frame, x.off+*off-x.from
	return true, nil
}
