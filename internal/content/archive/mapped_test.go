package archive_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// diskDir is a directory on a disk: files of tmpfs keep their times when they are written to through a mapping.
func diskDir(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	var st unix.Statfs_t
	dir := t.TempDir()
	g.Expect(unix.Statfs(dir, &st)).To(Succeed())
	if st.Type != unix.TMPFS_MAGIC {
		return dir
	}
	dir, err := os.MkdirTemp("/var/tmp", "archive-test-") //nolint:usetesting // that of the test is in memory
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(os.RemoveAll(dir)).To(Succeed()) })
	g.Expect(unix.Statfs(dir, &st)).To(Succeed())
	g.Expect(st.Type).NotTo(BeEquivalentTo(unix.TMPFS_MAGIC), "/var/tmp must be on a disk")
	return dir
}

// mapped maps a file of the tree.
func (b *backups) mapped(name string) []byte {
	b.t.Helper()
	g := NewWithT(b.t)
	f, err := os.OpenFile(filepath.Join(b.dir, name), os.O_RDWR, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(f.Close()).To(Succeed()) }()
	st, err := f.Stat()
	g.Expect(err).NotTo(HaveOccurred())
	m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	g.Expect(err).NotTo(HaveOccurred())
	b.t.Cleanup(func() { g.Expect(unix.Munmap(m)).To(Succeed()) })
	return m
}

// Only the first store to a page since that was written out touches the times of its file, so a backup writes it out.
func TestFidelityOfStoresThroughAMapping(t *testing.T) {
	for name, during := range map[string]func(m []byte){
		"before it": func([]byte) {},
		"while it":  func(m []byte) { m[1]++ }, // after it was written out: the page can be written to without a trace again
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := begin(t, `head -c 8192 /dev/zero >db`)
			m := b.mapped("db")
			m[0]++
			b.calm()
			first := create(t, b.dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root, Index: b.last.Index,
				Progress: func(int64, int64) { during(m) }})
			g.Expect(first.BytesRead).To(BeEquivalentTo(8192))
			b.last = first
			b.calm()
			m[0]++
			b.calm()
			b.next(nil)
			g.Expect(b.last.BytesRead).To(BeEquivalentTo(8192))
			b.calm()
			b.next(nil)
			b.calm()
			b.next(nil)
			g.Expect(b.last.BytesRead).To(BeZero(), "and it is not read for ever")
		})
	}
}

// A large file is read twice if the parent has an older version. What was written in between, even without a trace, is in its hash.
func TestLargeFileIsHashedAsItIsStored(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `head -c 20M /dev/urandom >db`)
	m := b.mapped("db")
	m[5000]++
	b.calm()
	o := archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root, Index: b.last.Index}
	o.Progress = func(int64, int64) { m[5000]++ }
	r := create(t, b.dir, o)
	g.Expect(archive.Verify(t.Context(), r.Root, b.store, nil, true, nil)).To(Succeed())
	b.last = r
	b.next(nil)
}
