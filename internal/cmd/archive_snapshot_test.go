package cmd

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// pinned keeps the newest backup of a workspace as a snapshot, as the daemon does.
func pinned(t *testing.T, at, workspace, id string) {
	t.Helper()
	g := NewWithT(t)
	s, err := store.NewFilesystem(strings.TrimPrefix(at, "--store=file://"))
	g.Expect(err).NotTo(HaveOccurred())
	d, err := history.NameDomain(s, "team")
	g.Expect(err).NotTo(HaveOccurred())
	c, _, err := d.Workspace(workspace).Current(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.Pin(t.Context(), id, c, history.Pin{Kind: history.PinSnapshot})).To(Succeed())
}

// What the snapshot has that a directory came from is not stored again, and the backup is whole without the workspace of the snapshot.
func TestArchiveCreateFromASnapshotStoresOnlyWhatIsNew(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	const size = 3_000_000
	noise := make([]byte, size)
	_, _ = rand.Read(noise)
	g.Expect(os.WriteFile(filepath.Join(dir, "noise"), noise, 0o600)).To(Succeed())
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	pinned(t, at, "web", "prebuild")

	copied := filepath.Join(t.TempDir(), "copied")
	must(t, "archive", "restore", at, inDomain, "--snapshot=prebuild", ofWeb, copied)
	g.Expect(os.WriteFile(filepath.Join(copied, "new"), []byte("new"), 0o600)).To(Succeed())
	g.Expect(os.Rename(filepath.Join(copied, "noise"), filepath.Join(copied, "src", "moved"))).To(Succeed())
	made := report(t, "archive", "create", at, inDomain, "--workspace=other", "--snapshot-of=prebuild", copied)
	g.Expect(made.BytesStored).To(BeNumerically("<", 10_000))
	g.Expect(report(t, "archive", "create", at, inDomain, "--workspace=alone", copied).BytesStored).To(BeNumerically(">", size))

	again := filepath.Join(t.TempDir(), "again")
	must(t, "archive", "verify", at, inDomain, "--workspace=other", "--read-data")
	must(t, "archive", "restore", at, inDomain, "--workspace=other", again)
	g.Expect(os.ReadFile(filepath.Join(again, "src", "moved"))).To(Equal(noise))
	g.Expect(os.ReadFile(filepath.Join(again, "new"))).To(Equal([]byte("new")))
	g.Expect(refused(t, "archive", "create", at, inDomain, ofWeb, "--snapshot-of=none", dir)).To(ContainSubstring("there is no snapshot none in domain team"))
}
