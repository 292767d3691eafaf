package format

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestPageRoundTrip(t *testing.T) {
	deep := strings.TrimSuffix(strings.Repeat("d/", MaxPath/2), "/")
	many := func(n int) []Xattr {
		list := make([]Xattr, n)
		for i := range list {
			list[i] = Xattr{Name: fmt.Sprintf("user.%06d", i), Value: []byte{}}
		}
		return list
	}
	pieces := make([]Piece, MaxPieces)
	for i := range pieces {
		pieces[i] = Piece{At: int64(i) * 8192, Len: 4096, Hash: sumOf(fmt.Sprint(i))}
	}
	for name, p := range map[string]*Page{
		"everything": samplePage(),
		"the root":   {Dirs: []Dir{{}}},
		"a continued directory": {Dirs: []Dir{{Path: "a/b", Continued: true, Entries: manyEntries(2)},
			{Path: "a/b/c", Meta: Meta{Mode: 0o755}}, {Path: "a/c", Meta: Meta{UID: 1}}, {Path: "b"}}},
		"as many rows as there may be": {Dirs: []Dir{{Entries: manyEntries(MaxPageRows - 1)}}},
		"a deep path":                  {Dirs: []Dir{{Path: deep[:len(deep)-2]}, {Path: deep}}},
		"long names": {Dirs: []Dir{{Entries: []Entry{{Name: strings.Repeat("n", MaxName), Kind: KindFIFO},
			{Name: strings.Repeat("n", MaxName-1) + "o", Kind: KindFIFO}}}}},
		"a long target": {Dirs: []Dir{{Entries: []Entry{{Name: "l", Kind: KindSymlink,
			Meta: Meta{Extra: &Extra{Target: strings.Repeat("t", MaxTarget)}}}}}}},
		"large attributes": {Dirs: []Dir{{Meta: Meta{Extra: &Extra{Xattrs: slices.Repeat([]Xattr{{Name: "user.a",
			Value: make([]byte, MaxXattr)}}, 1)}}}}},
		"many attributes": {Dirs: []Dir{{Meta: Meta{Extra: &Extra{Xattrs: many(MaxXattrRows)}}}}},
		"many pieces": {Frames: smallFrames(4096), Dirs: []Dir{{Entries: []Entry{{Name: "f", Kind: KindFile, Size: MaxPieces * 8192,
			Hash: sumOf("f"), Meta: Meta{Extra: &Extra{Pieces: pieces}}}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			e, d := codecs(t)
			z, ref := encodePage(g, e, p)
			got, err := d.Page(nil, ref, z)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got.Dirs).To(HaveLen(len(p.Dirs)))
			expectEqualPages(g, got, p)
		})
	}
}

func smallFrames(raw uint32) []Frame {
	return []Frame{{Pack: testID(1), Offset: headerSize, Stored: 700, Raw: raw, Hash: sumOf("frame")}}
}

// expectEqualPages compares without printing megabytes where pages differ.
func expectEqualPages(g Gomega, got, want *Page) {
	g.Expect(got.Frames).To(HaveLen(len(want.Frames)))
	g.Expect(len(got.Frames) == 0 || reflect.DeepEqual(got.Frames, want.Frames)).To(BeTrue(), "frames")
	for i := range want.Dirs {
		w := want.Dirs[i]
		if w.Entries == nil {
			w.Entries = []Entry{}
		}
		g.Expect(reflect.DeepEqual(got.Dirs[i], w)).To(BeTrue(), "directory %.100q", w.Path)
	}
}

func TestEqualPagesHaveEqualBytes(t *testing.T) {
	g := NewWithT(t)
	fresh, _ := codecs(t)
	want, _ := encodePage(g, fresh, samplePage())
	used, _ := codecs(t)
	used.Compress(nil, bytes.Repeat([]byte("README.md"), 1<<20))
	for range 3 {
		encodePage(g, used, &Page{Dirs: []Dir{{Entries: manyEntries(1000)}}})
		got, _ := encodePage(g, used, samplePage())
		g.Expect(got).To(Equal(want))
	}
	// Frames of the rest of the tree change nothing.
	p := samplePage()
	p.Frames = append(make([]Frame, 5), p.Frames...)
	for i := range p.Dirs {
		for j := range p.Dirs[i].Entries {
			e := &p.Dirs[i].Entries[j]
			if e.Hash != (Hash{}) && e.pieces() == nil {
				e.Frame += 5
			}
			for k := range e.pieces() {
				e.Extra.Pieces[k].Frame += 5
			}
		}
	}
	got, _ := encodePage(g, used, p)
	g.Expect(got).To(Equal(want))
}

func TestEncodePageWritesNothingThatCannotBeRead(t *testing.T) {
	e, _ := codecs(t)
	for name, c := range badPages() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := smallPage()
			c.change(p)
			_, _, err := e.Page(nil, p)
			g.Expect(err).To(MatchError(ContainSubstring(c.message)))
			g.Expect(err).NotTo(MatchError(ErrDamaged), "the page is not stored, so it is not damaged")
		})
	}
}

