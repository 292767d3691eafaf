package format

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

const (
	filePrefix = "ws-daemon file v1\n"
	treePrefix = "ws-daemon tree v1\n"
)

// zeros is hashed where a hole stands for bytes. Nothing writes to it.
var zeros [64 << 10]byte

// String returns 64 hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// HashBlock is the leaf of a block of a file: its SHA-256, and whether the block has any byte that is not zero.
func HashBlock(block []byte) (Hash, bool) {
	if IsZero(block) {
		return Hash{}, false
	}
	return sha256.Sum256(block), true
}

// IsZero reports whether there is no byte but zero.
func IsZero(b []byte) bool {
	// Comparing with itself, shifted by one, uses the vector code of the standard library.
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:])
}

type leaf struct {
	index int64
	hash  Hash
}

// ContentHasher combines the leaves of a file to the hash of its content. The zero value is ready.
//
// The content hash of a file of at most [BlockSize] bytes is their SHA-256, of an empty file it is zero. That of a larger
// one is taken over its size and the SHA-256 of every block that is not all zeros, so that holes and zeros are alike,
// blocks can be hashed at once, and a hole costs nothing.
type ContentHasher struct{ leaves []leaf }

// Reset makes it ready for the next file.
func (c *ContentHasher) Reset() { c.leaves = c.leaves[:0] }

// Add adds the leaf of the block that begins at index times [BlockSize]. Blocks of zeros are left out; the order is free.
func (c *ContentHasher) Add(index int64, hash Hash) {
	c.leaves = append(c.leaves, leaf{index, hash})
}

// Sum is the content hash of a file of that size.
func (c *ContentHasher) Sum(size int64) Hash {
	if size <= BlockSize {
		return c.small(size)
	}
	slices.SortFunc(c.leaves, func(a, b leaf) int { return cmp.Compare(a.index, b.index) })
	h := sha256.New()
	h.Write([]byte(filePrefix))
	row := make([]byte, 0, 40)
	h.Write(binary.LittleEndian.AppendUint64(row, uint64(size)))
	for _, l := range c.leaves {
		h.Write(append(binary.LittleEndian.AppendUint64(row, uint64(l.index)), l.hash[:]...))
	}
	return Hash(h.Sum(nil))
}

func (c *ContentHasher) small(size int64) Hash {
	if size == 0 {
		return Hash{}
	}
	if len(c.leaves) > 0 {
		return c.leaves[0].hash
	}
	h := sha256.New()
	for size > 0 {
		n := min(size, int64(len(zeros)))
		h.Write(zeros[:n])
		size -= n
	}
	return Hash(h.Sum(nil))
}

// GroupOf is the id of a group of hard links, from the path of the first of them in tree order. It is never 0.
func GroupOf(path string) uint64 {
	sum := sha256.Sum256([]byte(path))
	return max(binary.LittleEndian.Uint64(sum[:]), 1)
}
