package format

import "encoding/binary"

// packKey tells packs apart in a list of frames.
type packKey struct {
	id  PackID
	gen uint32
}

// frameWriter writes a list of frames as three columns: packs, places and hashes.
type frameWriter struct {
	packs map[packKey]uint64
	ids   []byte
	rows  []byte
	sums  []byte
	count int
	last  frameState
}

// frameState is what a frame's place is told relative to.
type frameState struct {
	pack         uint64
	index, begin int64 // of the next frame if it follows immediately
}

func (w *frameWriter) reset() {
	if w.packs == nil {
		w.packs = map[packKey]uint64{}
	}
	clear(w.packs)
	w.ids, w.rows, w.sums, w.count, w.last = w.ids[:0], w.rows[:0], w.sums[:0], 0, frameState{}
}

func (w *frameWriter) add(f Frame) {
	key := packKey{f.Pack, f.Gen}
	pack, ok := w.packs[key]
	if !ok {
		pack = uint64(len(w.packs))
		w.packs[key] = pack
		w.ids = binary.AppendUvarint(append(w.ids, f.Pack[:]...), uint64(f.Gen))
	}
	s := w.last.in(pack, f.Gen)
	w.rows = binary.AppendUvarint(w.rows, pack)
	w.rows = appendSigned(w.rows, int64(f.Index)-s.index)
	w.rows = appendSigned(w.rows, int64(f.Offset)-s.begin)
	w.rows = binary.AppendUvarint(w.rows, uint64(f.Stored))
	w.rows = binary.AppendUvarint(w.rows, uint64(f.Raw))
	w.sums = append(w.sums, f.Hash[:]...)
	w.last = f.next(pack)
	w.count++
}

// in is the expectation for a frame of that pack: after the last one, or the first in the pack.
func (s frameState) in(pack uint64, gen uint32) frameState {
	if pack != s.pack || s.begin == 0 {
		s = frameState{pack: pack, begin: headerSize}
		if gen != 0 {
			s.begin += skipSize
		}
	}
	return s
}

func (f Frame) next(pack uint64) frameState {
	s := frameState{pack, int64(f.Index) + 1, int64(f.Offset) + int64(f.Stored)}
	if f.Gen != 0 {
		s.begin += skipSize
	}
	return s
}

// readFrames reads what a frameWriter wrote. The hashes bound the number of frames before memory is taken for them.
func readFrames(what string, packs, frames uint64, ids, rows, sums reader) ([]Frame, error) {
	if frames != uint64(len(sums.b)/hashSize) || packs > frames {
		return nil, damaged(what, "%d frames in %d packs, and %d bytes of hashes", frames, packs, len(sums.b))
	}
	keys := make([]packKey, packs)
	for i := range keys {
		copy(keys[i].id[:], ids.bytes(uint64(len(PackID{}))))
		keys[i].gen = uint32(ids.upTo(1<<32 - 1))
	}
	list := make([]Frame, frames)
	var last frameState
	for i := range list {
		f := &list[i]
		pack := rows.uvarint()
		if pack >= packs {
			return nil, damaged(what, "frame %d is in an unknown pack", i)
		}
		f.Pack, f.Gen = keys[pack].id, keys[pack].gen
		s := last.in(pack, f.Gen)
		index, offset := s.index+rows.signed(), s.begin+rows.signed()
		stored, raw := rows.upTo(MaxPack), rows.upTo(MaxRaw)
		f.Index, f.Offset, f.Stored, f.Raw = uint32(index), uint32(offset), uint32(stored), uint32(raw)
		sums.hash(&f.Hash)
		if index != int64(f.Index) || offset != int64(f.Offset) || !f.plausible() {
			return nil, damaged(what, "frame %d cannot be where it says", i)
		}
		last = f.next(pack)
	}
	if !ids.done() || !rows.done() || !sums.done() {
		return nil, damaged(what, "the columns of frames do not fit")
	}
	return list, nil
}
