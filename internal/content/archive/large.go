package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// manyPieces is the number of pieces of a file from which on a block is one piece, and its holes are read as zeros.
const manyPieces = format.MaxPieces / 2

var errPieces = fmt.Errorf("the file has data at more than %d places", format.MaxPieces)

// largeFile is a file that is read block by block, by several workers.
type largeFile struct {
	dir *dirNode
	row *row
	fd  int

	before row
	pos    int64 // what lies before was given out; guarded by the reading's lock, as are units
	units  int   // blocks that are being read, and one as long as there may be more
	tries  int

	old *version // what the parent has of it, if it may have most of it; not used in the last try

	mu     sync.Mutex
	open   []section // read, and not stored: only with an old version
	blocks []blockDone
	pieces []format.Piece // their frames are those of the places
	end    int64          // where the file has been found to end
	short  bool
	torn   bool // it was read twice, and was not the same
	err    error
}

// blockDone is a block that was read.
type blockDone struct {
	index int64
	end   int64 // in the file
	leaf  format.Hash
	data  bool // there is a byte that is not zero
}

func (g *reading) newLargeFile(d *dirNode, r *row, fd int, before *row) *largeFile {
	f := &largeFile{dir: d, row: r, fd: fd, units: 1}
	if before.size > cdcFile {
		f.old = g.versions[r]
	}
	f.begin(before)
	return f
}

// begin prepares for reading from the beginning.
func (f *largeFile) begin(before *row) {
	if f.tries++; f.tries == maxReads {
		f.old = nil // or it would be read twice, and its hash be that of what is not stored
	}
	f.before, f.pos, f.end, f.short, f.torn = *before, 0, before.size, false, false
	f.blocks, f.pieces, f.open = f.blocks[:0], f.pieces[:0], nil
}

// openLarge begins a large file. What is wrong with it is its own matter.
func (w *readWorker) openLarge(ctx context.Context, d *dirNode, r *row) error {
	fd, err := w.open(d, r)
	if swapped(err) || errors.Is(err, unix.ENXIO) { // it is no file any more
		return w.read(ctx, d, r)
	}
	if err != nil {
		return w.failed(d, r, err)
	}
	var before row
	before.set(&w.st, w.tree)
	w.large = w.newLargeFile(d, r, fd, &before)
	return nil
}

// nextBlock gives out the next block of the file at hand. It is false if that does not fit into the worker's block, and there
// is no file at hand any more if all were given out.
func (w *readWorker) nextBlock() (unit, bool) {
	f := w.large
	block, size, ok := f.peek()
	switch {
	case ok && size > w.room():
		return unit{}, false
	case ok:
		f.pos = f.endOf(block)
		f.units++
		return unit{large: f, block: block}, true
	}
	w.large = nil
	if f.units == 1 {
		return unit{large: f, block: -1}, true
	}
	f.units-- // whoever reads the last block finishes
	return unit{}, false
}

// peek finds the next block with data.
func (f *largeFile) peek() (block, size int64, ok bool) {
	if f.pos >= f.before.size || f.failed() {
		return 0, 0, false
	}
	data, err := unix.Seek(f.fd, f.pos, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, false
	}
	if err != nil { // not every filesystem knows holes
		data = f.pos
	}
	if data >= f.before.size {
		return 0, 0, false
	}
	block = data / format.BlockSize
	return block, min(f.before.size-block*format.BlockSize, format.BlockSize), true
}

// endOf is where a block ends in the file, which may be as large as numbers go.
func (f *largeFile) endOf(block int64) int64 {
	start := block * format.BlockSize
	return start + min(f.before.size-start, format.BlockSize)
}

func (f *largeFile) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err != nil
}

// largeUnit reads a block, and finishes the file if it was the last one.
func (w *readWorker) largeUnit(ctx context.Context, u *unit) error {
	if u.block >= 0 {
		w.tell(0, w.block(u.large, u.block))
	}
	w.mu.Lock()
	u.large.units--
	last := u.large.units == 0
	w.mu.Unlock()
	if !last {
		return nil
	}
	defer func() { _ = unix.Close(u.large.fd) }()
	if err := w.finishLarge(ctx, u.large); err != nil {
		return err
	}
	w.tell(1, 0)
	return nil
}

// largeAlone reads a file that nobody had expected to be large.
func (w *readWorker) largeAlone(ctx context.Context, d *dirNode, r *row, fd int, before *row) error {
	f := w.newLargeFile(d, r, fd, before)
	err := w.allBlocks(ctx, f)
	if err == nil {
		err = w.finishLarge(ctx, f)
	}
	if err != nil {
		return fatalError{err}
	}
	return nil
}

func (w *readWorker) allBlocks(ctx context.Context, f *largeFile) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		block, size, ok := f.peek()
		if !ok {
			return nil
		}
		if size > w.room() {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		f.pos = f.endOf(block)
		w.block(f, block)
	}
}

// finishLarge notes what was read, or reads it again if the file has changed meanwhile.
func (w *readWorker) finishLarge(ctx context.Context, f *largeFile) error {
	for {
		if len(f.open) > 0 && f.err == nil {
			if err := w.storeOpen(ctx, f); err != nil {
				return err
			}
		}
		w.attributes(f.dir, f.row, string(f.dir.nameOf(f.row)), f.fd, false)
		if err := statxFD(f.fd, &w.st); err != nil && f.err == nil {
			f.err = err
		}
		if f.err != nil {
			return w.failed(f.dir, f.row, f.err)
		}
		var after row
		after.set(&w.st, w.tree)
		calm := !f.short && !f.torn && after.sameState(&f.before)
		if calm || f.tries == maxReads {
			w.noteLarge(f, after.size, calm)
			return nil
		}
		f.begin(&after)
		if err := w.allBlocks(ctx, f); err != nil {
			return err
		}
	}
}

