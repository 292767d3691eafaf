package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// tiny is small enough for each of its bytes to be damaged once.
func tiny(tb testing.TB, key *format.Key) (*builder, archive.Root) {
	tb.Helper()
	b := build(tb).dir("", format.Meta{}).file("a", "hello").file("b", "world, "+text(200)).symlink("c", "a").linked("a", "d").
		dir("sub", format.Meta{}).file("x", text(300))
	b.key, b.pageRows = key, 5
	return b, b.rootPacks(250, 2)
}

// damageIn replaces a pack for one test.
func (s *packStore) damageIn(tb testing.TB, id format.PackID, data []byte) {
	tb.Helper()
	whole := s.packs[id]
	tb.Cleanup(func() { s.packs[id] = whole })
	s.packs[id] = data
}

// A bit that flips is noticed by whoever reads it, and named; a restore that does not read it makes the right tree.
func TestS10_EveryDamagedByteIsNoticed(t *testing.T) {
	for _, key := range []*format.Key{nil, testKey(t, "ab")} {
		b, root := tiny(t, key)
		good, _, _ := restore(t, root, b.store, key)
		want := independentWalk(t, good)
		for n, p := range root.Packs {
			t.Run(fmt.Sprintf("encrypted=%v/pack %d", key != nil, n), func(t *testing.T) {
				disk := smallDisk(t, "size=64m")
				whole := b.store.packs[p.ID]
				noticed := 0
				for at := range whole {
					flipped := slices.Clone(whole)
					flipped[at] ^= 1 << (at % 8)
					b.store.packs[p.ID] = flipped
					noticed += expectNoticed(t, disk, b, root, want, p.ID, at)
				}
				b.store.packs[p.ID] = whole
				NewWithT(t).Expect(noticed).To(BeNumerically(">", len(whole)/3))
			})
		}
		t.Run(fmt.Sprintf("encrypted=%v/table", key != nil), func(t *testing.T) {
			for at := range root.Table {
				damaged := root
				damaged.Table = slices.Clone(root.Table)
				damaged.Table[at] ^= 1 << (at % 8)
				_, _, err := archive.Restore(t.Context(), damaged, t.TempDir(), archive.RestoreOptions{Source: b.store, Key: key})
				NewWithT(t).Expect(err).To(Or(MatchError(format.ErrDamaged), MatchError(format.ErrUnsupported), MatchError(format.ErrKey)), "byte %d", at)
			}
		})
	}
}

// expectNoticed returns 1 if a restore fails because of the damage.
func expectNoticed(t *testing.T, disk string, b *builder, root archive.Root, want map[string]seen, id format.PackID, at int) int {
	t.Helper()
	g := NewWithT(t)
	dir := filepath.Join(disk, "tree")
	g.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	defer func() { g.Expect(os.RemoveAll(dir)).To(Succeed()) }()
	if err := archive.Verify(t.Context(), root, b.store, b.key, true, nil); !errors.Is(err, format.ErrDamaged) && !errors.Is(err, format.ErrUnsupported) {
		t.Errorf("verify does not notice byte %d: %v", at, err)
	}
	_, index, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Key: b.key})
	if err == nil {
		expectEqualTrees(t, want, independentWalk(t, dir))
		return 0
	}
	g.Expect(index).To(BeNil())
	g.Expect(err).To(MatchError(format.ErrDamaged), "byte %d", at)
	g.Expect(err.Error()).To(ContainSubstring(id.String()))
	return 1
}

func TestS10_DamagedPacksAreNoticed(t *testing.T) {
	for _, key := range []*format.Key{nil, testKey(t, "ab")} {
		b, root := tiny(t, key)
		other, others := tiny(t, key)
		for n, p := range root.Packs {
			whole := b.store.packs[p.ID]
			next := b.store.packs[root.Packs[(n+1)%len(root.Packs)].ID]
			damages := map[string][]byte{
				"empty": {}, "no beginning": whole[1:], "swapped": next,
				"foreign": other.store.packs[others.Packs[(n+1)%len(others.Packs)].ID],
				"half":    whole[:len(whole)/2], "zeros": make([]byte, len(whole)), "twice": append(slices.Clone(whole[:len(whole)/2]), whole[:len(whole)/2]...),
			}
			for name, data := range damages {
				t.Run(fmt.Sprintf("%s/%d/encrypted=%v", name, n, key != nil), func(t *testing.T) {
					b.store.damageIn(t, p.ID, data)
					expectDamaged(t, b, root, p.ID)
				})
			}
			t.Run(fmt.Sprintf("missing/%d/encrypted=%v", n, key != nil), func(t *testing.T) {
				b.store.damageIn(t, p.ID, nil)
				delete(b.store.packs, p.ID)
				expectDamaged(t, b, root, p.ID)
			})
			for size := range whole {
				b.store.packs[p.ID] = whole[:size]
				NewWithT(t).Expect(archive.Verify(t.Context(), root, b.store, key, false, nil)).NotTo(Succeed())
			}
			b.store.packs[p.ID] = whole
		}
	}
}

func expectDamaged(t *testing.T, b *builder, root archive.Root, id format.PackID) {
	t.Helper()
	g := NewWithT(t)
	_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, Key: b.key})
	g.Expect(err).To(MatchError(ContainSubstring(id.String())))
	for _, readData := range []bool{false, true} {
		err = archive.Verify(t.Context(), root, b.store, b.key, readData, nil)
		g.Expect(err).To(MatchError(ContainSubstring(id.String())), "readData=%v", readData)
	}
}

// A pack under the name of another, or frames of another pack, are no substitute.
func TestS10_FramesAreBoundToTheirPlace(t *testing.T) {
	g := NewWithT(t)
	b, root := tiny(t, testKey(t, "ab"))
	a, c := root.Packs[0].ID, root.Packs[1].ID
	b.store.packs[a], b.store.packs[c] = b.store.packs[c], b.store.packs[a]
	_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, Key: b.key})
	g.Expect(err).To(Or(MatchError(format.ErrDamaged), MatchError(ContainSubstring("too short"))))
}

func TestRestoreRefusesAnotherDigest(t *testing.T) {
	b, root := tiny(t, nil)
	root.Digest[0]++
	_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store})
	NewWithT(t).Expect(err).To(MatchError(And(ContainSubstring("their digest is"), ContainSubstring("damaged"))))
	NewWithT(t).Expect(archive.Verify(t.Context(), root, b.store, nil, false, nil)).To(MatchError(format.ErrDamaged))
}

func TestRestoreNeedsAllPacksInTheRoot(t *testing.T) {
	b, whole := tiny(t, nil)
	for i := range whole.Packs {
		root := whole
		root.Packs = slices.Delete(slices.Clone(whole.Packs), i, i+1)
		_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store})
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("is not among the packs of the backup")))
		root.Packs = slices.Clone(whole.Packs)
		root.Packs[i].Size = 100
		_, _, err = archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store})
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("does not fit into its 100 bytes")))
	}
}

// What is stored may be right and yet not what the file was: a mistake of the writer.
func TestWrongContentIsNoticed(t *testing.T) {
	g := NewWithT(t)
	b := build(t).dir("", format.Meta{}).file("a", "hello").file("b", "world").file("large", text(9<<20))
	b.edit = func(p *format.Page) {
		e := p.Dirs[0].Entries
		e[0].Off, e[1].Off = e[1].Off, e[0].Off
		e[2].Extra.Pieces[0].Frame, e[2].Extra.Pieces[1].Frame = e[2].Extra.Pieces[1].Frame, e[2].Extra.Pieces[0].Frame
	}
	root := b.root(format.BlockSize)
	_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store, HashContent: true})
	g.Expect(err).To(MatchError(ContainSubstring("the content is not what its checksum says")))
	dir := t.TempDir()
	report, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, HashContent: true, Salvage: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(3))
	g.Expect(independentWalk(t, dir)).To(HaveLen(1))
	err = archive.Verify(t.Context(), root, b.store, nil, true, nil)
	var damage *archive.DamageError
	g.Expect(errors.As(err, &damage)).To(BeTrue())
	g.Expect(damage.Count).To(BeEquivalentTo(4))
	g.Expect(archive.Verify(t.Context(), root, b.store, nil, false, nil)).To(Succeed())
}

