package archive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// chain makes directories of those names, each in the one before, and in each what fill makes of its descriptor.
func chain(t *testing.T, dir string, depth int, name string, fill func(fd int)) {
	t.Helper()
	g := NewWithT(t)
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_PATH, 0)
	g.Expect(err).NotTo(HaveOccurred())
	for range depth {
		if fill != nil {
			fill(fd)
		}
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		fd = next
	}
	g.Expect(unix.Close(fd)).To(Succeed())
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return len(entries)
}

func scanned(t *testing.T, dir string) *scanTree {
	t.Helper()
	tree, err := scan(t.Context(), dir)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(tree.close)
	return tree
}

// The order of a scan is that of the manifest, which the encoder of pages insists on.
func TestScanOrder(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	for _, name := range []string{"a/b/c", "a-b/x", "a.d/y", "a0", "B", "a/b-c", "ä", "\xff\xfe", "a/z"} {
		g.Expect(os.MkdirAll(filepath.Join(dir, name), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(dir, name, "f2"), nil, 0o644)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(dir, name, "f10"), nil, 0o644)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(dir, name+"~"), nil, 0o644)).To(Succeed())
	}
	tree := scanned(t, dir)
	var paths []string
	var path []byte
	for _, d := range tree.order {
		path = d.pathAfter(path)
		g.Expect(string(path)).To(Equal(string(d.path(nil))))
		paths = append(paths, string(path))
		for i := 1; i < len(d.rows); i++ {
			g.Expect(string(d.nameOf(&d.rows[i-1])) < string(d.nameOf(&d.rows[i]))).To(BeTrue())
		}
	}
	g.Expect(paths).To(Equal([]string{"", "B", "a", "a/b", "a/b/c", "a/b-c", "a/z", "a-b", "a-b/x", "a.d", "a.d/y", "a0", "ä", "\xff\xfe"}))
	g.Expect(tree.count).To(Equal(9*3 - 1 + 1))
}

// Deep trees need no descriptor for every level, whatever is done in whatever order.
func TestOpenerFindsItsWay(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	n := 0
	chain(t, dir, 1500, strings.Repeat("d", 150), func(fd int) {
		if n++; n%7 == 0 {
			_ = unix.Mkdirat(fd, fmt.Sprint("side", n), 0o755)
		}
	})
	before := openFiles(t)
	tree := scanned(t, dir)
	g.Expect(tree.order).To(HaveLen(1 + 1500 + 1500/7))
	o := newOpener(tree.root, tree.fd)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		d := tree.order[i%len(tree.order)]
		if i > len(tree.order) {
			d = tree.order[r.IntN(len(tree.order))]
		}
		fd, err := o.dir(d)
		g.Expect(err).NotTo(HaveOccurred())
		var st unix.Stat_t
		g.Expect(unix.Fstat(fd, &st)).To(Succeed())
		g.Expect(st.Ino).To(Equal(d.self.ino))
		g.Expect(len(o.open)).To(BeNumerically("<=", maxOpenDirs))
	}
	g.Expect(openFiles(t)).To(BeNumerically("<=", before+1+maxOpenDirs))
	o.close()
	g.Expect(openFiles(t)).To(Equal(before + 1))
}

// What is deeper than a path may be long is named, and the rest goes on.
func TestS3_PathsThatAreTooLongAreNamed(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	name := strings.Repeat("d", 250)
	chain(t, dir, 1100, name, nil)
	report, err := Digest(t.Context(), dir, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(1))
	g.Expect(report.Unreadable[0].Error).To(Equal(errTooDeep.Error()))
	g.Expect(report.Dirs).To(BeEquivalentTo(maxPathLen/251 + 1))
}

// A page table cannot take any number of very long paths.
func TestS3_TooManyLongPathsAreNamed(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	name := strings.Repeat("d", 200)
	chain(t, dir, 1000, name, func(fd int) {
		_ = unix.Mkdirat(fd, "z", 0o755)
	})
	tree := scanned(t, dir)
	g.Expect(tree.order).To(HaveLen(2001), "so much is all right")
	g.Expect(tree.tablePaths()).To(BeNumerically("<", maxTablePaths))
	chain(t, filepath.Join(dir, "z"), 1000, name, func(fd int) {
		for i := range 6 {
			_ = unix.Mkdirat(fd, fmt.Sprint("z", i), 0o755)
		}
	})
	report, err := Digest(t.Context(), dir, nil)
	g.Expect(err).NotTo(HaveOccurred())
	const levels = longPath / 201
	g.Expect(report.Dirs).To(BeEquivalentTo(1 + 2*levels + 7*(levels+1)))
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(2))
	g.Expect(report.Unreadable[0].Error).To(Equal(errTooLongPaths.Error()))
}

func TestPathSlabSharesMemory(t *testing.T) {
	g := NewWithT(t)
	var s pathSlab
	paths := []string{"", "a", "a/b", "a/b/c", "a/b-c", "a", "", "b", "b/" + strings.Repeat("x", 100_000), "b/c"}
	kept := make([]string, 0, len(paths))
	for _, p := range paths {
		kept = append(kept, s.add([]byte(p)))
	}
	g.Expect(kept).To(Equal(paths))
	path := []byte("deep")
	first := s.add(path)
	allocated := testing.AllocsPerRun(1, func() {
		for range 10_000 {
			path = append(path, "/d"...)
			s.add(path)
		}
	})
	g.Expect(allocated).To(BeNumerically("<", 40))
	g.Expect(first).To(Equal("deep"))
}

