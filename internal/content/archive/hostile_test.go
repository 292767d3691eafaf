package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// place returns an empty directory with a canary beside it.
func place(tb testing.TB) (dir, outside string) {
	tb.Helper()
	base := tb.TempDir()
	dir, outside = filepath.Join(base, "in"), filepath.Join(base, "outside")
	sh(tb, base, `mkdir -m 700 in; mkdir outside; echo alive >outside/canary`)
	return dir, outside
}

func withXattr(name string) format.Meta {
	return format.Meta{Extra: &format.Extra{Xattrs: []format.Xattr{{Name: name, Value: []byte("v")}}}}
}

func (b *builder) node(e format.Entry) *builder {
	b.entry(e)
	b.contents[b.path(e.Name)] = nil
	return b
}

// replaceRaw changes encoded pages, as no encoder would.
func replaceRaw(from, to string) func([]byte) []byte {
	return func(raw []byte) []byte { return bytes.ReplaceAll(raw, []byte(from), []byte(to)) }
}

// hostile are backups that nobody could have made of a tree, by what the error says. OUTSIDE is a directory of somebody else.
var hostile = map[string]struct {
	make func(b *builder)
	err  string
}{
	"dot dot":             {func(b *builder) { b.file("@@", "evil").raw = replaceRaw("@@", "..") }, "damaged"},
	"dot":                 {func(b *builder) { b.file("@", "evil").raw = replaceRaw("@", ".") }, "damaged"},
	"dot dot inside":      {func(b *builder) { b.file("@@@@@@@", "evil").raw = replaceRaw("@@@@@@@", "../evil") }, "damaged"},
	"absolute":            {func(b *builder) { b.file("@evil", "evil").raw = replaceRaw("@evil", "/evil") }, "damaged"},
	"zero byte":           {func(b *builder) { b.file("@evil", "evil").raw = replaceRaw("@evil", "\x00evil") }, "damaged"},
	"directory dot dot":   {func(b *builder) { b.dir("@@", format.Meta{}).file("evil", "evil").raw = replaceRaw("@@", "..") }, "damaged"},
	"directory absolute":  {func(b *builder) { b.dir("@@@@", format.Meta{}).raw = replaceRaw("@@@@", "/etc") }, "damaged"},
	"duplicate entry":     {func(b *builder) { b.file("d@", "1").file("dA", "2").raw = replaceRaw("@", "A") }, "damaged"},
	"duplicate directory": {func(b *builder) { b.dir("a", format.Meta{}).dir("a", format.Meta{}).pageRows = 2 }, "directory a is there twice"},
	"no parent":           {func(b *builder) { b.dir("a/b", format.Meta{}).pageRows = 1 }, "directory a/b has no parent"},
	"parent of another":   {func(b *builder) { b.dir("a", format.Meta{}).dir("b/c", format.Meta{}).pageRows = 1 }, "directory b/c has no parent"},
	"parent is a beginning": {func(b *builder) {
		b.dir("ab", format.Meta{}).dir("a/c", format.Meta{}).pageRows = 1
		b.dirs[1], b.dirs[2] = b.dirs[2], b.dirs[1]
	}, "directory a/c has no parent"},
	"goes on without begin": {func(b *builder) {
		b.file("z", "").dir("a", format.Meta{}).file("x", "").pageRows = 2
		b.dirs[1] = format.Dir{Path: "a", Continued: true, Entries: b.dirs[1].Entries}
	}, "directory a goes on without having begun"},
	"goes on with the same": {func(b *builder) {
		b.file("x", "").dir("", format.Meta{}).file("x", "").pageRows = 2
		b.dirs[1] = format.Dir{Continued: true, Entries: b.dirs[1].Entries}
	}, "x is not in order"},
	"link as a parent": {func(b *builder) { b.symlink("a", "OUTSIDE").dir("a", format.Meta{}).file("evil", "evil") }, "a is a directory and something else"},
	"relative link":    {func(b *builder) { b.symlink("a", "../outside").dir("a", format.Meta{}).file("evil", "evil") }, "a is a directory and something else"},
	"link deep as a parent": {func(b *builder) {
		b.dir("d", format.Meta{}).symlink("a", "OUTSIDE").dir("d/a", format.Meta{}).file("evil", "evil")
	}, "d/a is a directory and something else"},
	"file as a parent":      {func(b *builder) { b.file("a", "1").dir("a", format.Meta{}).file("evil", "evil") }, "a is a directory and something else"},
	"same, in another page": {func(b *builder) { b.file("a", "1").dir("a", format.Meta{}).pageRows = 1 }, "a is a directory and something else"},
	"link without a first":  {func(b *builder) { b.file("b", "1").dirs[0].Entries[0].Extra = &format.Extra{Group: 5} }, "b: it is a hard link, but the first name of the file is missing"},
	"link to a later name":  {func(b *builder) { b.file("b", "1").file("c", "1"); b.group("c", 0, 1) }, "b: it is a hard link, but the first name of the file is missing"},
	"link cycle":            {func(b *builder) { b.file("b", "1").file("c", "1"); b.group("c", 0); b.group("b", 1) }, "b: it is a hard link"},
	"link to a directory":   {func(b *builder) { b.file("x", "1").group("d", 0); b.dir("d", format.Meta{}) }, "x: it is a hard link"},
	"link to other content": {func(b *builder) { b.file("b", "1").file("c", "2"); b.group("b", 0, 1) }, "c: it should be the same file as b"},
	"link to other kind": {func(b *builder) {
		b.file("b", "").node(format.Entry{Name: "c", Kind: format.KindFIFO})
		b.group("b", 0, 1)
	}, "c: it should be the same file as b"},
	"link to other mode":     {func(b *builder) { b.file("b", "1").file("c", "1").entries()[1].Mode = 0o4755; b.group("b", 0, 1) }, "c: it should be the same file as b"},
	"trusted attribute":      {func(b *builder) { b.node(format.Entry{Name: "f", Meta: withXattr("trusted.overlay.redirect")}) }, `write f: attribute "trusted.overlay.redirect" does not belong`},
	"security attribute":     {func(b *builder) { b.node(format.Entry{Name: "f", Meta: withXattr("security.selinux")}) }, `write f: attribute "security.selinux" does not belong`},
	"attribute of directory": {func(b *builder) { b.dir("d", withXattr("trusted.x")) }, `attributes of d: attribute "trusted.x" does not belong`},
	"attribute of root":      {func(b *builder) { b.dirs[0].Extra = withXattr("trusted.x").Extra }, `attributes of the root: attribute "trusted.x" does not belong`},
	"attribute of a link": {func(b *builder) {
		b.node(format.Entry{Name: "l", Kind: format.KindSymlink, Meta: withXattr("user.x")}).entries()[0].Extra.Target = "t"
	}, "write l: a symbolic link has no extended attributes"},
	"attribute too large": {func(b *builder) { b.node(format.Entry{Name: "f", Meta: largeXattr()}) }, "write f: set attribute"},
	"no owner":            {func(b *builder) { b.node(format.Entry{Name: "f", Meta: format.Meta{UID: 1<<32 - 1}}) }, "write f: "},
	"no group":            {func(b *builder) { b.dir("d", format.Meta{GID: 1<<32 - 1}) }, "set attributes of d: "},
	"no owner of a link":  {func(b *builder) { b.symlink("l", "t").entries()[0].UID = 1<<32 - 1 }, "write l: "},
	"larger than can be": {func(b *builder) {
		b.edit = func(p *format.Page) { p.Dirs[0].Entries = []format.Entry{huge(1<<63 - 1)} }
	}, "write huge: set size"},
}

