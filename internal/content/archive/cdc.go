package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers the algorithm

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

const (
	// cdcFile is the size from which on a file of which the parent has another version is cut by its content.
	cdcFile = 16 << 20
	// cdcMin, cdcNormal and cdcMax are the sizes of what it is cut into.
	cdcMin    = 256 << 10
	cdcNormal = 1 << 20
	cdcMax    = format.BlockSize
	// maxMisses is after how many pieces that have not just moved no more are looked for.
	maxMisses = 2
)

// version is what the parent has under the name of a large file.
type version struct {
	size   int64
	pieces []format.Piece // without places
}

// versions are those of large files that have to be read.
type versions map[*row]*version

func (v versions) note(r *row, e *format.Entry) {
	if e != nil && r.isFile() && r.size > cdcFile && e.Extra != nil && len(e.Extra.Pieces) > 0 {
		v[r] = &version{e.Size, e.Extra.Pieces}
	}
}

// section is part of a file that has no place yet.
type section struct{ from, to int64 }

// mergeSections sorts, and joins those that meet.
func mergeSections(list []section) []section {
	slices.SortFunc(list, func(a, b section) int { return cmp.Compare(a.from, b.from) })
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && out[n-1].to == s.from {
			out[n-1].to = s.to
		} else {
			out = append(out, s)
		}
	}
	return out
}

// storeOpen stores what no block of the version before holds: first by finding its pieces where they were, and as far from
// the end as they were, then by cutting the rest where its content says, so that most cuts come again in the next version.
func (w *readWorker) storeOpen(ctx context.Context, f *largeFile) error {
	pieces := f.old.pieces
	f.open = mergeSections(f.open)
	open, err := w.findPieces(ctx, f, slices.Clone(f.open), 0, slices.All(pieces))
	if shift := f.before.size - f.old.size; err == nil && shift != 0 {
		open, err = w.findPieces(ctx, f, open, shift, slices.Backward(pieces))
	}
	again := f.open
	f.open = nil
	for _, s := range open {
		if err == nil {
			err = w.cutByContent(ctx, f, s)
		}
	}
	if err == nil && !f.short {
		err = w.rehash(ctx, f, again)
	}
	if errors.As(err, new(fatalError)) {
		return err
	}
	f.err = cmp.Or(f.err, err)
	return nil
}

// findPieces takes from the open sections the pieces of the version before that are there, moved by shift, in a certain
// order: what stands before an insertion is where it was, what stands behind it has moved with the end.
func (w *readWorker) findPieces(ctx context.Context, f *largeFile, open []section, shift int64, pieces iter.Seq2[int, format.Piece]) ([]section, error) {
	misses := 0
	for _, p := range pieces {
		at := section{p.At + shift, p.At + shift + int64(p.Len)}
		i := slices.IndexFunc(open, func(s section) bool { return s.from <= at.from && at.to <= s.to })
		if i < 0 {
			continue
		}
		same, err := w.isThere(ctx, f, at.from, &p)
		if err != nil {
			return nil, err
		}
		if same {
			misses = 0
			open = slices.Replace(open, i, i+1, without(open[i], at)...)
		} else if misses++; misses == maxMisses {
			break
		}
	}
	return open, nil
}

// without returns what is left of a section.
func without(s, part section) []section {
	var left []section
	if s.from < part.from {
		left = append(left, section{s.from, part.from})
	}
	if part.to < s.to {
		left = append(left, section{part.to, s.to})
	}
	return left
}

// isThere reports whether a piece of the version before is at an offset, and notes it there.
func (w *readWorker) isThere(ctx context.Context, f *largeFile, at int64, p *format.Piece) (bool, error) {
	if ctx.Err() != nil {
		return false, fatalError{context.Cause(ctx)}
	}
	n := w.places.number(&p.Hash)
	if n == 0 {
		return false, nil
	}
	if err := w.makeRoom(ctx, int64(p.Len)); err != nil {
		return false, err
	}
	data := w.buf[w.fill : w.fill+int(p.Len)]
	read, err := preadFull(f.fd, data, at)
	w.bytesRead.Add(int64(read))
	if err != nil || sha256.Sum256(data[:read]) != p.Hash {
		return false, err
	}
	place := w.places.get(n)
	f.pieces = append(f.pieces, format.Piece{At: at, Len: p.Len, Frame: place.frame, Off: place.off, Hash: p.Hash})
	return true, nil
}

// makeRoom flushes the block if something does not fit.
func (w *readWorker) makeRoom(ctx context.Context, size int64) error {
	if size <= w.room() {
		return nil
	}
	if err := w.flush(ctx); err != nil {
		return fatalError{err}
	}
	return nil
}

