package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	. "github.com/onsi/gomega"
)

// reference computes a content hash in the plainest way, from the specification.
func reference(content []byte) Hash {
	if len(content) == 0 {
		return Hash{}
	}
	if len(content) <= BlockSize {
		return sha256.Sum256(content)
	}
	text := binary.LittleEndian.AppendUint64([]byte("ws-daemon file v1\n"), uint64(len(content)))
	for i := 0; i*BlockSize < len(content); i++ {
		block := content[i*BlockSize : min((i+1)*BlockSize, len(content))]
		if bytes.Count(block, []byte{0}) == len(block) {
			continue
		}
		sum := sha256.Sum256(block)
		text = append(binary.LittleEndian.AppendUint64(text, uint64(i)), sum[:]...)
	}
	return sha256.Sum256(text)
}

// stretch is a part of a file: zeros, or bytes.
type stretch struct {
	hole bool
	n    int
}

func hashCases() map[string][]stretch {
	const b = BlockSize
	return map[string][]stretch{
		"empty":                  {},
		"a byte":                 {{false, 1}},
		"a zero":                 {{true, 1}},
		"zeros":                  {{true, 1000}},
		"a block":                {{false, b}},
		"a block of zeros":       {{true, b}},
		"a block and a byte":     {{false, b + 1}},
		"a byte beyond zeros":    {{true, b}, {false, 1}},
		"two blocks of zeros":    {{true, 2 * b}},
		"data, hole, data":       {{false, 100}, {true, 3*b + 17}, {false, 5}},
		"hole to the end":        {{false, b + 100}, {true, 2*b + 1}},
		"hole, data, hole":       {{true, 10}, {false, 10}, {true, 2 * b}},
		"hole ends with a block": {{true, 2 * b}, {false, b}},
		"hole in a block":        {{false, 10}, {true, 1000}, {false, 10}},
		"hole over a boundary":   {{false, b - 10}, {true, 20}, {false, b}},
	}
}

func bytesOf(list []stretch, r *rand.Rand) []byte {
	var content []byte
	for _, s := range list {
		part := make([]byte, s.n)
		for i := 0; !s.hole && i < s.n; i += 8 {
			copy(part[i:], binary.LittleEndian.AppendUint64(nil, r.Uint64()|1))
		}
		content = append(content, part...)
	}
	return content
}

func TestContentHash(t *testing.T) {
	for name, list := range hashCases() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			content := bytesOf(list, rand.New(rand.NewPCG(1, 2)))
			want := reference(content)
			g.Expect(byBlocks(content)).To(Equal(want), "by blocks, in any order")
			var f FileHasher
			for range 2 {
				f.Reset()
				at := 0
				for _, s := range list {
					if s.hole {
						f.Zeros(int64(s.n))
					} else {
						_, _ = f.Write(content[at : at+s.n])
					}
					at += s.n
				}
				g.Expect(f.Sum()).To(Equal(want), "from the beginning to the end, holes as holes")
			}
			for _, step := range []int{77_777, BlockSize - 1, BlockSize, 3 * BlockSize} {
				f.Reset()
				for rest := content; len(rest) > 0; {
					n := min(step, len(rest))
					_, _ = f.Write(rest[:n])
					rest = rest[n:]
				}
				g.Expect(f.Sum()).To(Equal(want), "holes as zeros, %d bytes at once", step)
			}
		})
	}
}

func byBlocks(content []byte) Hash {
	var c ContentHasher
	c.Add(99, Hash{1})
	c.Reset()
	for i := (len(content) - 1) / BlockSize; i >= 0 && len(content) > 0; i-- {
		if leaf, ok := HashBlock(content[i*BlockSize : min((i+1)*BlockSize, len(content))]); ok {
			c.Add(int64(i), leaf)
		}
	}
	return c.Sum(int64(len(content)))
}

func TestHugeHoleCostsNothing(t *testing.T) {
	g := NewWithT(t)
	var f FileHasher
	_, _ = f.Write([]byte("begin"))
	f.Zeros(1 << 60)
	_, _ = f.Write([]byte("end"))
	var c ContentHasher
	first := append([]byte("begin"), make([]byte, BlockSize-5)...)
	last := append(make([]byte, 5), "end"...)
	c.Add(0, sha256.Sum256(first))
	c.Add(1<<60/BlockSize, sha256.Sum256(last))
	g.Expect(f.Sum()).To(Equal(c.Sum(1<<60 + 8)))
}

