package format

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
)

// PackWriter puts a pack together in a buffer.
type PackWriter struct {
	id     PackID
	gen    uint32
	aead   cipher.AEAD // nil: not encrypted
	buf    []byte      // all of the caller's buffer
	end    int         // of what is reserved
	rows   []*packRow
	filled atomic.Int64
	closed bool
	err    atomic.Pointer[error] // the first mistake of the caller
}

type packRow struct {
	PackFrame
	length int // of the zstd frame
	used   atomic.Bool
}

// Slot is a place for one frame.
type Slot struct {
	w   *PackWriter
	row *packRow
}

// PackFrame is a row of a pack's trailer.
type PackFrame struct {
	Frame
	Type FrameType
}

// NewPackWriter begins a pack in buf, whose capacity (at most [MaxPack] of it) bounds the pack and is never exceeded:
// [PackTarget] and twice [BlockSize] are plenty. Without a key the pack is not encrypted.
func NewPackWriter(id PackID, key *Key, buf []byte) (*PackWriter, error) {
	w := &PackWriter{id: id, buf: buf[:min(cap(buf), MaxPack)], end: headerSize}
	if len(w.buf) < headerSize+FooterSize {
		return nil, fmt.Errorf("begin pack: a buffer of %d bytes is too small", len(w.buf))
	}
	if key != nil {
		aead, err := key.derive("pack", id[:])
		if err != nil {
			return nil, err
		}
		w.aead, w.gen = aead, key.generation
	}
	appendIdent(appendSkip(w.buf[:0], kindHeader, identSize), id, w.gen)
	return w, nil
}

// Reserve gives the next frame its place. It is false if the pack is full: finish it and begin another. raw is the length
// of the content, zlen that of its zstd frame. Calls must not run concurrently; the slots may be filled meanwhile.
// What fits into no pack gets a slot that makes Finish fail.
func (w *PackWriter) Reserve(t FrameType, raw, zlen int) (Slot, bool) {
	row := &packRow{length: zlen}
	s := Slot{w, row}
	if raw < 1 || raw > MaxRaw || zlen < 1 || zlen > MaxPack {
		w.fail(fmt.Errorf("reserve a frame: %d bytes, %d compressed: both must be from 1 to %d", raw, zlen, MaxRaw))
		return s, true
	}
	if w.closed {
		w.fail(errors.New("reserve a frame: the pack is finished"))
		return s, true
	}
	gap, stored := w.overhead(zlen)
	if w.end+gap+stored+trailerSize(len(w.rows)+1, w.gen) > len(w.buf) || len(w.rows) == MaxFrames {
		if len(w.rows) > 0 {
			return Slot{}, false
		}
		w.fail(fmt.Errorf("reserve a frame: %d bytes do not fit into a buffer of %d", zlen, len(w.buf)))
		return s, true
	}
	row.PackFrame = PackFrame{Type: t, Frame: Frame{Pack: w.id, Index: uint32(len(w.rows)), Offset: uint32(w.end + gap),
		Stored: uint32(stored), Raw: uint32(raw), Gen: w.gen}}
	w.end += gap + stored
	w.rows = append(w.rows, row)
	return s, true
}

// overhead returns the bytes before a frame and in it.
func (w *PackWriter) overhead(zlen int) (gap, stored int) {
	if w.aead == nil {
		return 0, zlen
	}
	return skipSize, zlen + tagSize
}

// trailerSize is the number of bytes of trailer and footer.
func trailerSize(frames int, generation uint32) int {
	n := skipSize + 4 + frames*trailerRow + FooterSize
	if generation != 0 {
		n += tagSize
	}
	return n
}

// Size is the number of bytes that the pack would have if it were finished now.
func (w *PackWriter) Size() int { return w.end + trailerSize(len(w.rows), w.gen) }

// Frames is the number of frames reserved.
func (w *PackWriter) Frames() int { return len(w.rows) }

// Place is the frame as it will be, without its hash.
func (s Slot) Place() Frame { return s.row.Frame }

// Fill stores the zstd frame, of the length that was reserved, and returns the frame with its hash. Slots may be filled
// concurrently, each once.
func (s Slot) Fill(zstdFrame []byte) Frame {
	f := &s.row.Frame
	if len(zstdFrame) != s.row.length || f.Stored == 0 {
		s.w.fail(fmt.Errorf("fill frame %d: it has %d bytes, %d were reserved", f.Index, len(zstdFrame), s.row.length))
		return *f
	}
	if s.row.used.Swap(true) { // a nonce seals one text, never two
		s.w.fail(fmt.Errorf("fill frame %d: it was filled before", f.Index))
		return *f
	}
	place := s.w.buf[f.Offset : f.Offset+f.Stored : f.Offset+f.Stored]
	if s.w.aead == nil {
		copy(place, zstdFrame)
	} else {
		appendSkip(s.w.buf[f.Offset-skipSize:f.Offset-skipSize], kindSealed, f.Stored)
		n, ad := nonce(f.Index), associated(f.Pack, s.row.Type, f.Index, f.Raw)
		s.w.aead.Seal(place[:0], n[:], zstdFrame, ad[:])
	}
	f.Hash = sha256.Sum256(place)
	s.w.filled.Add(1)
	return *f
}

func (w *PackWriter) fail(err error) { w.err.CompareAndSwap(nil, &err) }

// Finish returns the whole pack, in the buffer given to NewPackWriter. Every slot must have been filled before. It is the
// end of the writer.
func (w *PackWriter) Finish() ([]byte, error) {
	if err := w.err.Load(); err != nil {
		return nil, fmt.Errorf("finish pack: %w", *err)
	}
	if n := w.filled.Load(); len(w.rows) == 0 || n != int64(len(w.rows)) {
		return nil, fmt.Errorf("finish pack: %d of %d frames are filled", n, len(w.rows))
	}
	w.closed = true
	table := w.trailer()
	b := append(appendSkip(w.buf[:w.end], kindTrailer, uint32(len(table))), table...)
	offset := w.end + skipSize
	b = appendSkip(b, kindFooter, FooterSize-skipSize)
	footer := appendIdent(b, w.id, w.gen)
	footer = binary.LittleEndian.AppendUint32(footer, uint32(offset))
	footer = binary.LittleEndian.AppendUint32(footer, uint32(len(table)))
	sum := trailerHash(table, footer[len(b):])
	return append(footer, sum[:]...), nil
}

// trailer is the table of the frames, sealed if the pack is.
func (w *PackWriter) trailer() []byte {
	b := make([]byte, 0, trailerSize(len(w.rows), w.gen))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(w.rows)))
	for _, r := range w.rows {
		b = append(b, byte(r.Type))
		b = binary.LittleEndian.AppendUint32(b, r.Offset)
		b = binary.LittleEndian.AppendUint32(b, r.Stored)
		b = binary.LittleEndian.AppendUint32(b, r.Raw)
		b = append(b, r.Hash[:]...)
	}
	if w.aead == nil {
		return b
	}
	n, ad := nonce(trailerIndex), associated(w.id, trailerType, trailerIndex, uint32(len(b)))
	return w.aead.Seal(b[:0], n[:], b, ad[:])
}

func trailerHash(table, ident []byte) Hash {
	h := sha256.New()
	h.Write(table)
	h.Write(ident)
	return Hash(h.Sum(nil))
}
