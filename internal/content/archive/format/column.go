package format

import (
	"bytes"
	"encoding/binary"
)

// reader takes numbers and bytes off the front of a column. A column that ends too early, or a number that is too large,
// sets bad; zeros come from then on.
type reader struct {
	b   []byte
	at  int // a position, and not a shorter b, because storing pointers costs the collector
	bad bool
}

func (r *reader) uvarint() uint64 {
	if r.at < len(r.b) {
		if c := r.b[r.at]; c < 0x80 {
			r.at++
			return uint64(c)
		}
	}
	return r.long()
}

func (r *reader) long() uint64 {
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.at += n
	return v
}

func (r *reader) fail() { r.bad, r.at = true, len(r.b) }

// left is the number of bytes that were not read.
func (r *reader) left() int { return len(r.b) - r.at }

// upTo is a number that must not exceed a limit.
func (r *reader) upTo(limit uint64) uint64 {
	v := r.uvarint()
	if v > limit {
		r.fail()
		return 0
	}
	return v
}

// signed undoes zigzag.
func (r *reader) signed() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// bytes are the next n; nil if there are fewer.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(r.left()) {
		r.fail()
		return nil
	}
	r.at += int(n)
	return r.b[r.at-int(n) : r.at : r.at]
}

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		r.bad = true
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

// text is what stands before the next NUL.
func (r *reader) text() []byte {
	n := bytes.IndexByte(r.b[r.at:], 0)
	if n < 0 {
		r.fail()
		return nil
	}
	r.at += n + 1
	return r.b[r.at-n-1 : r.at-1]
}

func (r *reader) hash(h *Hash) { copy(h[:], r.bytes(hashSize)) }

// done reports whether the column was read to its end, and well.
func (r *reader) done() bool { return !r.bad && r.at == len(r.b) }

func appendSigned(b []byte, v int64) []byte {
	return binary.AppendUvarint(b, zigzag(v))
}

// columns are the parts of a page or a table, in the order of its specification.
type columns [][]byte

// appendColumns writes version, feature bits, counts and the lengths of the columns, and all columns.
func appendColumns(b []byte, counts []uint64, cols columns) []byte {
	b = append(b, version, 0, 0)
	for _, n := range counts {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(cols)))
	for _, c := range cols {
		b = binary.AppendUvarint(b, uint64(len(c)))
	}
	for _, c := range cols {
		b = append(b, c...)
	}
	return b
}

// size is the number of bytes from one column up to another.
func (c columns) size(from, to int) int {
	n := 0
	for _, col := range c[from:to] {
		n += len(col)
	}
	return n
}

// readColumns takes apart what appendColumns wrote. Columns that this version does not know are passed over if the writer
// said that they may be.
func readColumns(what string, raw []byte, counts []uint64, cols []reader) error {
	r := reader{b: raw}
	if v := r.byte(); v != version && !r.bad {
		return unsupported(what, "it has version %d, this is %d", v, version)
	}
	if needed := r.uvarint(); needed != 0 {
		return unsupported(what, "it needs the features %#x", needed)
	}
	ignorable := r.uvarint()
	for i := range counts {
		counts[i] = r.uvarint()
	}
	n := r.upTo(64)
	if n < uint64(len(cols)) || n > uint64(len(cols)) && ignorable == 0 {
		return damaged(what, "it has %d columns instead of %d", n, len(cols))
	}
	var lengths [64]uint64
	for i := range lengths[:n] {
		lengths[i] = r.uvarint()
	}
	for i := range lengths[:n] {
		if c := r.bytes(lengths[i]); i < len(cols) {
			cols[i].b = c
		}
	}
	if !r.done() {
		return damaged(what, "its columns do not fill it")
	}
	return nil
}

// shared is the number of bytes with which both strings begin.
func shared(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }
