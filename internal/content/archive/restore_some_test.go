package archive_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// Pages of one directory are told apart: of a directory of many pages in many packs only those are read that matter.
func TestOneFileOfALargeDirectory(t *testing.T) {
	const files = 20_000
	b := build(t).dir("", format.Meta{}).file("a", "first").dir("d", format.Meta{})
	for i := range files {
		b.file(fmt.Sprintf("f%06d", i), fmt.Sprint(i))
	}
	b.dir("d/z", format.Meta{}).file("last", "last").dir("e", format.Meta{}).file("f", "end")
	root := b.rootPacks(10_000, 1) // every page and every content in a pack of its own
	read := func(path string) (requests int) {
		b.store.reset()
		var out bytes.Buffer
		NewWithT(t).Expect(archive.Cat(t.Context(), root, b.store, nil, path, &out)).To(Succeed())
		NewWithT(t).Expect(out.Bytes()).To(Equal(b.contents[path]))
		return b.store.requests
	}
	restored := func(paths ...string) (requests int) {
		b.store.reset()
		dir := t.TempDir()
		_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Paths: paths})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		for _, path := range paths {
			if want, ok := b.contents[path]; ok {
				NewWithT(t).Expect(os.ReadFile(filepath.Join(dir, path))).To(Equal(want))
			}
		}
		return b.store.requests
	}
	g := NewWithT(t)
	for _, path := range []string{"a", "d/f000000", "d/f000197", "d/f000198", "d/f000199", "d/f010000", "d/f019999", "d/z/last", "e/f"} {
		g.Expect(read(path)).To(Equal(2), "%s: its page and its content", path)
		g.Expect(restored(path)).To(BeNumerically("<=", 3), "%s: the page of the directories, too", path)
	}
	g.Expect(restored("d/f000100", "d/f010000", "d/f010001")).To(BeNumerically("<=", 5), "two pages, and contents of two frames")
	g.Expect(restored("d/z")).To(Equal(3), "the page of the directories, its own, and its content")
	g.Expect(restored("e")).To(BeNumerically("<=", 3))
	pages := files/200 + 1
	g.Expect(restored("d")).To(BeNumerically(">", pages), "all of them")
	g.Expect(archive.Cat(t.Context(), root, b.store, nil, "d/f0", io.Discard)).To(MatchError(ContainSubstring("there is no d/f0")))
}
