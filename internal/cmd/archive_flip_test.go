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

// Verifying a backup says for each pack that is lost which others need it.
func TestVerifyNamesAllThatNeedALostPack(t *testing.T) {
	g := NewWithT(t)
	dir, at := t.TempDir(), newStoreURL(t)
	for _, name := range []string{"one", "two"} {
		keep(t, dir, name, name)
		must(t, "archive", "create", dir, at, inDomain, ofWeb)
	}
	keep(t, dir, "three", "three")
	must(t, "archive", "create", dir, at, inDomain, "--workspace=api")
	packs, err := filepath.Glob(filepath.Join(storeDir(at), "d/team/p/*/*"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(packs).To(HaveLen(3))
	for _, path := range packs {
		g.Expect(os.Rename(path, path+".away")).To(Succeed())
	}
	out, err := call(t.Context(), "", "archive", "verify", at, inDomain, ofWeb)
	g.Expect(err).To(MatchError(MatchRegexp(`^backup 1\.2 of workspace web in domain team cannot be read: look for pack: .* object not found; and 1 more packs are missing or damaged; pack \S+ is needed by 1\.2, 1\.1 of workspace web: bring the object back`)))
	g.Expect(strings.Split(out, "\n")).To(ConsistOf(
		MatchRegexp(`^pack \S+ is needed by 1\.2, 1\.1 of workspace web$`), MatchRegexp(`^pack \S+ is needed by 1\.2 of workspace web$`), ""))
	for _, path := range packs {
		g.Expect(os.Rename(path+".away", path)).To(Succeed())
	}
	g.Expect(must(t, "archive", "verify", at, inDomain, ofWeb)).To(HavePrefix("backup 1.2 is whole"))
}