func largeXattr() format.Meta {
	m := withXattr("user.large")
	m.Extra.Xattrs[0].Value = bytes.Repeat([]byte("x"), 60<<10) // more than a block of ext4
	return m
}

func huge(size int64) format.Entry {
	return format.Entry{Name: "huge", Kind: format.KindFile, Size: size, Hash: format.Hash{1}, Meta: format.Meta{Mode: 0o600, Extra: &format.Extra{Pieces: []format.Piece{}}}}
}

// group makes the entries of the last directory names of the file that is first there.
func (b *builder) group(first string, entries ...int) {
	for _, i := range entries {
		b.entries()[i].Extra = &format.Extra{Group: format.GroupOf(first)}
	}
}

func TestS6_HostileBackupsAreRefused(t *testing.T) {
	for name, tt := range hostile {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, outside := place(t)
			before := independentWalk(t, outside)
			b := build(t).dir("", format.Meta{})
			tt.make(b)
			for i := range b.dirs {
				for j := range b.dirs[i].Entries {
					if x := b.dirs[i].Entries[j].Extra; x != nil {
						x.Target = strings.Replace(x.Target, "OUTSIDE", outside, 1)
					}
				}
			}
			root := b.root(format.BlockSize)
			for _, salvage := range []bool{false, true} {
				sh(t, filepath.Dir(dir), `rm -r in; mkdir -m 700 in`)
				_, index, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Salvage: salvage, HashContent: true})
				if salvage {
					_ = err // it may live with it, but must not harm
				} else {
					g.Expect(err).To(MatchError(ContainSubstring(tt.err)))
					g.Expect(index).To(BeNil())
				}
				expectEqualTrees(t, before, independentWalk(t, outside))
				g.Expect(os.ReadDir(filepath.Dir(dir))).To(HaveLen(2))
			}
		})
	}
}

