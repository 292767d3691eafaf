//go:build long

package content_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestADistantStoreRestoresAlmostAsFast restores 100,000 files of 1 GB from a store that takes 20 ms more for each request: ranges that
// run ahead hide that. Both are measured in turn, and the best of each compared.
func TestADistantStoreRestoresAlmostAsFast(t *testing.T) {
	f, far, a := newDistance(t)
	from := t.TempDir()
	makeFiles(f, from, 100, 1000)
	made, err := a.Create(f.ctx, from, "", "")
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(made.Tree.Files).To(BeEquivalentTo(100_000))
	f.Expect(made.Tree.Bytes).To(BeNumerically(">", 1_000_000_000))
	restore := func(delay time.Duration) time.Duration {
		far.delay = delay
		to := filepath.Join(t.TempDir(), "to")
		began := time.Now()
		_, err := a.Restore(f.ctx, made.Commit, to, nil, false, "")
		took := time.Since(began)
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(os.RemoveAll(to)).To(Succeed())
		return took
	}
	near, distance := time.Hour, time.Hour
	for range 3 {
		near = min(near, restore(0))
		distance = min(distance, restore(20*time.Millisecond))
	}
	t.Logf("without delay %v, with 20 ms %v: %.2f times as long", near, distance, distance.Seconds()/near.Seconds())
	f.Expect(distance.Seconds() / near.Seconds()).To(BeNumerically("<=", 1.5))
}

// makeFiles makes files of 10 KiB and a bit, half of each compressible.
func makeFiles(f *fixture, dir string, dirs, each int) {
	f.t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 10<<10)
	for i := range dirs {
		sub := filepath.Join(dir, fmt.Sprint(i))
		f.Expect(os.Mkdir(sub, 0o755)).To(Succeed())
		for j := range each {
			_, _ = random.Read(data[:len(data)/2])
			f.Expect(os.WriteFile(filepath.Join(sub, fmt.Sprint(j)), data, 0o644)).To(Succeed())
		}
	}
}
