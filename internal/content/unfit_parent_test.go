package content_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// A backup whose manifest is damaged in the store is nothing to start from once the node has lost its index of it; the next one
// needs nothing of it.
func TestS10_DamagedManifestIsNoStart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	f.Expect(os.RemoveAll(filepath.Join(a.Area.Dir(), "index"))).To(Succeed())
	packs, err := filepath.Glob(f.at("d/team/p/*/*"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(packs).To(HaveLen(1))
	data, err := os.ReadFile(packs[0])
	f.Expect(err).NotTo(HaveOccurred())
	for i := range data {
		data[i] ^= 1
	}
	f.Expect(os.WriteFile(packs[0], data, 0o600)).To(Succeed())
	a.write("more", "two")
	a.backup(1)
	c, _ := f.commit("1.2")
	f.Expect(f.restored(c)).To(Equal("file=one more=two"))
	a.backup(1)
	f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
}

// Whoever changes the key file goes on with a backup that needs the new key only.
func TestKeyOfAnotherGenerationStartsAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	for i, key := range []string{"7:" + strings.Repeat("5e", 32), "8:" + strings.Repeat("5f", 32)} {
		parsed, err := format.ParseKey([]byte(key))
		f.Expect(err).NotTo(HaveOccurred())
		a.Key = parsed
		a.backup(1)
		c, _ := f.commit([]string{"1.1", "1.2"}[i])
		f.Expect(format.TableGeneration(c.Table)).To(BeEquivalentTo(7 + i))
		for _, p := range c.Packs {
			f.Expect(p.New).To(BeTrue())
		}
	}
}
