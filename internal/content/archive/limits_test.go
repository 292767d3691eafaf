package archive_test

import (
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// disk returns a new ext4 with inodes of that many bytes. The filesystem of the other tests may be any.
func disk(t *testing.T, inode string) string {
	t.Helper()
	dir := t.TempDir()
	sh(t, dir, `truncate -s 64M "$PWD.image"; /sbin/mkfs.ext4 -q -I `+inode+` "$PWD.image"; mount -o loop "$PWD.image" .`)
	t.Cleanup(func() { NewWithT(t).Expect(unix.Unmount(dir, 0)).To(Succeed()) })
	return dir
}

// Two changes in one second leave no trace where only seconds count.
func TestFilesystemsThatCountSeconds(t *testing.T) {
	g := NewWithT(t)
	dir := disk(t, "128")
	b := &backups{t: t, dir: dir, store: newPackStore()}
	for i := range 5 {
		sh(t, dir, `echo `+strconv.Itoa(i)+` >file; touch -d @1000 file .`)
		g.Expect(b.next(nil).Unchanged).To(BeFalse())
	}
	to := disk(t, "128")
	sh(t, to, `rmdir lost+found`)
	_, index, err := archive.Restore(t.Context(), b.last.Root, to, archive.RestoreOptions{Source: b.store})
	g.Expect(err).NotTo(HaveOccurred())
	sh(t, to, `echo x >file; touch -d @1000 file .`)
	r := create(t, to, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root, Index: index})
	g.Expect(r.Unchanged).To(BeFalse())
}

// A file can be as large as numbers go, with data in its last block.
func TestLargestFile(t *testing.T) {
	g := NewWithT(t)
	dir, s := smallDisk(t, "size=16m"), newPackStore()
	f, err := os.Create(filepath.Join(dir, "f"))
	g.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	const size = 1<<63 - 1
	g.Expect(f.Truncate(size)).To(Succeed())
	at := []int64{size - 8<<20, size - 4<<20 + 7, size - 10_000}
	for _, off := range at {
		_, err = f.WriteAt([]byte("data"), off)
		g.Expect(err).NotTo(HaveOccurred())
	}
	r := create(t, dir, archive.CreateOptions{Sink: s})
	g.Expect(r.UnreadableCount).To(BeZero())
	to := smallDisk(t, "size=16m")
	_, _, err = archive.Restore(t.Context(), r.Root, to, archive.RestoreOptions{Source: s, HashContent: true})
	g.Expect(err).NotTo(HaveOccurred())
	restored, err := os.Open(filepath.Join(to, "f"))
	g.Expect(err).NotTo(HaveOccurred())
	defer restored.Close()
	for _, off := range at {
		buf := make([]byte, 4)
		_, err := restored.ReadAt(buf, off)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(buf)).To(Equal("data"), strconv.FormatInt(off, 10))
	}
	g.Expect(archive.Verify(t.Context(), r.Root, s, nil, true, nil)).To(Succeed())
}

// A pack that is listed twice, with another size, is refused before anything is read by its size.
func TestS6_PacksListedTwiceAreRefused(t *testing.T) {
	g := NewWithT(t)
	b, root := tiny(t, nil)
	other := root.Packs[0]
	other.Size = 100
	root.Packs = append([]archive.Pack{other}, root.Packs...)
	const twice = "a pack is listed twice"
	g.Expect(archive.Verify(t.Context(), root, b.store, nil, true, nil)).To(MatchError(ContainSubstring(twice)))
	_, _, err := archive.Restore(t.Context(), root, t.TempDir(), archive.RestoreOptions{Source: b.store})
	g.Expect(err).To(MatchError(ContainSubstring(twice)))
}

// A directory that belongs to somebody else is theirs again at the end only: until then they cannot move what is made in it.
func TestS6_OwnerOfTheTargetIsKeptOut(t *testing.T) {
	g := NewWithT(t)
	b, root := tiny(t, nil)
	dir := t.TempDir()
	g.Expect(os.Chown(dir, 1234, 1234)).To(Succeed())
	var owner atomic.Uint32 // when something was read last: contents
	b.store.before = func() error {
		var st unix.Stat_t
		err := unix.Stat(dir, &st)
		owner.Store(st.Uid)
		return err
	}
	_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(owner.Load()).To(BeZero())
}

// What is known to fail before anything is written leaves the directory as it was.
func TestS10_RestoreOfNothingChangesNothing(t *testing.T) {
	g := NewWithT(t)
	b, root := tiny(t, nil)
	dir := t.TempDir()
	g.Expect(os.Chmod(dir, 0o751)).To(Succeed())
	g.Expect(os.Chown(dir, 5, 6)).To(Succeed())
	before := independentWalk(t, dir)
	_, _, err := archive.Restore(t.Context(), root, dir, archive.RestoreOptions{Source: b.store, Paths: []string{"none"}})
	g.Expect(err).To(MatchError(ContainSubstring("there is no none")))
	g.Expect(independentWalk(t, dir)).To(Equal(before))
}