func TestIsZero(t *testing.T) {
	g := NewWithT(t)
	g.Expect(IsZero(nil)).To(BeTrue())
	for _, n := range []int{1, 2, 7, 8, 63, 64, 65, 4096} {
		b := make([]byte, n)
		g.Expect(IsZero(b)).To(BeTrue())
		for i := range b {
			b[i] = 1
			g.Expect(IsZero(b)).To(BeFalse(), fmt.Sprint(n, i))
			b[i] = 0
		}
	}
}

func TestGroupOf(t *testing.T) {
	g := NewWithT(t)
	g.Expect(GroupOf("abc")).To(Equal(uint64(0xeacf018fbf1678ba)), "the first 8 bytes of SHA-256, little endian")
	g.Expect(GroupOf("a")).NotTo(Equal(GroupOf("b")))
}

func digestOf(pages ...*Page) Hash {
	d := NewDigester()
	for _, p := range pages {
		for i := range p.Dirs {
			d.Dir(&p.Dirs[i])
			for j := range p.Dirs[i].Entries {
				d.Entry(&p.Dirs[i].Entries[j])
			}
		}
	}
	return d.Sum()
}

func TestDigestDependsOnTheTreeAlone(t *testing.T) {
	want := digestOf(samplePage())
	entry := func(i int, change func(e *Entry)) func(*Page) {
		return func(p *Page) { change(&p.Dirs[0].Entries[i]) }
	}
	for name, c := range map[string]struct {
		change func(p *Page)
		same   bool
	}{
		"nothing":         {func(*Page) {}, true},
		"frames":          {func(p *Page) { p.Frames = nil }, true},
		"place":           {entry(1, func(e *Entry) { e.Frame, e.Off = 1, 99 }), true},
		"pieces":          {entry(9, func(e *Entry) { e.Extra.Pieces = nil }), true},
		"changed":         {entry(1, func(e *Entry) { e.Flags |= FlagChanged }), true},
		"unreadable meta": {entry(3, func(e *Entry) { e.Mode, e.Kind = 1, KindFIFO }), true},
		"empty extra":     {entry(1, func(e *Entry) { e.Extra = &Extra{Pieces: []Piece{}} }), true},
		"name":            {entry(1, func(e *Entry) { e.Name = "README.mD" }), false},
		"kind":            {entry(5, func(e *Entry) { e.Kind = KindWhiteout }), false},
		"unreadable":      {entry(1, func(e *Entry) { e.Flags = FlagUnreadable }), false},
		"unreadable name": {entry(3, func(e *Entry) { e.Name = "broken!" }), false},
		"mode":            {entry(1, func(e *Entry) { e.Mode = 0o640 }), false},
		"uid":             {entry(1, func(e *Entry) { e.UID++ }), false},
		"gid":             {entry(1, func(e *Entry) { e.GID++ }), false},
		"seconds":         {entry(1, func(e *Entry) { e.Sec++ }), false},
		"nanoseconds":     {entry(1, func(e *Entry) { e.Nsec-- }), false},
		"size":            {entry(1, func(e *Entry) { e.Size++ }), false},
		"hash":            {entry(1, func(e *Entry) { e.Hash[0]++ }), false},
		"target":          {entry(10, func(e *Entry) { e.Extra.Target = "x" }), false},
		"group":           {entry(6, func(e *Entry) { e.Extra.Group++ }), false},
		"xattr value":     {entry(2, func(e *Entry) { e.Extra.Xattrs = e.Extra.Xattrs[:2] }), false},
		"directory mode":  {func(p *Page) { p.Dirs[2].Mode = 0o755 }, false},
		"directory path":  {func(p *Page) { p.Dirs[2].Path = "dir/sux" }, false},
		"directory xattr": {func(p *Page) { p.Dirs[1].Extra = nil }, false},
		"entry gone":      {func(p *Page) { p.Dirs[2].Entries = nil }, false},
		"entry elsewhere": {func(p *Page) { p.Dirs[3].Entries, p.Dirs[2].Entries = p.Dirs[2].Entries, nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := samplePage()
			c.change(p)
			g.Expect(digestOf(p) == want).To(Equal(c.same))
		})
	}
}

func TestDigestDoesNotDependOnPages(t *testing.T) {
	g := NewWithT(t)
	files := manyEntries(5000)
	dirs := []Dir{{Entries: files}, {Path: "d", Entries: files[:3000]}, {Path: "d/e"}}
	frames := []Frame{}
	pages := cutPages(dirs, &frames)
	g.Expect(len(pages)).To(BeNumerically(">", 5))
	g.Expect(digestOf(pages...)).To(Equal(digestOf(&Page{Dirs: dirs})))
}
