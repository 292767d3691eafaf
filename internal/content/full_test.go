package content_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// crowd is a store on a disk of its own, which somebody else fills right before a write.
type crowd struct {
	Gomega
	t      *testing.T
	disk   string
	tree   *node // whose directory is backed up
	domain *history.Domain
	fillAt int64 // the write before which the disk is filled; 0: none
	writes atomic.Int64
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	f := newFixture(t)
	c := &crowd{Gomega: f.Gomega, t: t, disk: t.TempDir(), tree: f.node("node-a")}
	c.tree.fill(1)
	c.Expect(unix.Mount("tmpfs", c.disk, "tmpfs", 0, "size=192m")).To(Succeed())
	t.Cleanup(func() { c.Expect(unix.Unmount(c.disk, 0)).To(Succeed()) })
	s, err := store.NewFilesystem(c.disk)
	c.Expect(err).NotTo(HaveOccurred())
	c.Expect(store.Init(t.Context(), s)).Error().NotTo(HaveOccurred())
	c.domain, err = history.OpenDomain(t.Context(), storetest.Faulty(s, c.before), "team", cluster, false)
	c.Expect(err).NotTo(HaveOccurred())
	return c
}

// before fills the disk to the last byte before the write whose turn it is.
func (c *crowd) before(op, _ string) error {
	if op != "put" {
		return nil
	}
	if c.writes.Add(1) != c.fillAt {
		return nil
	}
	zeros, err := os.Create(c.filling())
	c.Expect(err).NotTo(HaveOccurred())
	_, err = io.Copy(zeros, zeroes{})
	c.Expect(err).To(MatchError(unix.ENOSPC))
	c.Expect(zeros.Close()).To(Succeed())
	return nil
}

func (c *crowd) filling() string { return filepath.Join(c.disk, "somebody-elses") }

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (c *crowd) standalone() content.Standalone {
	return content.Standalone{Domain: c.domain, Namespace: "team", Workspace: "web", Cluster: cluster}
}

// create makes a backup; the disk is full from the nth write on.
func (c *crowd) create(fillAt int) (content.Made, error) {
	c.writes.Store(0)
	c.fillAt = int64(fillAt)
	return c.standalone().Create(c.t.Context(), c.tree.path(""), "", "")
}

func (c *crowd) expectRestorable(m content.Made, want string) {
	c.t.Helper()
	dir := c.t.TempDir()
	_, err := c.standalone().Restore(c.t.Context(), m.Commit, dir, nil, false, "")
	c.Expect(err).NotTo(HaveOccurred())
	c.Expect(files(c.tree.f, dir) == want).To(BeTrue(), m.Name.String())
}

// expectNothingHalf makes sure that no write has left half of an object.
func (c *crowd) expectNothingHalf() {
	c.t.Helper()
	c.Expect(filepath.WalkDir(filepath.Join(c.disk, ".tmp"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && e.IsDir() {
			return nil
		}
		return errors.Join(err, errors.New(path+" is left"))
	})).To(Succeed())
}

// Wherever on the way the disk of the store is full: what was backed up before is whole, nothing half is left, and once there is
// space again the next backup is made.
func TestS2_FullDiskAtEveryWrite(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(n *node){
		"new content":  func(n *node) { n.write("9-stays", "other"); n.writeNoise("more", 17_000_000) },
		"a compaction": func(n *node) { n.killHalf() },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			writes := 1
			for at := 1; at <= writes; at++ {
				writes = fullDiskAt(t, at, change)
			}
			NewWithT(t).Expect(writes).To(BeNumerically(">=", 2), "a pack and the commit")
		})
	}
}

// fullDiskAt fills the disk before the nth write of a backup, and returns how many writes the backup after it took.
func fullDiskAt(t *testing.T, at int, change func(n *node)) (writes int) {
	t.Helper()
	c := newCrowd(t)
	c.tree.writeHalfDead()
	first, err := c.create(0)
	c.Expect(err).NotTo(HaveOccurred())
	before := c.tree.files()
	change(c.tree)
	_, err = c.create(at)
	c.Expect(err).To(MatchError(unix.ENOSPC), "write %d", at)
	c.expectRestorable(first, before)
	c.expectNothingHalf()
	c.Expect(os.Remove(c.filling())).To(Succeed())
	second, err := c.create(0)
	c.Expect(err).NotTo(HaveOccurred())
	c.Expect(second.Unchanged).To(BeFalse())
	writes = int(c.writes.Load())
	c.expectRestorable(second, c.tree.files())
	c.expectNothingHalf()
	return writes
}
