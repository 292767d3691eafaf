package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

func TestList(t *testing.T) {
	tests := []struct {
		path      string
		recursive bool
		want      []string
		err       string
	}{
		{path: "", want: []string{"./", "a", "b", "c", "d", "p", "sub/"}},
		{path: ".", want: []string{"./", "a", "b", "c", "d", "p", "sub/"}},
		{path: "", recursive: true, want: []string{"./", "a", "b", "c", "d", "p", "sub/", "sub/x", "sub/y", "sub/z", "sub/deep/", "sub/deep/last"}},
		{path: "a", want: []string{"a"}},
		{path: "sub", want: []string{"sub/", "sub/x", "sub/y", "sub/z", "sub/deep/"}},
		{path: "./sub/", recursive: true, want: []string{"sub/", "sub/x", "sub/y", "sub/z", "sub/deep/", "sub/deep/last"}},
		{path: "sub/deep", want: []string{"sub/deep/", "sub/deep/last"}},
		{path: "sub/deep/last", recursive: true, want: []string{"sub/deep/last"}},
		{path: "none", err: "there is no none in the backup"},
		{path: "a/b", err: "there is no a/b in the backup"},
		{path: "../a", err: "is not one within a backup"},
	}
	for _, rows := range []int{1, 2, 5, 200} {
		b := small(t)
		b.pageRows = rows
		root := b.root(format.BlockSize)
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%q/recursive=%v/pages of %d", tt.path, tt.recursive, rows), func(t *testing.T) {
				g := NewWithT(t)
				var found []string
				err := archive.List(t.Context(), root, b.store, nil, tt.path, tt.recursive, func(r archive.Row) error {
					name := r.Path
					if r.Dir {
						name += "/"
					}
					if r.Path == "" {
						name = "./"
					}
					found = append(found, name)
					return nil
				})
				if tt.err != "" {
					g.Expect(err).To(MatchError(ContainSubstring(tt.err)))
					return
				}
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(found).To(Equal(tt.want))
			})
		}
	}
}

func TestListTellsAttributes(t *testing.T) {
	g := NewWithT(t)
	b := small(t)
	root := b.root(format.BlockSize)
	rows := map[string]archive.Row{}
	g.Expect(archive.List(t.Context(), root, b.store, nil, "", true, func(r archive.Row) error { rows[r.Path] = r; return nil })).To(Succeed())
	g.Expect(rows[""]).To(And(HaveField("Mode", uint16(0o750)), HaveField("Sec", int64(1_000_000_000)), HaveField("Dir", true)))
	g.Expect(rows["c"]).To(And(HaveField("Kind", format.KindSymlink), HaveField("Extra.Target", "a")))
	g.Expect(rows["sub/x"]).To(And(HaveField("Size", int64(10_000)), HaveField("Kind", format.KindFile), HaveField("Hash", Not(BeZero()))))
	enough := errors.New("enough")
	g.Expect(archive.List(t.Context(), root, b.store, nil, "", true, func(archive.Row) error { return enough })).To(MatchError(enough))
}

func TestCat(t *testing.T) {
	for _, key := range []*format.Key{nil, testKey(t, "ab")} {
		for _, rows := range []int{1, 3, 200} {
			t.Run(fmt.Sprintf("encrypted=%v/pages of %d", key != nil, rows), func(t *testing.T) {
				g := NewWithT(t)
				b := small(t)
				b.key, b.pageRows = key, rows
				root := b.root(1000)
				for path, want := range map[string]string{"a": "hello", "d": "hello", "b": "", "sub/x": text(10_000), "sub/y": text(4<<20 + 9), "./sub/deep/last": "the end"} {
					var out bytes.Buffer
					b.store.reset()
					g.Expect(archive.Cat(t.Context(), root, b.store, key, path, &out)).To(Succeed())
					g.Expect(out.String()).To(Equal(want), path)
					g.Expect(b.store.requests).To(BeNumerically("<=", 2), path)
				}
				for path, want := range map[string]string{
					"": ". is a directory", "sub": "sub is a directory", "sub/deep/": "sub/deep is a directory", "c": "c is a symbolic link to a",
					"p": "p is not a file", "none": "there is no none in the backup", "a/b": "there is no a/b in the backup", "..": "is not one within a backup",
				} {
					var out bytes.Buffer
					g.Expect(archive.Cat(t.Context(), root, b.store, key, path, &out)).To(MatchError(ContainSubstring(want)))
					g.Expect(out.Len()).To(BeZero())
				}
			})
		}
	}
}

func TestCatWritesHolesAsZeros(t *testing.T) {
	g := NewWithT(t)
	content := make([]byte, 10<<20)
	copy(content[1<<20:], "one")
	copy(content[9<<20:], "two")
	b := build(t).dir("", format.Meta{}).file("sparse", string(content))
	b.entries()[0].Extra = &format.Extra{Pieces: []format.Piece{{At: 1 << 20, Len: 4096}, {At: 9 << 20, Len: 3}}}
	root := b.root(format.BlockSize)
	var out bytes.Buffer
	g.Expect(archive.Cat(t.Context(), root, b.store, nil, "sparse", &out)).To(Succeed())
	g.Expect(bytes.Equal(out.Bytes(), content)).To(BeTrue())
	g.Expect(archive.Verify(t.Context(), root, b.store, nil, true, nil)).To(Succeed())
	restored, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, HashContent: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(restored.Bytes).To(BeEquivalentTo(10 << 20))
}

func TestCatWritesNothingDamaged(t *testing.T) {
	g := NewWithT(t)
	b := build(t).dir("", format.Meta{}).file("a", "hello").file("b", "world")
	b.edit = func(p *format.Page) { e := p.Dirs[0].Entries; e[0].Off, e[1].Off = e[1].Off, e[0].Off }
	root := b.root(format.BlockSize)
	var out bytes.Buffer
	g.Expect(archive.Cat(t.Context(), root, b.store, nil, "a", &out)).To(MatchError(format.ErrDamaged))
	g.Expect(out.Len()).To(BeZero())
	b.store.packs[root.Packs[0].ID][60] ^= 1
	g.Expect(archive.Cat(t.Context(), root, b.store, nil, "a", &out)).To(MatchError(ContainSubstring(root.Packs[0].ID.String())))
}

func TestUnreadableFiles(t *testing.T) {
	g := NewWithT(t)
	b := build(t).dir("", format.Meta{}).file("a", "1").entry(format.Entry{Name: "b", Flags: format.FlagUnreadable}).file("c", "3")
	b.edit = func(p *format.Page) { p.Dirs[0].Entries[1].Meta = format.Meta{} }
	b.edit = nil
	root := b.root(format.BlockSize)
	dir, report, index := restore(t, root, b.store, nil)
	g.Expect(index).NotTo(BeNil())
	g.Expect(report.Unreadable).To(Equal([]archive.Problem{{Path: "b", Error: "it could not be read when the backup was made"}}))
	g.Expect(report.Files).To(BeEquivalentTo(2))
	g.Expect(independentWalk(t, dir)).To(HaveLen(3))
	var out bytes.Buffer
	g.Expect(archive.Cat(t.Context(), root, b.store, nil, "b", &out)).To(MatchError(ContainSubstring("could not be read when the backup was made")))
}
