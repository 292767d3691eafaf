package format

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestPathHashIsFNV1a(t *testing.T) {
	g := NewWithT(t)
	for _, path := range []string{"", "a", "a/b", "node_modules/@types/node", "\xff/\x00"} {
		h := fnv.New64a()
		_, _ = h.Write([]byte(path))
		g.Expect(uint64(HashPath(path))).To(Equal(h.Sum64()))
		walked := RootHash
		for name := range strings.SplitSeq(path, "/") {
			walked = walked.Child(name)
		}
		g.Expect(uint64(walked)).To(Equal(h.Sum64()))
	}
	begins := func(path, name string) bool {
		h := fnv.New64a()
		_, _ = h.Write([]byte(path + "\x00" + name))
		return h.Sum64()&0xff == 0
	}
	for i := range 2000 {
		path, name := fmt.Sprint("dir", i%7), fmt.Sprint("file", i)
		g.Expect(HashPath(path).cuts(name)).To(Equal(begins(path, name)))
	}
}

// pagesOf cuts a tree and checks that every page can be written and follows the one before.
func pagesOf(t *testing.T, dirs []Dir) []string {
	t.Helper()
	g := NewWithT(t)
	e, _ := codecs(t)
	frames := smallFrames(BlockSize)
	var list []string
	var prev *Page
	for _, p := range cutPages(dirs, &frames) {
		g.Expect(p.Follows(prev)).To(Succeed())
		prev = p
		z, _, err := e.Page(nil, p)
		g.Expect(err).NotTo(HaveOccurred())
		list = append(list, string(z))
	}
	return list
}

func wideTree() []Dir {
	dirs := []Dir{{Entries: manyEntries(3000)}}
	for i := range 400 {
		dirs = append(dirs, Dir{Path: fmt.Sprintf("d%04d", i), Entries: manyEntries(i % 40)})
	}
	return dirs
}

func TestPagesHaveTheirSize(t *testing.T) {
	g := NewWithT(t)
	frames := []Frame{}
	dirs := wideTree()
	rows, pages := 0, cutPages(dirs, &frames)
	for _, p := range pages {
		g.Expect(p.Rows()).To(BeNumerically("<=", MaxPageRows))
		rows += p.Rows()
	}
	g.Expect(rows / len(pages)).To(And(BeNumerically(">", 200), BeNumerically("<", 450)))
	pagesOf(t, dirs)
}

func TestEditChangesFewPages(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(dirs []Dir)
		most int // pages that are new
	}{
		"attributes": {func(d []Dir) { d[0].Entries[1500].Mode = 0o600 }, 1},
		"content":    {func(d []Dir) { d[200].Entries[3].Size, d[200].Entries[3].Hash = 5, sumOf("x") }, 1},
		"new file": {func(d []Dir) {
			d[0].Entries = slices.Insert(d[0].Entries, 1500, Entry{Name: "file-0001499.txt~", Kind: KindFile})
		}, 3},
		"removed file":      {func(d []Dir) { d[0].Entries = slices.Delete(d[0].Entries, 1500, 1501) }, 3},
		"removed directory": {func(d []Dir) { copy(d[200:], d[201:]); d[len(d)-1].Path = "z" }, 4},
		"extended attribute": {func(d []Dir) {
			d[200].Entries[0].Extra = &Extra{Xattrs: []Xattr{{Name: "user.a", Value: make([]byte, MaxXattr)}}}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := map[string]bool{}
			for _, z := range pagesOf(t, wideTree()) {
				before[z] = true
			}
			dirs := wideTree()
			c.edit(dirs)
			fresh := 0
			for _, z := range pagesOf(t, dirs) {
				if !before[z] {
					fresh++
				}
			}
			g.Expect(fresh).To(And(BeNumerically(">=", 1), BeNumerically("<=", c.most)))
		})
	}
}

func TestPagesStayWithinTheirLimits(t *testing.T) {
	deep := strings.Repeat("d/", 4000)
	entries := func(n int, x func(i int) *Extra) []Entry {
		list := manyEntries(n)
		for i := range list {
			list[i].Extra = x(i)
		}
		return list
	}
	xattrs := func(n, size int) *Extra {
		x := &Extra{}
		for i := range n {
			x.Xattrs = append(x.Xattrs, Xattr{Name: fmt.Sprintf("user.%05d", i), Value: make([]byte, size)})
		}
		return x
	}
	pieces := &Extra{Pieces: make([]Piece, MaxPieces/2)}
	for i := range pieces.Pieces {
		pieces.Pieces[i] = Piece{At: int64(i) * 2, Len: 1}
	}
	large := entries(5, func(int) *Extra { return pieces })
	for i := range large {
		large[i].Size = MaxPieces
	}
	chain := []Dir{{}}
	for path := "c"; len(path) < 4000; path += "/c" {
		chain = append(chain, Dir{Path: path})
	}
	siblings := []Dir{{}}
	for path := "s"; len(path) <= 20_000; path += "/s" {
		siblings = append(siblings, Dir{Path: path})
	}
	for i := range 100 {
		siblings = append(siblings, Dir{Path: fmt.Sprintf("%s/x%03d", siblings[len(siblings)-1-i].Path, i)})
	}
	for name, dirs := range map[string][]Dir{
		"one directory":                 {{Entries: manyEntries(20_000)}},
		"a chain of directories":        chain,
		"many directories deep down":    siblings,
		"large attributes":              {{Entries: entries(12, func(int) *Extra { return xattrs(15, MaxXattr) })}},
		"many attributes":               {{Entries: entries(100, func(int) *Extra { return xattrs(3000, 0) })}},
		"a directory has the most":      {{Meta: Meta{Extra: xattrs(MaxXattrRows, 0)}, Entries: entries(3, func(int) *Extra { return xattrs(1, 1) })}},
		"many pieces":                   {{Entries: large}},
		"continued directory deep down": append(parents(deep), Dir{Path: deep + "end", Entries: manyEntries(3000)}),
	} {
		t.Run(name, func(t *testing.T) { pagesOf(t, dirs) })
	}
}

// parents are the directories above a path that ends with a slash.
func parents(deep string) []Dir {
	dirs := []Dir{{}}
	for i := range len(deep) {
		if deep[i] == '/' {
			dirs = append(dirs, Dir{Path: deep[:i]})
		}
	}
	return dirs
}
