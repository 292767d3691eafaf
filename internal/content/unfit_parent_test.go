package content_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
		a.Keys = func(string) (*format.Key, error) { return parsed, nil }
		a.backup(1)
		c, _ := f.commit([]string{"1.1", "1.2"}[i])
		f.Expect(format.TableGeneration(c.Table)).To(BeEquivalentTo(7 + i))
		for _, p := range c.Packs {
			f.Expect(p.New).To(BeTrue())
		}
	}
}

// What a backup says of a file that never held still is corrected once, and then nothing is read any more.
func TestFileThatHasComeToRestIsNotReadForEver(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("log", strings.Repeat("log", 1_000_000))
	a.write("other", "other")
	var done atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		for at := time.Unix(1000, 0); !done.Load(); {
			_ = os.Chtimes(a.path("log"), at, at)
		}
	})
	f.Eventually(func() []string {
		a.backup(1)
		c, _ := f.commit(a.journal().Backup.Name)
		return c.Tree.Changed
	}, "60s", "1ms").Should(Equal([]string{"log"}))
	done.Store(true)
	writer.Wait()
	a.settled(1)
	c, _ := f.commit(a.journal().Backup.Name)
	f.Expect(c.Tree.Changed).To(BeEmpty())
}
