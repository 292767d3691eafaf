package vm

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	. "github.com/onsi/gomega"
)

func TestImageKey(t *testing.T) {
	g := NewWithT(t)
	files := fstest.MapFS{"recipe/a": {Data: []byte("1")}, "recipe/b": {Data: []byte("2")}}
	key, err := imageKey(files, "VERSION_CODENAME=bookworm\nX=1\n")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(key).To(MatchRegexp("^[0-9a-f]{16}$"))
	g.Expect(imageKey(files, "VERSION_CODENAME=bookworm\nX=2\n")).To(Equal(key))
	g.Expect(imageKey(files, "VERSION_CODENAME=trixie\n")).NotTo(Equal(key))
	files["recipe/a"] = &fstest.MapFile{Data: []byte("3")}
	g.Expect(imageKey(files, "VERSION_CODENAME=bookworm\n")).NotTo(Equal(key))
}

func TestRunsOfDeadProcessesAreRemoved(t *testing.T) {
	g := NewWithT(t)
	c := cache{t.TempDir()}
	stale := c.path(runPrefix + "stale")
	g.Expect(os.Mkdir(stale, 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(stale, "disk"), nil, 0o644)).To(Succeed())

	first, done, err := c.newRun(t.Context(), io.Discard)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(stale).NotTo(BeADirectory())
	second, doneToo, err := c.newRun(t.Context(), io.Discard)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(first).To(BeADirectory())
	g.Expect(second).NotTo(Equal(first))
	done()
	doneToo()
	g.Expect(first).NotTo(BeADirectory())
	g.Expect(second).NotTo(BeADirectory())
}

func TestLockWaitsForItsHolder(t *testing.T) {
	g := NewWithT(t)
	c := cache{t.TempDir()}
	unlock, err := c.lock(t.Context(), "x", io.Discard)
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = c.lock(ctx, "x", io.Discard)
	g.Expect(err).To(MatchError(context.DeadlineExceeded))
	unlock()
	unlock, err = c.lock(t.Context(), "x", io.Discard)
	g.Expect(err).NotTo(HaveOccurred())
	unlock()
}

func TestRemoveUnused(t *testing.T) {
	g := NewWithT(t)
	c := cache{t.TempDir()}
	now := time.Now()
	for name, age := range map[string]time.Duration{"image-old": 2 * time.Hour, "image-new": 0, "other": 2 * time.Hour} {
		g.Expect(os.Mkdir(c.path(name), 0o755)).To(Succeed())
		g.Expect(os.Chtimes(c.path(name), now.Add(-age), now.Add(-age))).To(Succeed())
	}
	g.Expect(c.removeUnused(now.Add(-time.Hour))).To(Succeed())
	g.Expect(c.path("image-old")).NotTo(BeADirectory())
	g.Expect(c.path("image-new")).To(BeADirectory())
	g.Expect(c.path("other")).To(BeADirectory())
}

func TestCopySource(t *testing.T) {
	g := NewWithT(t)
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "src")
	for _, file := range []string{"go.mod", "a/testdata/x", "a/bin/y", ".ci/run", ".git/HEAD", ".dev/x", "bin/x", "dist/x"} {
		path := filepath.Join(from, file)
		g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(path, []byte(file), 0o750)).To(Succeed())
	}
	g.Expect(os.Symlink("go.mod", filepath.Join(from, "link"))).To(Succeed())
	g.Expect(copySource(from, to)).To(Succeed())
	var got []string
	g.Expect(filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		relative, _ := filepath.Rel(to, path)
		if !d.IsDir() {
			got = append(got, relative)
		}
		return err
	})).To(Succeed())
	g.Expect(got).To(Equal([]string{".ci/run", "a/bin/y", "a/testdata/x", "go.mod", "link"}))
	info, err := os.Stat(filepath.Join(to, "go.mod"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o750)))
	g.Expect(os.Readlink(filepath.Join(to, "link"))).To(Equal("go.mod"))
}

func TestSizeOfCountsBlocks(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	empty, err := sizeOf(dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(filepath.Join(dir, "x"), make([]byte, 4097), 0o644)).To(Succeed())
	g.Expect(sizeOf(dir)).To(Equal(empty + 3*4096))
}
