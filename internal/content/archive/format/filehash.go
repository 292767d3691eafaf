package format

import (
	"crypto/sha256"
	"hash"
)

// FileHasher computes a content hash from the beginning to the end of a file. The zero value is ready.
type FileHasher struct {
	blocks  ContentHasher
	block   hash.Hash // of the bytes of the current block
	size    int64     // of all that was added
	pending int64     // zeros at the end of the current block that are not in its hash yet
	used    bool      // the current block has bytes that are not zero, or not known to be
}

// Reset makes it ready for the next file.
func (f *FileHasher) Reset() {
	f.blocks.Reset()
	f.begin()
	f.size = 0
}

// Write adds bytes; it never fails.
func (f *FileHasher) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(int64(len(rest)), BlockSize-f.size%BlockSize)
		part := rest[:n]
		rest = rest[n:]
		if !f.used && IsZero(part) {
			f.zeros(n)
			continue
		}
		f.flush()
		f.block.Write(part)
		f.used = true
		f.added(n)
	}
	return len(p), nil
}

// Zeros adds n zeros, at little cost whatever n is.
func (f *FileHasher) Zeros(n int64) {
	if first := min(n, (BlockSize-f.size%BlockSize)%BlockSize); first > 0 {
		f.zeros(first)
		n -= first
	}
	f.size += n / BlockSize * BlockSize // whole blocks have no leaf
	if n %= BlockSize; n > 0 {
		f.zeros(n)
	}
}

// Sum is the content hash of all that was added.
func (f *FileHasher) Sum() Hash {
	if f.used {
		f.leaf(f.size / BlockSize)
	}
	return f.blocks.Sum(f.size)
}

// zeros adds zeros that stay within the current block.
func (f *FileHasher) zeros(n int64) {
	f.pending += n
	f.added(n)
}

// added counts n bytes and closes the block that they complete.
func (f *FileHasher) added(n int64) {
	f.size += n
	if f.size%BlockSize != 0 {
		return
	}
	if f.used {
		f.leaf(f.size/BlockSize - 1)
	}
	f.begin()
}

func (f *FileHasher) leaf(index int64) {
	f.flush()
	var h Hash
	f.block.Sum(h[:0])
	f.blocks.Add(index, h)
	f.begin()
}

func (f *FileHasher) flush() {
	if f.block == nil {
		f.block = sha256.New()
	}
	for f.pending > 0 {
		n := min(f.pending, int64(len(zeros)))
		f.block.Write(zeros[:n])
		f.pending -= n
	}
}

func (f *FileHasher) begin() {
	if f.block != nil {
		f.block.Reset()
	}
	f.pending, f.used = 0, false
}
