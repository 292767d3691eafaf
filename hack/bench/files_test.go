package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// someTree makes 500 directories with 10 files each, a file that nobody edits by hand, and one of ordinary size.
func someTree(t *testing.T) string {
	t.Helper()
	g, dir := NewWithT(t), t.TempDir()
	for i := range 500 {
		below := filepath.Join(dir, fmt.Sprintf("d%03d", i))
		g.Expect(os.Mkdir(below, 0o755)).To(Succeed())
		for j := range 10 {
			g.Expect(os.WriteFile(filepath.Join(below, fmt.Sprint(j)), []byte("text"), 0o444)).To(Succeed())
		}
	}
	g.Expect(os.WriteFile(filepath.Join(dir, "d001", "0-large"), make([]byte, editedBytes), 0o644)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "d250", "ordinary"), make([]byte, 8<<10), 0o644)).To(Succeed())
	g.Expect(os.Symlink("d001", filepath.Join(dir, "link"))).To(Succeed())
	return dir
}

func TestChange(t *testing.T) {
	g := NewWithT(t)
	dir, list := someTree(t), filepath.Join(t.TempDir(), "list")
	before, err := measureTree(dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(before).To(Equal(treeSize{entries: 1 + 500 + 5000 + 3, files: 5002, bytes: 5000*4 + editedBytes + 8<<10}))
	var rounds [2][]string
	for i := range rounds {
		g.Expect(change(dir, list, i+1)).To(Succeed())
		text, err := os.ReadFile(list)
		g.Expect(err).NotTo(HaveOccurred())
		rounds[i] = strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		g.Expect(rounds[i]).To(And(HaveLen(changedFiles), Not(ContainElement(HaveSuffix("large")))))
	}
	g.Expect(rounds[0]).NotTo(Equal(rounds[1]))
	g.Expect(os.ReadFile(filepath.Join(dir, "d001", "0"))).To(BeEquivalentTo("text\n// changed in round 1\n"))
	g.Expect(os.ReadFile(filepath.Join(dir, "d002", "0"))).To(BeEquivalentTo("text\n// changed in round 1\n\n// changed in round 2\n"))
	after, err := measureTree(dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(after).To(Equal(treeSize{before.entries, before.files, before.bytes + 2*changedFiles*int64(len("\n// changed in round 1\n"))}))
}

func TestChangeOfTooFewFiles(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(dir, "one"), nil, 0o644)).To(Succeed())
	g.Expect(change(dir, filepath.Join(t.TempDir(), "list"), 0)).To(MatchError(ContainSubstring("only 1 files were found")))
}

func TestPick(t *testing.T) {
	g := NewWithT(t)
	g.Expect(pick(someTree(t))).To(Equal("d250/ordinary"))
	_, err := pick(t.TempDir())
	g.Expect(err).To(MatchError(ContainSubstring("no file of 4 to 64 KiB")))
}

func TestStoreSizeLeavesOutCaches(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	for path, n := range map[string]int{"s/pack": 100, "key": 64, "cache/index": 5000, "base/borg": 6000} {
		g.Expect(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(dir, path), bytes.Repeat([]byte("x"), n), 0o644)).To(Succeed())
	}
	g.Expect(storeSize(dir)).To(Equal(int64(164)))
}

func TestMakeMany(t *testing.T) {
	g := NewWithT(t)
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	g.Expect(makeMany(t.Context(), a, 10_250)).To(Succeed())
	size, err := measureTree(a)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(size.entries).To(Equal(int64(1+2+103+10_250)), "a root, two levels of directories, files")
	g.Expect(size.bytes / size.files).To(BeNumerically("~", 1023, 20))
	g.Expect(filepath.Join(a, "001", "002", "10249")).To(BeARegularFile())

	g.Expect(makeMany(t.Context(), b, 10)).To(Succeed())
	for i := range 10 {
		name := filepath.Join("000", "000", fmt.Sprint(i))
		want, err := os.ReadFile(filepath.Join(a, name))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.ReadFile(filepath.Join(b, name))).To(Equal(want), "every run has the same files")
	}
}

func TestField(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "info")
	g.Expect(os.WriteFile(path, []byte("processor\t: 0\nmodel name\t: Fast: 1\n\nmodel name\t: Slow\n"), 0o644)).To(Succeed())
	g.Expect(field(path, "model name")).To(Equal("Fast: 1"))
	g.Expect(field(path, "model")).To(BeEmpty())
	g.Expect(field(path+"-not", "model name")).To(BeEmpty())
}
