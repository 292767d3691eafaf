package cmd

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// objectsOf are the paths of all objects of a store.
func objectsOf(t *testing.T, at string) (paths []string) {
	t.Helper()
	root := strings.TrimPrefix(at, "--store=file://")
	NewWithT(t).Expect(filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})).To(Succeed())
	return paths
}

// Whatever bit of whatever object flips, verifying names it, and a restore makes the right tree or none.
func TestS10_EveryFlippedByteOfAStoreIsNamed(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for name, args := range map[string][]string{"plain": nil, "encrypted": {"--key-file=" + keep(t, t.TempDir(), "key", strings.Repeat("07", 32))}} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, at := t.TempDir(), newStoreURL(t)
			g.Expect(os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o600)).To(Succeed())
			args := append([]string{at, inDomain, ofWeb}, args...)
			must(t, append([]string{"archive", "create", dir}, args...)...)
			objects := objectsOf(t, at)
			g.Expect(len(objects)).To(BeNumerically(">=", 4), "the store, the domain, a claim, a commit and a pack")
			for _, path := range objects {
				whole, err := os.ReadFile(path)
				g.Expect(err).NotTo(HaveOccurred())
				for i := range whole {
					changed := bytes.Clone(whole)
					changed[i] ^= 1 << (i % 8)
					g.Expect(os.WriteFile(path, changed, 0o600)).To(Succeed())
					expectFlipNamed(t, args, path, fmt.Sprintf("byte %d of %s", i, path))
				}
				g.Expect(os.WriteFile(path, whole, 0o600)).To(Succeed())
			}
			must(t, append([]string{"archive", "verify", "--read-data"}, args...)...)
		})
	}
}

// expectFlipNamed verifies and restores a store with one damaged object.
func expectFlipNamed(t *testing.T, args []string, path, what string) {
	t.Helper()
	g := NewWithT(t)
	object := filepath.Base(path)
	_, err := call(t.Context(), "", append([]string{"archive", "verify", "--read-data"}, args...)...)
	g.Expect(err).To(MatchError(ContainSubstring(object)), what)
	to := filepath.Join(t.TempDir(), "to")
	if _, err := call(t.Context(), "", append([]string{"archive", "restore", to}, args...)...); err != nil {
		g.Expect(err).To(MatchError(ContainSubstring(object)), what)
		g.Expect(to).NotTo(BeADirectory(), what)
		return
	}
	data, err := os.ReadFile(filepath.Join(to, "f"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(data)).To(Equal("content"), what)
}
