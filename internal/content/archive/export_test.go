package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// exported writes a backup of dir as a tar.
func exported(tb testing.TB, dir string) []byte {
	tb.Helper()
	s := newPackStore()
	made := create(tb, dir, archive.CreateOptions{Sink: s, Source: s})
	var out bytes.Buffer
	NewWithT(tb).Expect(archive.Export(tb.Context(), made.Root, s, nil, &out)).To(Succeed())
	return out.Bytes()
}

// gnuTar runs GNU tar with content on standard input.
func gnuTar(tb testing.TB, dir string, in []byte, args ...string) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "tar", args...)
	cmd.Dir, cmd.Stdin, cmd.Env = dir, bytes.NewReader(in), append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	NewWithT(tb).Expect(err).NotTo(HaveOccurred(), "%s", out)
}

// beyondTar is what GNU tar does not bring back: attributes that are empty or have "=" in their names.
var beyondTar = map[string]bool{"xattrs": true}

// GNU tar is an independent reader of what Export writes, holes included.
func TestExportIsReadByTar(t *testing.T) {
	for name, script := range matrix {
		if beyondTar[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir, to := t.TempDir(), t.TempDir()
			sh(t, dir, script)
			gnuTar(t, to, exported(t, dir), "--xattrs", "--xattrs-include=*", "--warning=no-unknown-keyword", "-xpf", "-")
			expectEqualTrees(t, withoutLayout(independentWalk(t, dir)), withoutLayout(independentWalk(t, to)))
		})
	}
}

// withoutLayout leaves out where the holes are when many small ones may be stored as zeros.
func withoutLayout(tree map[string]seen) map[string]seen {
	for path, s := range tree {
		if len(s.Data) > 100 {
			s.Data, s.Content = nil, ""
			tree[path] = s
		}
	}
	return tree
}

// And Import reads all of it.
func TestExportIsReadByImport(t *testing.T) {
	for name, script := range matrix {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, to := t.TempDir(), t.TempDir()
			sh(t, dir, script)
			report, err := archive.Import(t.Context(), bytes.NewReader(exported(t, dir)), to)
			g.Expect(err).NotTo(HaveOccurred())
			want, err := archive.Digest(t.Context(), dir, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(report.Digest).To(Equal(want.Digest))
			g.Expect(counts(report)).To(Equal(counts(want)))
		})
	}
}

// The standard library is another reader: names, sizes and contents.
func TestExportIsAPlainTar(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, matrix["names"]+`; mkdir long; echo deep >long/$(printf '%0200d' 0); ln long/0* hard`)
	r := tar.NewReader(bytes.NewReader(exported(t, dir)))
	found := map[string]string{}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		g.Expect(err).NotTo(HaveOccurred())
		content, err := io.ReadAll(r)
		g.Expect(err).NotTo(HaveOccurred())
		found[h.Name] = string(content) + h.Linkname
	}
	long := "long/" + fmt.Sprintf("%0200d", 0)
	g.Expect(found).To(And(HaveKey("./"), HaveKey("new\nline"), HaveKey("\xff\xfe raw"), HaveKey("long/"), HaveKeyWithValue("hard", "deep\n"), HaveKeyWithValue(long, "hard")))
}

// Content that lies in many frames in any order is read once each as long as it is needed again soon.
func TestExportReadsFewFrames(t *testing.T) {
	g := NewWithT(t)
	dir, s := t.TempDir(), newPackStore()
	sh(t, dir, `for i in $(seq 1000); do echo $i >f$i; done`)
	first := create(t, dir, archive.CreateOptions{Sink: s, Source: s})
	sh(t, dir, `for i in $(seq 1 7 1000); do echo changed $i >f$i; done`)
	second := create(t, dir, archive.CreateOptions{Sink: s, Source: s, Parent: &first.Root})
	s.reset()
	var out bytes.Buffer
	g.Expect(archive.Export(t.Context(), second.Root, s, nil, &out)).To(Succeed())
	g.Expect(s.requests).To(BeNumerically("<=", 4), "two for pages, two for frames")
	to := t.TempDir()
	gnuTar(t, to, out.Bytes(), "-xpf", "-")
	expectEqualTrees(t, independentWalk(t, dir), independentWalk(t, to))
}

func TestExportEndsWithErrors(t *testing.T) {
	g := NewWithT(t)
	b := wide(t, 5, 5)
	root := b.rootPacks(20, 1)
	delete(b.store.packs, root.Packs[3].ID)
	var out bytes.Buffer
	err := archive.Export(t.Context(), root, b.store, nil, &out)
	g.Expect(err).To(MatchError(MatchRegexp(`export: d000\d/f000\d: frame 0 of pack ` + root.Packs[3].ID.String() + `: no such object`)))
	_, err = io.Copy(io.Discard, tar.NewReader(bytes.NewReader(out.Bytes())))
	g.Expect(err).NotTo(HaveOccurred())
	broken, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = broken.Close() }()
	c := wide(t, 5, 5)
	g.Expect(archive.Export(t.Context(), c.root(1000), c.store, nil, broken)).To(MatchError(ContainSubstring("no space left")))
}

func TestExportLeavesOutWhatWasNotRead(t *testing.T) {
	g := NewWithT(t)
	b := build(t).dir("", format.Meta{}).file("a", "1").entry(format.Entry{Name: "b", Flags: format.FlagUnreadable})
	var out bytes.Buffer
	g.Expect(archive.Export(t.Context(), b.root(1000), b.store, nil, &out)).To(Succeed())
	to := t.TempDir()
	gnuTar(t, to, out.Bytes(), "-xpf", "-")
	names, err := filepath.Glob(to + "/*")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(names).To(Equal([]string{to + "/a"}))
}