// A hole costs nothing, however large the file says it is.
func TestS6_FidelityOfHugeHoles(t *testing.T) {
	g := NewWithT(t)
	b := build(t).dir("", format.Meta{}).file("z", "1")
	b.edit = func(p *format.Page) {
		var h format.FileHasher
		h.Zeros(1 << 43)
		e := huge(1 << 43)
		e.Hash = h.Sum()
		p.Dirs[0].Entries = append([]format.Entry{e}, p.Dirs[0].Entries...)
	}
	root := b.root(format.BlockSize)
	dir := t.TempDir()
	report, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, HashContent: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Bytes).To(BeEquivalentTo(1<<43 + 1))
	g.Expect(archive.Verify(t.Context(), root, b.store, nil, true, nil)).To(Succeed())
}

// Symbolic links are made last, and nothing is written through them.
func TestS6_LinksAreNotFollowed(t *testing.T) {
	g := NewWithT(t)
	dir, outside := place(t)
	b := build(t).dir("", format.Meta{}).symlink("a", outside).file("b", "x").linked("b", "c").symlink("d", outside+"/canary").
		dir("e", format.Meta{}).symlink("up", "..")
	root := b.root(format.BlockSize)
	_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.ReadFile(filepath.Join(outside, "canary"))).To(Equal([]byte("alive\n")))
	g.Expect(independentWalk(t, dir)["a"].Target).To(Equal(outside))
}

// deep is a tree of one directory in another.
func deep(tb testing.TB, levels, name int) *builder {
	tb.Helper()
	b := build(tb).dir("", format.Meta{})
	path := ""
	for i := range levels {
		path = strings.TrimPrefix(path+"/"+strings.Repeat("n", name), "/")
		b.dir(path, format.Meta{Mode: 0o700 | uint16(i%64), Sec: int64(i)})
		if i%1000 == 999 || i == levels-1 {
			b.file("file", fmt.Sprint(i)).symlink("link", "x").linked(path+"/file", "more")
		}
	}
	return b
}

