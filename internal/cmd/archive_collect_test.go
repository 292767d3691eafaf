package cmd

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// age makes everything in a store older: its clock is that of the files.
func age(t *testing.T, at string, by time.Duration) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(filepath.WalkDir(storeDir(at), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		old := info.ModTime().Add(-by)
		return os.Chtimes(path, old, old)
	})).To(Succeed())
}

func storeDir(at string) string { return strings.TrimPrefix(at, "--store=file://") }

func collected(t *testing.T, args ...string) history.Collection {
	t.Helper()
	var c history.Collection
	NewWithT(t).Expect(json.Unmarshal([]byte(must(t, append([]string{"archive", "collect", "--json"}, args...)...)), &c)).To(Succeed())
	return c
}

func TestArchiveCollect(t *testing.T) {
	g, src := NewWithT(t), t.TempDir()
	at := newStoreURL(t)
	keep(t, src, "file", "content")
	must(t, "archive", "create", at, inDomain, ofWeb, src)
	orphan := filepath.Join(storeDir(at), "d/team/p/ab", "ab"+strings.Repeat("0", 30))
	g.Expect(os.MkdirAll(filepath.Dir(orphan), 0o700)).To(Succeed())
	keep(t, filepath.Dir(orphan), filepath.Base(orphan), "left by a killed writer")

	g.Expect(collected(t, at, inDomain).Idle).To(BeZero(), "it may be of a backup that is being made")
	age(t, at, 25*time.Hour)
	trial := collected(t, at, inDomain)
	g.Expect([]int64{trial.Packs, trial.Idle, trial.IdleBytes, trial.Condemned}).To(Equal([]int64{2, 1, 23, 0}))
	g.Expect(must(t, "archive", "collect", at, inDomain)).To(MatchRegexp(
		`^domain team: 2 packs, \d+ bytes; no backup needs 1 of them, 23 bytes\nnothing was changed: --delete condemns`))
	g.Expect(must(t, "archive", "collect", at, inDomain, "--delete")).To(MatchRegexp(`removed 0 packs, 0 bytes\ncondemned are 1 packs: run it again after 2`))
	g.Expect(must(t, "archive", "collect", at, inDomain, "--delete")).To(MatchRegexp(`^removed 0 packs, 0 bytes\ncondemned are 1 packs`), "too early")
	g.Expect(orphan).To(BeAnExistingFile())
	age(t, at, 25*time.Hour)
	g.Expect(must(t, "archive", "collect", at, inDomain, "--delete")).To(ContainSubstring("removed 1 packs, 23 bytes\n"))
	g.Expect(orphan).NotTo(BeAnExistingFile())
	must(t, "archive", "verify", at, inDomain, ofWeb, "--read-data")

	g.Expect(refused(t, "archive", "collect", at)).To(ContainSubstring("--domain is needed"))
	g.Expect(refused(t, "archive", "collect", at, "--domain=other")).To(ContainSubstring("there is no domain other"))
	g.Expect(refused(t, "archive", "collect", at, inDomain, "--wait=10m")).To(ContainSubstring("too short"))
	g.Expect(os.RemoveAll(filepath.Join(storeDir(at), "d/team/p"))).To(Succeed())
	g.Expect(refused(t, "archive", "collect", at, inDomain)).To(MatchRegexp(`domain team lacks 1 packs that backups need, the first: pack \S+ is needed by 1\.1 of workspace web`))
}