func TestDecodePageRefusesWhatBreaksARule(t *testing.T) {
	for name, c := range badPages() {
		if c.unwritable {
			continue
		}
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := smallPage()
			c.change(p)
			e, _ := codecs(t)
			_, err := DecodePage(e.page.write(p))
			g.Expect(err).To(MatchError(ErrDamaged))
		})
	}
}

type badPage struct {
	change     func(p *Page)
	message    string
	unwritable bool // there are no bytes that mean it
}

func badPages() map[string]badPage {
	first := func(change func(e *Entry)) func(*Page) { return func(p *Page) { change(&p.Dirs[0].Entries[0]) } }
	named := func(name string) func(*Page) { return first(func(e *Entry) { e.Name = name }) }
	path := func(path string) func(*Page) { return func(p *Page) { p.Dirs[1].Path = path } }
	pieces := func(list ...Piece) func(*Page) {
		return first(func(e *Entry) { e.Size, e.Extra = 100, &Extra{Pieces: list} })
	}
	xattrs := func(list ...Xattr) func(*Page) { return first(func(e *Entry) { e.Extra = &Extra{Xattrs: list} }) }
	link := func(target string) func(*Page) {
		return first(func(e *Entry) { *e = Entry{Name: "a", Kind: KindSymlink, Meta: Meta{Extra: &Extra{Target: target}}} })
	}
	return map[string]badPage{
		"no directory":               {func(p *Page) { p.Dirs = nil }, "0 directories", false},
		"too many rows":              {func(p *Page) { p.Dirs[0].Entries = manyEntries(MaxPageRows) }, "rows", false},
		"empty name":                 {named(""), "cannot come after", false},
		"name with slash":            {named("a/b"), "cannot come after", false},
		"name .":                     {named("."), "cannot come after", false},
		"name ..":                    {named(".."), "cannot come after", false},
		"long name":                  {named(strings.Repeat("a", MaxName+1)), "cannot come after", true},
		"name with NUL":              {named("a\x00"), "cannot come after", false},
		"names out of order":         {named("c"), "cannot come after", false},
		"name twice":                 {named("b"), "cannot come after", false},
		"directory twice":            {path(""), "cannot come after", false},
		"directory with empty name":  {path("d/"), "cannot come after", false},
		"directory without parent":   {path("d/e"), "cannot come after", false},
		"absolute path":              {path("/d"), "cannot come after", false},
		"path with ..":               {path(".."), "no valid name", false},
		"path with NUL":              {path("d\x00"), "no valid name", false},
		"path with a long name":      {path(strings.Repeat("d", MaxName+1)), "no valid name", false},
		"long path":                  {func(p *Page) { p.Dirs[0].Path = strings.Repeat("d/", MaxPath/2) + "d" }, "no valid path", false},
		"bad first path":             {func(p *Page) { p.Dirs[0].Path = "a/../b" }, "no valid path", false},
		"first path ends with slash": {func(p *Page) { p.Dirs[0].Path = "a/" }, "no valid path", false},
		"continued in the middle":    {func(p *Page) { p.Dirs[1].Continued = true }, "not well continued", false},
		"continued and empty":        {func(p *Page) { p.Dirs = []Dir{{Path: "d", Continued: true}} }, "not well continued", false},
		"continued with attributes": {func(p *Page) { p.Dirs[0].Continued, p.Dirs[0].Mode = true, 1 },
			"not well continued", true},
		"directory with target":     {func(p *Page) { p.Dirs[1].Extra = &Extra{Target: "t"} }, "attributes of an entry", false},
		"directory with group":      {func(p *Page) { p.Dirs[1].Extra = &Extra{Group: 1} }, "attributes of an entry", false},
		"directory with pieces":     {func(p *Page) { p.Dirs[1].Extra = &Extra{Pieces: []Piece{}} }, "attributes of an entry", false},
		"mode":                      {first(func(e *Entry) { e.Mode = 0o20000 }), "mode or time", false},
		"nanoseconds":               {first(func(e *Entry) { e.Nsec = 1e9 }), "mode or time", false},
		"no kind":                   {first(func(e *Entry) { e.Kind = 0 }), "unknown", false},
		"unknown flag":              {first(func(e *Entry) { e.Flags = 4 }), "unknown", true},
		"unreadable with content":   {first(func(e *Entry) { e.Flags = FlagUnreadable }), "content although", true},
		"FIFO with size":            {first(func(e *Entry) { e.Kind = KindFIFO }), "content although", true},
		"empty file with hash":      {first(func(e *Entry) { e.Size = 0 }), "content although", true},
		"negative size":             {first(func(e *Entry) { e.Size = -1 }), "not in its frame", false},
		"one piece beyond a block":  {first(func(e *Entry) { e.Size = BlockSize + 1 }), "not in its frame", false},
		"content beyond its frame":  {first(func(e *Entry) { e.Off = 41 }), "not in its frame", false},
		"unknown frame":             {first(func(e *Entry) { e.Frame = 1 }), "not in its frame", true},
		"pieces and a place":        {first(func(e *Entry) { e.Off, e.Extra = 1, &Extra{Pieces: []Piece{}} }), "size or place", true},
		"empty piece":               {pieces(Piece{Len: 0}), "out of place", false},
		"large piece":               {pieces(Piece{Len: BlockSize + 1}), "out of place", false},
		"piece beyond the size":     {pieces(Piece{At: 50, Len: 51}), "out of place", false},
		"piece beyond its frame":    {pieces(Piece{Off: 60, Len: 41}), "out of place", false},
		"pieces overlap":            {pieces(Piece{Len: 10}, Piece{At: 9, Len: 1}), "out of place", false},
		"piece at a negative place": {pieces(Piece{At: -1, Len: 1}), "out of place", false},
		"attributes out of order":   {xattrs(Xattr{Name: "b"}, Xattr{Name: "a"}), "extended attribute", false},
		"attribute twice":           {xattrs(Xattr{Name: "a"}, Xattr{Name: "a"}), "extended attribute", false},
		"attribute without name":    {xattrs(Xattr{}), "extended attribute", false},
		"attribute with NUL":        {xattrs(Xattr{Name: "a\x00b"}), "extended attribute", false},
		"long attribute name":       {xattrs(Xattr{Name: strings.Repeat("a", 256)}), "extended attribute", false},
		"large attribute":           {xattrs(Xattr{Name: "a", Value: make([]byte, MaxXattr+1)}), "extended attribute", false},
		"large attributes":          {xattrs(manyXattrs(17)...), "too large", false},
		"empty target":              {link(""), "target", false},
		"long target":               {link(strings.Repeat("t", MaxTarget+1)), "target", false},
		"target with NUL":           {link("a\x00b"), "target", false},
		"file with target":          {first(func(e *Entry) { e.Extra = &Extra{Target: "t"} }), "target", false},
	}
}

