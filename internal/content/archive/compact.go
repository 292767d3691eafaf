package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"runtime"
	"slices"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

const (
	// smallPack is the size in bytes below which a pack counts as small, and manySmall how many of them a backup may need.
	smallPack = 8 << 20
	manySmall = 64
	// minLive is the part of the bytes of its packs that a backup needs at least, in percent.
	minLive = 60
	// fewDead is how many bytes may be dead whatever part of all that is: it costs less than moving the rest.
	fewDead = 16 << 20
	// maxRewritten is the part of all bytes that one run rewrites at most, in percent. It is never less than a pack.
	maxRewritten = 10
)

// compaction moves what is needed of some packs into new ones, so that a backup needs few packs, and little of them is
// dead. The old packs stay as they are: they are collected when no backup needs them any more.
type compaction struct {
	victims map[format.PackID]bool
	frames  []format.Frame // those of the places, as they will be
	moved   []uint32       // numbers of those that lie in victims
}

// planCompaction chooses the packs, nil if there is no need. The new ones of this run do not count.
func (c *creation) planCompaction(a *assembler, outs []*pageOut) *compaction {
	if c.parent == nil || c.options.Source == nil {
		return nil
	}
	live := map[format.PackID]int64{}
	for n, used := range a.used {
		if f := &c.places.frames.list[n]; used {
			live[f.Pack] += int64(f.Stored)
		}
	}
	for _, out := range outs {
		if out.reuse >= 0 {
			f := &c.parent.refs[out.reuse].Frame
			live[f.Pack] += int64(f.Stored)
		}
	}
	victims := chooseVictims(c.parent.root.Packs, live)
	if len(victims) == 0 {
		return nil
	}
	k := &compaction{victims: victims, frames: slices.Clone(c.places.frames.list)}
	for n, used := range a.used {
		if used && victims[k.frames[n].Pack] {
			k.moved = append(k.moved, uint32(n))
		}
	}
	return k
}

// chooseVictims takes the small packs if there are many, and those with the least that is needed if that is little in all.
func chooseVictims(packs []Pack, live map[format.PackID]int64) map[format.PackID]bool {
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
	victims, budget := map[format.PackID]bool{}, total*maxRewritten/100
	choose := func(list []Pack) {
		for _, p := range list {
			if !victims[p.ID] && (p.Live <= budget || len(victims) == 0) {
				victims[p.ID] = true
				budget -= p.Live
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

// move copies the frames. It is false if that was not possible: then everything stays where it is, and the backup is as
// good as the one before.
func (k *compaction) move(ctx context.Context, c *creation) (bool, error) {
	list := c.places.frames.list
	slices.SortFunc(k.moved, func(a, b uint32) int {
		x, y := &list[a], &list[b]
		return cmp.Or(slices.Compare(x.Pack[:], y.Pack[:]), cmp.Compare(x.Offset, y.Offset))
	})
	frames := make([]format.Frame, len(k.moved))
	for i, n := range k.moved {
		frames[i] = list[n]
	}
	var mu sync.Mutex
	workers := make([]mover, min(runtime.GOMAXPROCS(0), max(len(frames), 1)))
	for i := range workers {
		if err := workers[i].start(c); err != nil {
			return false, err
		}
		defer workers[i].dec.Close()
	}
	reader := frameReader{source: c.options.Source, frames: frames, gap: rangeGap}
	err := reader.run(ctx, len(workers), func(ctx context.Context, w, i int, stored []byte, err error) error {
		var f format.Frame
		if err == nil {
			f, err = workers[w].move(ctx, frames[i], stored)
		}
		mu.Lock()
		defer mu.Unlock()
		k.frames[k.moved[i]] = f
		return err
	})
	faults.Point("archive.create.moved")
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil, nil
}

// mover is a worker that copies frames.
type mover struct {
	c    *creation
	dec  *format.Decoder
	enc  *format.Encoder
	raw  []byte
	zstd []byte
}

func (m *mover) start(c *creation) (err error) {
	m.c = c
	if m.dec, err = format.NewDecoder(); err != nil {
		return err
	}
	m.enc, err = format.NewEncoder()
	return err
}

// move stores a frame again. What is sealed has to be opened, because the place is part of the seal.
func (m *mover) move(ctx context.Context, f format.Frame, stored []byte) (format.Frame, error) {
	z := stored
	if f.Gen != 0 {
		var err error
		if m.raw, err = m.dec.OpenFrame(m.raw, m.c.options.Key, f, format.FrameData, stored); err != nil {
			return f, err
		}
		m.zstd = m.enc.Compress(m.zstd[:0], m.raw)
		z = m.zstd
	} else if format.Hash(sha256.Sum256(stored)) != f.Hash {
		return f, damagedf("frame %d of pack %v: the checksum differs", f.Index, f.Pack)
	}
	made, _, err := m.c.packer.put(ctx, format.FrameData, int(f.Raw), z, false)
	return made, err
}
