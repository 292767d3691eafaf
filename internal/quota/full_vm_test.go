//go:build vm

package quota

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// memory keeps packs.
type memory struct {
	mu    sync.Mutex
	packs map[format.PackID][]byte
}

func (m *memory) PutPack(_ context.Context, id format.PackID, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.packs[id] = append([]byte(nil), data...)
	return nil
}

func (m *memory) ReadPack(_ context.Context, id format.PackID, offset int64, buf []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := io.ReadFull(io.NewSectionReader(strings.NewReader(string(m.packs[id])), offset, int64(len(buf))), buf)
	return err
}

// overfill makes what takes most blocks beside content (directories of long names, links, attributes) until nothing goes in.
func overfill(dir string) (files int) {
	rest, err := os.Create(filepath.Join(dir, "rest"))
	if err != nil {
		return 0
	}
	defer rest.Close()
	for i := 0; ; i++ {
		sub := filepath.Join(dir, fmt.Sprintf("%03d", i))
		if os.Mkdir(sub, 0o755) != nil {
			break
		}
		for j := range 60 {
			name := filepath.Join(sub, strings.Repeat("n", 150)+fmt.Sprint(j))
			if os.WriteFile(name, make([]byte, 10*j), 0o644) == nil {
				files++
			}
			if j%10 == 0 {
				_ = unix.Setxattr(name, "user.note", make([]byte, 500), 0)
				_ = os.Symlink(strings.Repeat("t", 200), name+".link")
			}
		}
	}
	// XFS refuses a new file long before the last block is taken, and to write to one there is only then.
	for _, err := rest.Write(make([]byte, block)); err == nil; {
		_, err = rest.Write(make([]byte, block))
	}
	return files
}

// A workspace that is full to the last block is backed up, stopped, and restored into a volume of the same size.
func TestFullVolumeIsSavedAndRestored(t *testing.T) {
	g := NewWithT(t)
	d, _ := newDriver(t)
	spec := volume.Spec{ID: "a", Size: 24 << 20}
	info := published(t, d, spec, 0)
	g.Expect(overfill(info.Path)).To(BeNumerically(">", 1000))
	before, err := d.Usage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(before.Bytes).To(And(BeNumerically(">", spec.Size-4*block), BeNumerically("<=", spec.Size)))

	g.Expect(d.Withdraw(t.Context(), "a")).To(Succeed())
	packs := &memory{packs: map[format.PackID][]byte{}}
	saved, err := archive.Create(t.Context(), d.Path("a", volume.Withdrawn), archive.CreateOptions{Sink: packs, Source: packs})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())

	info, err = d.Ensure(t.Context(), spec)
	g.Expect(err).NotTo(HaveOccurred())
	dir, err := d.Stage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	report, _, err := archive.Restore(t.Context(), saved.Root, dir, archive.RestoreOptions{Source: packs})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Digest).To(Equal(saved.Report.Digest))
	sealed, err := volume.Seal(t.Context(), dir, volume.Content{Source: "Backup", Finished: time.Unix(1, 0).UTC()})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(volume.WriteMarker(info, volume.Marker{UID: "a", Content: &sealed})).To(Succeed())
	g.Expect(d.Publish(t.Context(), "a")).To(Succeed())
	after, err := d.Usage(t.Context(), "a")
	g.Expect(err).NotTo(HaveOccurred())
	t.Logf("%d bytes and %d inodes before, %d and %d after", before.Bytes, before.Inodes, after.Bytes, after.Inodes)
	g.Expect(after.Inodes).To(Equal(before.Inodes))
	g.Expect(d.Get(t.Context(), "a")).To(HaveField("Limited", true))
	g.Expect(d.Audit(t.Context(), "a", nil)).To(Succeed())
}