func manyXattrs(n int) []Xattr {
	list := make([]Xattr, n)
	for i := range list {
		list[i] = Xattr{Name: fmt.Sprintf("user.%02d", i), Value: make([]byte, MaxXattr)}
	}
	return list
}

func TestDecodePageSaysThatItIsNewer(t *testing.T) {
	e, _ := codecs(t)
	for name, change := range map[string]func(raw []byte) []byte{
		"version":  func(raw []byte) []byte { raw[0] = 2; return raw },
		"features": func(raw []byte) []byte { raw[1] = 4; return raw },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := DecodePage(change(bytes.Clone(e.page.write(smallPage()))))
			g.Expect(err).To(MatchError(ErrUnsupported))
		})
	}
	t.Run("kind", func(t *testing.T) {
		g := NewWithT(t)
		p := smallPage()
		p.Dirs[0].Entries[0].Kind = 5
		_, err := DecodePage(e.page.write(p))
		g.Expect(err).To(MatchError(ErrUnsupported))
	})
}

func TestDecodePagePassesOverIgnorableColumns(t *testing.T) {
	g := NewWithT(t)
	e, _ := codecs(t)
	e.page.write(smallPage())
	counts := []uint64{1, 1, 2, 0, 2, 3}
	raw := appendColumns(nil, counts, append(e.page.cols, []byte("something new")))
	_, err := DecodePage(raw)
	g.Expect(err).To(MatchError(ErrDamaged), "without the bit it is a mistake")
	raw[2] = 1
	p, err := DecodePage(raw)
	g.Expect(err).NotTo(HaveOccurred())
	expectEqualPages(g, p, smallPage())
}