// brokenDisk opens something that is a file, and fails with EIO whenever it is read.
func brokenDisk(int, *byte, *unix.OpenHow) (int, error) {
	return unix.Open("/proc/self/mem", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func TestS3_ReadErrorsAreNamed(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.WriteFile(dir+"/bad", []byte("content"), 0o644)).To(Succeed())
	g.Expect(os.WriteFile(dir+"/good", []byte("other"), 0o644)).To(Succeed())
	g.Expect(os.Link(dir+"/bad", dir+"/linked")).To(Succeed())
	open := func(at int, name *byte, how *unix.OpenHow) (int, error) {
		if *name == 'g' {
			return openReading(at, name, how)
		}
		return brokenDisk(at, name, how)
	}
	c := &creation{fail: func(err error) { t.Error(err) }, openFile: open}
	r, err := c.run(t.Context(), dir)
	c.close()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.Unreadable).To(Equal([]Problem{{Path: "bad", Error: "input/output error"}, {Path: "linked", Error: "input/output error"}}))
	g.Expect(r.Files).To(BeEquivalentTo(1))
}

func TestS3_ReadErrorsInTheMiddleAreNamed(t *testing.T) {
	g := NewWithT(t)
	fd, err := brokenDisk(0, nil, nil)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = unix.Close(fd) }()
	d := &dirNode{names: []byte("bad\x00"), rows: []row{{nameLen: 3, mode: unix.S_IFREG, size: 9 << 20}}}
	g2 := &reading{tree: &scanTree{root: d}, places: newPlaces(), share: unbounded()}
	w, err := g2.newWorker()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.largeAlone(t.Context(), d, &d.rows[0], fd, &row{mode: unix.S_IFREG, size: 9 << 20})).To(Succeed())
	g.Expect(d.rows[0].has(rowUnreadable)).To(BeTrue())
	g.Expect(d.problems).To(HaveLen(1))
	g.Expect(errors.Is(d.problems[0].err, unix.EIO)).To(BeTrue())
}

// If we have no descriptors left, that says nothing about the files.
func TestOurOwnTroubleIsAnError(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.WriteFile(dir+"/f", []byte("content"), 0o644)).To(Succeed())
	ctx, cancel := context.WithCancelCause(t.Context())
	c := &creation{fail: cancel, openFile: func(int, *byte, *unix.OpenHow) (int, error) { return -1, unix.EMFILE }}
	_, err := c.run(ctx, dir)
	c.close()
	g.Expect(err).To(MatchError(unix.EMFILE))
}

// A group of hard links is what all names agree about.
func TestHardLinksOfReusedInodes(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.WriteFile(dir+"/a", []byte("one"), 0o644)).To(Succeed())
	g.Expect(os.Link(dir+"/a", dir+"/b")).To(Succeed())
	g.Expect(os.WriteFile(dir+"/c", []byte("two"), 0o644)).To(Succeed())
	g.Expect(os.Link(dir+"/c", dir+"/d")).To(Succeed())
	tree := scanned(t, dir)
	rows := tree.order[0].rows
	rows[2].ino = rows[0].ino // as if c had been a third name, and then the number of another file
	rows[2].csec++
	rows[3].nsec++ // as if d had changed between the looks at c and d
	h := groupLinks(tree)
	g.Expect(h.groups).To(HaveLen(1))
	g.Expect(h.groups[0].members).To(HaveLen(2))
	g.Expect(rows[1].has(rowFollower)).To(BeTrue())
	g.Expect(rows[2].has(rowFollower)).To(BeFalse())
	tree = scanned(t, dir)
	rows = tree.order[0].rows
	rows[3].nsec++
	h = groupLinks(tree)
	g.Expect(h.groups).To(HaveLen(2), "they were looked at again, and agree")
	g.Expect(h.groupOf(tree.root, &rows[0], nil)).To(Equal(format.GroupOf("a")))
	g.Expect(h.groupOf(tree.root, &rows[1], nil)).To(Equal(format.GroupOf("a")))
	g.Expect(h.groupOf(tree.root, &rows[2], nil)).To(Equal(format.GroupOf("c")))
	g.Expect(h.groupOf(tree.root, &rows[3], nil)).To(Equal(format.GroupOf("c")))
}

// A listing that takes several calls may have a name twice, even with two types: it was removed and made again meanwhile.
func TestNamesThatAreListedTwice(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600)).To(Succeed())
	g.Expect(os.Mkdir(filepath.Join(dir, "dir"), 0o700)).To(Succeed())
	tree := scanned(t, dir)
	w := &scanWorker{scanner: &scanner{tree: tree}, opener: newOpener(tree.root, tree.fd), dents: make([]byte, 4096), meter: new(usageMeter)}
	defer w.opener.close()
	_, err := unix.Seek(tree.fd, 0, 0) // the scan has read it to its end
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.list(tree.fd)).To(Succeed())
	for _, f := range w.found[:2] { // as they were before
		f.typ = map[uint8]uint8{unix.DT_DIR: unix.DT_REG, unix.DT_REG: unix.DT_DIR}[f.typ]
		w.found = append(w.found, f, w.found[0], w.found[1])
	}
	d := &dirNode{hash: format.RootHash}
	g.Expect(w.fill(t.Context(), d, tree.fd)).To(Succeed())
	names := map[string]int{}
	for _, sub := range d.dirs {
		names[sub.name]++
	}
	for i := range d.rows {
		names[string(d.nameOf(&d.rows[i]))]++
	}
	g.Expect(names).To(Equal(map[string]int{"file": 1, "dir": 1}))
}