func TestDeepTree(t *testing.T) {
	for _, tt := range []struct{ levels, name int }{{1000, 255}, {6000, 1}, {16, 255}, {40, 100}} {
		t.Run(fmt.Sprintf("%d of %d", tt.levels, tt.name), func(t *testing.T) {
			g := NewWithT(t)
			b := deep(t, tt.levels, tt.name)
			root := b.root(format.BlockSize)
			var most int
			b.store.before = func() error { most = max(most, openDescriptors(t)); return nil }
			dir, report, index := restore(t, root, b.store, nil)
			b.store.before = nil
			g.Expect(report.Dirs).To(BeEquivalentTo(tt.levels + 1))
			g.Expect(most).To(BeNumerically("<", 1024))
			read, err := archive.Digest(t.Context(), dir, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(read.Digest).To(Equal(report.Digest))
			again := create(t, dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &root, Index: index})
			g.Expect(again.Report.Digest).To(Equal(report.Digest))
			if !again.Unchanged { // a clock of whole ticks stood at a whole second: that is not trusted, and Create cuts other pages than the builder
				again = create(t, dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &again.Root, Index: again.Index})
			}
			g.Expect(again.Unchanged).To(BeTrue())
			sh(t, filepath.Dir(dir), `rm -rf `+filepath.Base(dir)+`/*`)
		})
	}
}

func TestRestoreLeaksNothing(t *testing.T) {
	g := NewWithT(t)
	b := deep(t, 500, 100)
	root := b.root(format.BlockSize)
	before := openDescriptors(t)
	for range 3 {
		dir, _, _ := restore(t, root, b.store, nil)
		_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store})
		g.Expect(err).To(MatchError(ContainSubstring("not empty")))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err = archive.Restore(ctx, root, t.TempDir(), archive.RestoreOptions{Source: b.store})
		g.Expect(err).To(MatchError(context.Canceled))
	}
	g.Expect(openDescriptors(t)).To(Equal(before))
}

// FuzzRestore restores pages that were put together at random. Whatever they say, nothing outside is touched, and what is
// restored is what the pages say.
func FuzzRestore(f *testing.F) {
	for _, b := range []*builder{small(f), deep(f, 20, 5), build(f).dir("", format.Meta{}).symlink("a", "/").symlink("b", "..").dir("c", format.Meta{}).symlink("d", "../..")} {
		b.raw = func(raw []byte) []byte { f.Add(raw); return raw }
		b.root(format.BlockSize)
	}
	store := newPackStore()
	enc, err := format.NewEncoder()
	NewWithT(f).Expect(err).NotTo(HaveOccurred())
	content := &packing{b: &builder{t: f, store: store}, enc: enc}
	content.begin()
	data := []byte(text(format.BlockSize))
	frame := content.add(format.FrameData, len(data), enc.Compress(nil, data))
	content.finish()
	f.Fuzz(func(t *testing.T, raw []byte) {
		page, err := format.DecodePage(raw)
		if err != nil || page.Follows(nil) != nil {
			return
		}
		for i := range page.Frames {
			page.Frames[i] = frame
		}
		p := &packing{b: &builder{t: t, store: store}, enc: enc, packs: content.packs}
		p.begin()
		z, size, err := enc.Page(nil, page)
		if err != nil {
			return
		}
		digest := format.NewDigester()
		for i := range page.Dirs {
			digest.Dir(&page.Dirs[i])
			for j := range page.Dirs[i].Entries {
				digest.Entry(&page.Dirs[i].Entries[j])
			}
		}
		ref := page.Ref(p.add(format.FramePage, size, z))
		p.finish()
		table, err := enc.Table(nil, []format.PageRef{ref})
		g := NewWithT(t)
		g.Expect(err).NotTo(HaveOccurred())
		dir, outside := place(t)
		before := independentWalk(t, outside)
		report, _, err := archive.Restore(t.Context(), archive.Root{Table: table, Packs: p.packs, Digest: digest.Sum()}, dir, archive.RestoreOptions{Source: store})
		expectEqualTrees(t, before, independentWalk(t, outside))
		g.Expect(os.ReadDir(filepath.Dir(dir))).To(HaveLen(2))
		if err == nil {
			g.Expect(report.Dirs).To(BeEquivalentTo(len(page.Dirs)))
		}
	})
}