// noteLarge puts what was read of a file into its row.
func (w *readWorker) noteLarge(f *largeFile, size int64, calm bool) {
	slices.SortFunc(f.pieces, func(a, b format.Piece) int { return cmp.Compare(a.At, b.At) })
	if !calm {
		f.cut(size)
		f.row.flags |= rowChanged | rowSuspect
	}
	if len(f.pieces) > format.MaxPieces {
		w.unreadable(f.dir, f.row, errPieces)
		return
	}
	x := &rowExtra{}
	if had := w.extras.get(f.row.extra); had != nil {
		x.Xattrs, x.partial = had.Xattrs, had.partial
	}
	f.before.size = f.end
	f.row.take(&f.before)
	f.row.place, f.row.extra = 0, 0
	switch {
	case f.end == 0:
	case len(f.pieces) == 1 && int64(f.pieces[0].Len) == f.end:
		f.row.place = w.places.number(&f.pieces[0].Hash)
	default:
		x.Pieces = append([]format.Piece{}, f.pieces...)
		x.hash = f.contentHash()
	}
	if x.Xattrs != nil || x.Pieces != nil || x.partial {
		f.row.extra = w.extras.add(x)
	}
}

// cut gives a file that has changed an end that agrees with what was read of it. A block stays as it was read; no zeros
// stand for what has been cut off.
func (f *largeFile) cut(size int64) {
	end := min(f.end, size)
	for _, b := range f.blocks {
		if b.index*format.BlockSize < end {
			end = max(end, b.end)
		}
	}
	f.end = end
	f.pieces = slices.DeleteFunc(f.pieces, func(p format.Piece) bool { return p.At >= end })
}

func (f *largeFile) contentHash() format.Hash {
	var sum format.ContentHasher
	for _, b := range f.blocks {
		if b.data && b.index*format.BlockSize < f.end {
			sum.Add(b.index, b.leaf)
		}
	}
	return sum.Sum(f.end)
}

// block reads one block of a file behind what is in the worker's, and returns how much it has read.
func (w *readWorker) block(f *largeFile, index int64) int64 {
	w.needBuffer()
	start := index * format.BlockSize
	b := blockReader{w: w, file: f, start: start, stop: f.endOf(index)}
	b.done = blockDone{index: index, end: b.stop}
	err := b.read()
	w.bytesRead.Add(b.count)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && f.err == nil {
		f.err = err
	}
	if b.short {
		f.short, f.end = true, min(f.end, b.done.end)
	}
	f.blocks = append(f.blocks, b.done)
	f.pieces = append(f.pieces, b.pieces...)
	f.open = append(f.open, b.open...)
	return b.count
}

// blockReader reads a block.
type blockReader struct {
	w           *readWorker
	file        *largeFile
	start, stop int64 // in the file
	count       int64 // bytes read
	short       bool
	done        blockDone
	pieces      []format.Piece
	open        []section
}

func (b *blockReader) read() error {
	b.w.hash.Reset()
	at := b.start // up to where it is hashed
	for at < b.stop && !b.short {
		from, to, ok := b.extent(at)
		if !ok {
			break
		}
		data := b.w.buf[b.w.fill : b.w.fill+int(to-from)]
		n, err := preadFull(b.file.fd, data, from)
		if err != nil {
			return err
		}
		b.count += int64(n)
		b.short = n < len(data)
		if n == 0 {
			break
		}
		at = b.piece(at, from, data[:n])
	}
	if b.short {
		b.done.end = at
	}
	if b.done.data && b.done.leaf == (format.Hash{}) {
		b.w.hash.Zeros(b.done.end - at)
		b.done.leaf = b.w.hash.Sum()
	}
	return nil
}

// extent finds the next data in the block.
func (b *blockReader) extent(at int64) (from, to int64, ok bool) {
	from, err := unix.Seek(b.file.fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && from >= b.stop {
		return 0, 0, false
	}
	if err != nil {
		return at, b.stop, true
	}
	to, err = unix.Seek(b.file.fd, from, unix.SEEK_HOLE)
	if err != nil || to > b.stop || to <= from || b.file.fragmented() {
		to = b.stop
	}
	return from, to, true
}

func (f *largeFile) fragmented() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pieces) > manyPieces
}

// piece takes data that was read, and returns where it ends. Whole blocks of zeros are left out.
func (b *blockReader) piece(at, from int64, data []byte) int64 {
	whole := from == b.start && from+int64(len(data)) == b.stop
	zero := format.IsZero(data)
	b.done.data = b.done.data || !zero
	if whole && zero && len(data) == format.BlockSize {
		return b.stop
	}
	sum := format.Hash(sha256.Sum256(data))
	if whole {
		b.done.leaf = sum
	} else {
		b.w.hash.Zeros(from - at)
		_, _ = b.w.hash.Write(data)
	}
	end := from + int64(len(data))
	if b.file.old != nil && b.w.places.number(&sum) == 0 {
		b.open = append(b.open, section{from, end})
		return end
	}
	frame, off := b.w.keepPiece(&sum, data)
	b.pieces = append(b.pieces, format.Piece{At: from, Len: uint32(len(data)), Frame: frame, Off: off, Hash: sum})
	return end
}