// Salvage brings back all that is not damaged, and names the rest.
func TestSalvage(t *testing.T) {
	for _, key := range []*format.Key{nil, testKey(t, "ab")} {
		b, root := tiny(t, key)
		good, all, _ := restore(t, root, b.store, key)
		want := independentWalk(t, good)
		for n, p := range root.Packs {
			for _, how := range []string{"missing", "short", "zeros"} {
				t.Run(fmt.Sprintf("%s/%d/encrypted=%v", how, n, key != nil), func(t *testing.T) {
					g := NewWithT(t)
					whole := b.store.packs[p.ID]
					b.store.damageIn(t, p.ID, map[string][]byte{"short": whole[:len(whole)/2], "zeros": make([]byte, len(whole))}[how])
					if how == "missing" {
						delete(b.store.packs, p.ID)
					}
					dir := t.TempDir()
					report, index, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Key: key, Salvage: true})
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(index).To(BeNil())
					g.Expect(report.UnreadableCount).To(BeNumerically(">", 0))
					found := independentWalk(t, dir)
					lost := expectSalvaged(t, want, found, report)
					g.Expect(report.Files + report.Links + report.Others).To(BeEquivalentTo(all.Files + all.Links + all.Others - int64(lost)))
				})
			}
		}
	}
}

// expectSalvaged compares what was salvaged and returns how many names are missing. A name that is missing was reported, or
// its page was: those are reported by the first path.
func expectSalvaged(t *testing.T, want, found map[string]seen, report archive.Report) int {
	t.Helper()
	g := NewWithT(t)
	named := map[string]bool{}
	for _, p := range report.Unreadable {
		named[p.Path] = true
	}
	lost := 0
	for path, s := range want {
		got, ok := found[path]
		switch {
		case ok && s.Type == "40000":
			g.Expect(named[path] || got.Mode == s.Mode).To(BeTrue(), path)
		case ok:
			s.Group, got.Group = "", ""
			g.Expect(got).To(Equal(s), path)
		case s.Type != "40000":
			lost++
			g.Expect(named[path] || named["."] || named["sub"]).To(BeTrue(), "%s is missing and was not named", path)
		}
	}
	for path := range maps.Keys(found) {
		g.Expect(want).To(HaveKey(path))
	}
	return lost
}

func TestSalvageOfNothingDamagedIsARestore(t *testing.T) {
	g := NewWithT(t)
	b := small(t)
	root := b.root(format.BlockSize)
	want, _, _ := restore(t, root, b.store, nil)
	dir := t.TempDir()
	report, index, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Salvage: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Digest).To(Equal(root.Digest.String()))
	g.Expect(index).NotTo(BeNil())
	expectEqualTrees(t, independentWalk(t, want), independentWalk(t, dir))
}

// A large file that misses a piece is not there at all.
func TestSalvageRemovesHalfFiles(t *testing.T) {
	g := NewWithT(t)
	b := build(t).dir("", format.Meta{}).file("a", text(9<<20)).linked("a", "b").file("c", "fine")
	root := b.rootPacks(format.BlockSize, 1)
	delete(b.store.packs, root.Packs[1].ID)
	dir := t.TempDir()
	report, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Salvage: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(2))
	g.Expect(report.Files).To(BeEquivalentTo(1))
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(entries).To(Equal([]string{dir + "/c"}))
}

func TestErrorsNameThePathAndThePack(t *testing.T) {
	g := NewWithT(t)
	b := build(t).dir("", format.Meta{}).file("first", "1").file("second", "2").dir("d", format.Meta{}).file("third", "3")
	root := b.rootPacks(1, 1)
	delete(b.store.packs, root.Packs[2].ID)
	_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store})
	g.Expect(err).To(MatchError(ContainSubstring("read d/third: frame 0 of pack " + root.Packs[2].ID.String() + ": no such object")))
	err = archive.Verify(t.Context(), root, b.store, nil, true, nil)
	g.Expect(err.Error()).To(And(ContainSubstring("d/third"), ContainSubstring(root.Packs[2].ID.String())))
	g.Expect(strings.Count(err.Error(), "\n")).To(BeZero())
}

// A backup whose pages are damaged is nothing to start from: the next one has all it needs itself.
func TestDamagedParentIsNoParent(t *testing.T) {
	for name, damage := range map[string]func(root *archive.Root, packs map[format.PackID][]byte){
		"pages": func(_ *archive.Root, packs map[format.PackID][]byte) {
			for _, data := range packs {
				for i := range data {
					data[i] ^= 1
				}
			}
		},
		"table": func(root *archive.Root, _ map[format.PackID][]byte) {
			root.Table = bytes.Clone(root.Table)
			root.Table[len(root.Table)-1] ^= 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := begin(t, `echo content >f; mkdir d; echo more >d/g`)
			first := b.last
			damage(&first.Root, b.store.packs)
			r := b.next(withoutIndex)
			g.Expect(r.Unchanged).To(BeFalse())
			g.Expect(r.Packs).To(Equal(r.NewPacks))
			g.Expect(b.next(nil).Unchanged).To(BeTrue())
		})
	}
}