func TestPageIsTheOneOfTheTable(t *testing.T) {
	e, d := codecs(t)
	z, good := encodePage(NewWithT(t), e, smallPage())
	for name, change := range map[string]func(r *PageRef){
		"path":     func(r *PageRef) { r.First = "x" },
		"rows":     func(r *PageRef) { r.Entries++ },
		"hash":     func(r *PageRef) { r.Frame.Hash[0]++ },
		"raw size": func(r *PageRef) { r.Frame.Raw++ },
		"too raw":  func(r *PageRef) { r.Frame.Raw = MaxPageRaw + 1 },
		"offset":   func(r *PageRef) { r.Frame.Offset = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			ref := good
			change(&ref)
			_, err := d.Page(nil, ref, z)
			g.Expect(err).To(MatchError(ErrDamaged))
		})
	}
}

func TestFollows(t *testing.T) {
	page := func(dirs ...Dir) *Page { return &Page{Dirs: dirs} }
	files := manyEntries(4)
	ab := page(Dir{Path: "a"}, Dir{Path: "a/b", Entries: files[:2]})
	for name, c := range map[string]struct {
		prev, next *Page
		ok         bool
	}{
		"the root begins":              {nil, page(Dir{}), true},
		"another directory begins":     {nil, page(Dir{Path: "a"}), false},
		"a continued root begins":      {nil, page(Dir{Continued: true, Entries: files}), false},
		"a child":                      {ab, page(Dir{Path: "a/b/c"}), true},
		"a brother":                    {ab, page(Dir{Path: "a/c"}), true},
		"an uncle":                     {ab, page(Dir{Path: "b"}), true},
		"an uncle with a longer name":  {ab, page(Dir{Path: "a!"}), true},
		"an older brother":             {ab, page(Dir{Path: "a/a"}), false},
		"a grandchild":                 {ab, page(Dir{Path: "a/b/c/d"}), false},
		"itself":                       {ab, page(Dir{Path: "a/b"}), false},
		"a nephew of nobody":           {ab, page(Dir{Path: "a/bb/c"}), false},
		"continued":                    {ab, page(Dir{Path: "a/b", Continued: true, Entries: files[2:]}), true},
		"continued with an entry back": {ab, page(Dir{Path: "a/b", Continued: true, Entries: files[1:]}), false},
		"another one continued":        {ab, page(Dir{Path: "a/c", Continued: true, Entries: files[2:]}), false},
		"continued after no entry":     {page(Dir{Path: "a"}), page(Dir{Path: "a", Continued: true, Entries: files}), true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := c.next.Follows(c.prev)
			if c.ok {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ErrDamaged))
		})
	}
}

func TestComparePathsOrdersByComponent(t *testing.T) {
	g := NewWithT(t)
	ordered := []string{"", "\x01", "a", "a/b", "a/b/c", "a/b\x01", "a\x01", "a!", "ab", "ab/c", "b", "b/\xff", "\xff"}
	shuffled := slices.Clone(ordered)
	slices.Reverse(shuffled)
	slices.SortFunc(shuffled, ComparePaths)
	g.Expect(shuffled).To(Equal(ordered))
	g.Expect(ComparePaths("a/b", "a/b")).To(BeZero())
}
