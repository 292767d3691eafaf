package archive_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// chain is a workspace that somebody works in, with a backup after each step and a retention that keeps few of them.
type chain struct {
	*backups
	g       *WithT
	random  *rand.Rand
	kept    []link
	made    int
	touched int64 // bytes of the files that the next backup has to read
}

// link is a backup that retention keeps, and the tree that it is of.
type link struct {
	number int
	root   archive.Root
	tree   map[string]seen
}

// Whatever was done between many backups, and whichever of them are gone, each that is left can be restored; they read only what has
// changed, and what they need does not grow.
func TestChainOfIncrementals(t *testing.T) {
	c := &chain{g: NewWithT(t), random: rand.New(rand.NewPCG(1, 2))}
	c.backups = &backups{t: t, dir: t.TempDir(), store: newPackStore()}
	for i := range 150 {
		c.write(fmt.Sprintf("d%d/e%d/f%d", i%5, i%7, i))
	}
	c.g.Expect(os.WriteFile(filepath.Join(c.dir, "large"), c.bytes(5<<20), 0o600)).To(Succeed())
	for range chainLength {
		c.step()
	}
	c.restoreAll()
}

// step changes something, makes a backup, and lets those go that nobody keeps.
func (c *chain) step() {
	c.touched = 0
	for range 1 + c.random.IntN(6) {
		c.edit()
	}
	o := archive.CreateOptions{Sink: c.store, Source: c.store, Key: testKey(c.t, "5e")}
	if c.last != nil {
		o.Parent, o.Index = &c.last.Root, c.last.Index
	}
	c.calm()
	c.last = create(c.t, c.dir, o)
	if c.made > 0 {
		c.g.Expect(c.last.BytesRead).To(BeNumerically("<=", c.touched), "backup %d", c.made)
	}
	c.bounds()
	c.kept = append(c.kept, link{c.made, c.last.Root, independentWalk(c.t, c.dir)})
	c.made++
	c.retain()
	if c.made%25 == 0 {
		c.restoreAll()
	}
}

// bounds are those that docs/format.md states.
func (c *chain) bounds() {
	size, live := packBytes(c.last.Packs)
	c.g.Expect(size-live).To(BeNumerically("<=", max(size*40/100, 16<<20)), "backup %d: dead bytes", c.made)
	c.g.Expect(len(c.last.Packs)).To(BeNumerically("<=", 64+4), "backup %d: packs", c.made)
}

// retain keeps the last five, and every tenth of the last seventy. Packs that no kept backup needs are removed.
func (c *chain) retain() {
	c.kept = slices.DeleteFunc(c.kept, func(l link) bool {
		age := c.made - l.number
		return age > 5 && (l.number%10 != 0 || age > 70)
	})
	needed := map[format.PackID]bool{}
	for _, l := range c.kept {
		for _, p := range l.root.Packs {
			needed[p.ID] = true
		}
	}
	for id := range c.store.packs {
		if !needed[id] {
			delete(c.store.packs, id)
		}
	}
}

func (c *chain) restoreAll() {
	for _, l := range c.kept {
		to := c.t.TempDir()
		_, _, err := archive.Restore(c.t.Context(), l.root, to, archive.RestoreOptions{Source: c.store, Key: testKey(c.t, "5e"), HashContent: true})
		c.g.Expect(err).NotTo(HaveOccurred(), "backup %d of %d", l.number, c.made)
		expectEqualTrees(c.t, l.tree, independentWalk(c.t, to))
		c.g.Expect(os.RemoveAll(to)).To(Succeed())
	}
}

// edit does one thing to the tree.
func (c *chain) edit() {
	file, dir := c.any(false), c.any(true)
	switch c.random.IntN(8) {
	case 0:
		c.write(filepath.Join(dir, fmt.Sprintf("new%d", c.random.Uint32())))
	case 1:
		c.touch(file)
		c.g.Expect(os.Rename(filepath.Join(c.dir, file), filepath.Join(c.dir, dir, fmt.Sprintf("moved%d", c.random.Uint32())))).To(Succeed())
	case 2:
		c.touch(dir)
		c.g.Expect(os.Rename(filepath.Join(c.dir, dir), filepath.Join(c.dir, fmt.Sprintf("dir%d", c.random.Uint32())))).To(Succeed())
	case 3:
		c.g.Expect(os.Remove(filepath.Join(c.dir, file))).To(Succeed())
		c.write(filepath.Join(dir, fmt.Sprintf("instead%d", c.random.Uint32())))
	case 4:
		c.g.Expect(os.Chmod(filepath.Join(c.dir, file), fs.FileMode(0o600|c.random.IntN(0o200)))).To(Succeed())
		c.touch(file)
	case 5:
		c.patch()
	default:
		c.write(file)
	}
}

// patch overwrites some bytes in the middle of the large file.
func (c *chain) patch() {
	f, err := os.OpenFile(filepath.Join(c.dir, "large"), os.O_WRONLY, 0)
	c.g.Expect(err).NotTo(HaveOccurred())
	_, err = f.WriteAt(c.bytes(1000), c.random.Int64N(5<<20-1000))
	c.g.Expect(err).NotTo(HaveOccurred())
	c.g.Expect(f.Close()).To(Succeed())
	c.touch("large")
}

// any picks a file other than the large one, or a directory other than the root.
func (c *chain) any(dir bool) string {
	var all []string
	c.g.Expect(fs.WalkDir(os.DirFS(c.dir), ".", func(path string, d fs.DirEntry, err error) error {
		if path != "." && path != "large" && d.IsDir() == dir {
			all = append(all, path)
		}
		return err
	})).To(Succeed())
	return all[c.random.IntN(len(all))]
}

func (c *chain) write(path string) {
	at := filepath.Join(c.dir, path)
	c.g.Expect(os.MkdirAll(filepath.Dir(at), 0o755)).To(Succeed())
	c.g.Expect(os.WriteFile(at, c.bytes(c.random.IntN(20_000)), 0o644)).To(Succeed())
	c.touch(path)
}

// touch counts what is at a path, or below it, as to be read.
func (c *chain) touch(path string) {
	c.g.Expect(filepath.WalkDir(filepath.Join(c.dir, path), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			c.touched += info.Size()
		}
		return err
	})).To(Succeed())
}

// bytes are random, and half of them compress.
func (c *chain) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range n / 2 {
		b[i] = byte(c.random.Uint32())
	}
	return b
}
