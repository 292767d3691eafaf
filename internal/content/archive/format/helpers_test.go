package format

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"

	. "github.com/onsi/gomega"
)

func codecs(tb testing.TB) (*Encoder, *Decoder) {
	tb.Helper()
	e, err := NewEncoder()
	if err != nil {
		tb.Fatal(err)
	}
	d, err := NewDecoder()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return e, d
}

func testKey(tb testing.TB) *Key {
	tb.Helper()
	k, err := ParseKey([]byte("7:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func testID(n byte) PackID { return PackID{0: n, 1: 0xab, 15: 0x01} }

func sumOf(s string) Hash { return sha256.Sum256([]byte(s)) }

// samplePage has at least one of everything that a page can have.
func samplePage() *Page {
	at := func(mode uint16, sec int64, nsec uint32) Meta {
		return Meta{Mode: mode, UID: 33333, GID: 33333, Sec: sec, Nsec: nsec}
	}
	with := func(m Meta, x Extra) Meta {
		m.Extra = &x
		return m
	}
	acl := []Xattr{{"security.capability", []byte{1, 0, 0, 2}}, {"user.empty", []byte{}}, {"user.mime", []byte("text/plain")}}
	frames := []Frame{
		{Pack: testID(1), Index: 0, Offset: headerSize, Stored: 700, Raw: BlockSize, Hash: sumOf("frame 0")},
		{Pack: testID(1), Index: 1, Offset: headerSize + 700, Stored: 900_000, Raw: BlockSize, Hash: sumOf("frame 1")},
		{Pack: testID(2), Index: 9, Offset: 20 << 20, Stored: 5000, Raw: 70_000, Gen: 7, Hash: sumOf("frame 2")},
	}
	some := with(at(0o2755, 5, 6), Extra{Xattrs: acl})
	some.Partial = true
	return &Page{Frames: frames, Dirs: []Dir{
		{Path: "", Meta: at(0o755, 1_700_000_000, 123_456_789), Entries: []Entry{
			{Name: "-rf", Kind: KindFile, Meta: at(0o644, 1_700_000_000, 0)},
			{Name: "README.md", Kind: KindFile, Meta: at(0o644, -1, 999_999_999), Size: 12, Hash: sumOf("readme")},
			{Name: "a\nb\xff", Kind: KindFile, Meta: with(at(0o600, 1, 2), Extra{Xattrs: acl}), Size: 100, Hash: sumOf("odd"), Off: 12},
			{Name: "broken", Kind: KindFile, Flags: FlagUnreadable, Meta: at(0, 0, 0)},
			{Name: "changing", Kind: KindFile, Flags: FlagChanged, Meta: at(0o4755, math.MaxInt64, 1), Size: BlockSize, Hash: sumOf("c"), Frame: 1},
			{Name: "fifo", Kind: KindFIFO, Meta: at(0o600, math.MinInt64, 0)},
			{Name: "hard1", Kind: KindFile, Meta: with(at(0o7777, 5, 6), Extra{Group: 1 << 63}), Size: 1, Hash: sumOf("h"), Frame: 0, Off: 4_000_000},
			{Name: "hard2", Kind: KindFile, Meta: with(at(0o7777, 5, 6), Extra{Group: 1 << 63}), Size: 1, Hash: sumOf("h"), Frame: 0, Off: 4_000_000},
			{Name: "hole", Kind: KindFile, Meta: with(at(0o644, 5, 6), Extra{Pieces: []Piece{}}), Size: math.MaxInt64, Hash: sumOf("hole")},
			{Name: "large", Kind: KindFile, Meta: with(at(0o644, 5, 6), Extra{Xattrs: acl, Pieces: []Piece{
				{At: 0, Len: BlockSize, Frame: 1, Hash: sumOf("p0")},
				{At: 3 * BlockSize, Len: 70_000, Frame: 2, Hash: sumOf("p1")},
				{At: 1 << 50, Len: 1, Frame: 0, Off: 7, Hash: sumOf("p2")},
			}}), Size: 1<<50 + 1, Hash: sumOf("large")},
			{Name: "link", Kind: KindSymlink, Meta: with(at(0o777, 5, 6), Extra{Target: "../../etc/\xfe"})},
			{Name: "lost", Kind: KindSymlink, Flags: FlagUnreadable, Meta: at(0o777, 5, 6)},
			{Name: "white", Kind: KindWhiteout, Meta: Meta{UID: math.MaxUint32 - 1, GID: math.MaxUint32 - 1, Partial: true}},
		}},
		{Path: "dir", Meta: some},
		{Path: "dir/sub", Meta: at(0o1777, 5, 6), Entries: []Entry{
			{Name: "README.md", Kind: KindFile, Meta: at(0o644, 7, 7), Size: 13, Hash: sumOf("readme 2"), Frame: 2, Off: 69_987},
		}},
		{Path: "dir.d", Meta: at(0o755, 5, 6)},
	}}
}

// smallPage has rows of two directories and one frame.
func smallPage() *Page {
	return &Page{
		Frames: []Frame{{Pack: testID(1), Offset: headerSize, Stored: 700, Raw: 100, Hash: sumOf("frame")}},
		Dirs: []Dir{
			{Path: "", Entries: []Entry{
				{Name: "a", Kind: KindFile, Size: 60, Hash: sumOf("a")},
				{Name: "b", Kind: KindFile, Size: 40, Off: 60, Hash: sumOf("b")},
			}},
			{Path: "d", Entries: []Entry{{Name: "c", Kind: KindFile}}},
		},
	}
}

// refOf is the row of the page table for a page that lies in a frame of its own.
func refOf(p *Page, stored []byte, raw int) PageRef {
	return p.Ref(Frame{Pack: testID(3), Offset: headerSize, Stored: uint32(len(stored)), Raw: uint32(raw), Hash: sha256.Sum256(stored)})
}

func encodePage(g Gomega, e *Encoder, p *Page) ([]byte, PageRef) {
	z, raw, err := e.Page(nil, p)
	g.Expect(err).NotTo(HaveOccurred())
	return z, refOf(p, z, raw)
}

// manyEntries are n files with names in order.
func manyEntries(n int) []Entry {
	list := make([]Entry, n)
	for i := range list {
		list[i] = Entry{Name: fmt.Sprintf("file-%07d.txt", i), Kind: KindFile, Meta: Meta{Mode: 0o644, Sec: int64(i)}}
	}
	return list
}