// cutByContent stores a section of a file.
func (w *readWorker) cutByContent(ctx context.Context, f *largeFile, s section) error {
	options := chunkers.ChunkerOpts{MinSize: cdcMin, NormalSize: cdcNormal, MaxSize: cdcMax}
	c, err := chunkers.NewChunkerBuffer("fastcdc-v1.0.0", &fileReader{fd: f.fd, at: s.from, end: s.to}, &options, w.cutBuffer())
	if err != nil {
		return fatalError{fmt.Errorf("cut a file: %w", err)}
	}
	for at := s.from; at < s.to; {
		if ctx.Err() != nil {
			return fatalError{context.Cause(ctx)}
		}
		chunk, err := c.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		w.bytesRead.Add(int64(len(chunk)))
		if len(chunk) == 0 {
			f.short, f.end = true, min(f.end, at)
			return nil
		}
		if err := w.makeRoom(ctx, int64(len(chunk))); err != nil {
			return err
		}
		data := w.buf[w.fill : w.fill+copy(w.buf[w.fill:], chunk)]
		sum := format.Hash(sha256.Sum256(data))
		frame, off := w.keepPiece(&sum, data)
		f.pieces = append(f.pieces, format.Piece{At: at, Len: uint32(len(data)), Frame: frame, Off: off, Hash: sum})
		at += int64(len(data))
	}
	return nil
}

// rehash computes the hashes of blocks with sections that were read again: of the bytes that have become pieces, which may not be
// those that the blocks were hashed of. If they are others by now, the file is torn.
func (w *readWorker) rehash(ctx context.Context, f *largeFile, again []section) error {
	slices.SortFunc(f.pieces, func(a, b format.Piece) int { return cmp.Compare(a.At, b.At) })
	r := rehasher{w: w, blocks: map[int64]*blockDone{}}
	for i := range f.blocks {
		b := &f.blocks[i]
		if start := b.index * format.BlockSize; meets(again, section{start, b.end}) {
			r.blocks[b.index] = b
		}
	}
	for i := range f.pieces {
		p := &f.pieces[i]
		if !r.wants(p) {
			continue
		}
		if ctx.Err() != nil {
			return fatalError{context.Cause(ctx)}
		}
		data := w.cutBuffer()[:p.Len]
		n, err := preadFull(f.fd, data, p.At)
		w.bytesRead.Add(int64(n))
		if err != nil {
			return err
		}
		if sha256.Sum256(data[:n]) != p.Hash {
			f.torn = true
			return nil
		}
		r.add(p.At, data)
	}
	r.end()
	return nil
}

// meets reports whether a section has bytes of any in a list, which ascends.
func meets(list []section, s section) bool {
	i, _ := slices.BinarySearchFunc(list, s.from, func(x section, from int64) int { return cmp.Compare(x.to-1, from) })
	return i < len(list) && list[i].from < s.to
}

// rehasher hashes blocks of a file, of which it gets the data in ascending order.
type rehasher struct {
	w      *readWorker
	blocks map[int64]*blockDone
	cur    *blockDone
	at     int64 // up to where it is hashed
}

func (r *rehasher) wants(p *format.Piece) bool {
	for i := p.At / format.BlockSize; i <= (p.At+int64(p.Len)-1)/format.BlockSize; i++ {
		if r.blocks[i] != nil {
			return true
		}
	}
	return false
}

func (r *rehasher) add(at int64, data []byte) {
	for len(data) > 0 {
		n := min(int64(len(data)), format.BlockSize-at%format.BlockSize)
		if b := r.blocks[at/format.BlockSize]; b != nil {
			if b != r.cur {
				r.end()
				r.w.hash.Reset()
				r.cur, r.at, b.data = b, b.index*format.BlockSize, false
			}
			r.w.hash.Zeros(at - r.at)
			_, _ = r.w.hash.Write(data[:n])
			b.data = b.data || !format.IsZero(data[:n])
			r.at = at + n
		}
		at, data = at+n, data[n:]
	}
}

// end completes the block at hand.
func (r *rehasher) end() {
	if b := r.cur; b != nil && b.data {
		r.w.hash.Zeros(b.end - r.at)
		b.leaf = r.w.hash.Sum()
	}
	r.cur = nil
}

// cutBuffer has room for the largest piece.
func (w *readWorker) cutBuffer() []byte {
	if w.chunks == nil {
		w.chunks = make([]byte, cdcMax)
	}
	return w.chunks
}

// fileReader reads a section of a file, whatever others do with its offset.
type fileReader struct {
	fd      int
	at, end int64
}

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := preadFull(r.fd, p[:min(int64(len(p)), r.end-r.at)], r.at)
	r.at += int64(n)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}
