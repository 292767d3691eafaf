package content_test

import (
	"bytes"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

// Whoever looks at what is stored writes nothing, needs no volume, and sees sealed backups by the domain's keys.
func TestStoredIsOnlyRead(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	key, err := format.ParseKey([]byte(strings.Repeat("7f", 32)))
	f.Expect(err).NotTo(HaveOccurred())
	for _, n := range []*node{a, b} {
		n.Keys = key.For
	}
	_, err = b.Stored(f.ctx, subject(1))
	f.Expect(err).To(Equal(&content.AbsentError{Subject: subject(1), What: "backup"}))
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "three")
	a.backup(1)

	b.Memory = memory.New(2 * archive.ExportMemory)
	var tar bytes.Buffer
	var rows []string
	calls := b.counted(func() {
		stored, err := b.Stored(f.ctx, subject(1))
		f.Expect(err).NotTo(HaveOccurred())
		backups, more, err := stored.Backups(f.ctx, history.Name{}, 1)
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(more).To(BeTrue())
		f.Expect(backups[0].Name.String()).To(Equal("1.2"))
		backups, more, err = stored.Backups(f.ctx, backups[0].Name, 1)
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(more).To(BeFalse())
		f.Expect(backups[0].Commit.Tree.Bytes).To(Equal(int64(3)))
		c, err := stored.Find(f.ctx, "", "")
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(stored.Files(f.ctx, c, "file", false, func(r archive.Row) error {
			rows = append(rows, r.Path)
			return nil
		})).To(Succeed())
		f.Expect(stored.Export(f.ctx, c, &tar)).To(Succeed())
	})
	f.Expect(rows).To(Equal([]string{"file"}))
	f.Expect(tar.String()).To(ContainSubstring("three"))
	f.Expect(append(matching(calls, "put"), matching(calls, "delete")...)).To(BeEmpty())
	share, err := b.Memory.Join(f.ctx, archive.ExportMemory)
	f.Expect(err).NotTo(HaveOccurred(), "the export has given back its memory")
	share.Close()
}

// Other clusters' domains are not looked into, and an export that cannot have its memory does not begin.
func TestStoredIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	b.Cluster = "another"
	_, err := b.Stored(f.ctx, subject(1))
	f.Expect(err).To(MatchError(history.ErrOtherCluster))
	stored, err := a.Stored(f.ctx, subject(1))
	f.Expect(err).NotTo(HaveOccurred())
	c, err := stored.Find(f.ctx, "1.1", "")
	f.Expect(err).NotTo(HaveOccurred())
	a.Memory = memory.New(1 << 20)
	f.Expect(stored.Export(f.ctx, c, &bytes.Buffer{})).To(MatchError(HaveSuffix("raise the limit")))
	_, err = stored.Find(f.ctx, "2.1", "")
	f.Expect(err).To(MatchError("the store has no backup 2.1 of workspace team/web: list its backups to see what there is"))
}
