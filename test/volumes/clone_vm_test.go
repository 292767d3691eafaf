//go:build vm

package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/lvm"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// BenchmarkReady measures how long it takes until a workspace is ready: one that begins empty, and one that begins with a snapshot whose
// template is on the node. Only the pool of LVM can do that.
func BenchmarkReady(b *testing.B) {
	if !onLVM() {
		b.Fatal("it measures volumes of LVM: --disks=lvm")
	}
	const files = 100_000
	n := newKeeping(b, b.TempDir())
	b.Run("empty", func(b *testing.B) { n.measure(b, content.Initializer{}) })
	for _, gib := range []int{1, 5} {
		name := fmt.Sprintf("snapshot-%d", gib)
		began := time.Now()
		n.snapshot(name, files, int64(gib)<<30)
		b.Logf("%s: %d files, %d GiB: the first one took %s", name, files, gib, time.Since(began).Round(time.Second))
		b.Run(fmt.Sprintf("%dGiB-%d-files", gib, files), func(b *testing.B) { n.measure(b, snapshotOf(name)) })
	}
	for gone := true; gone; {
		var err error
		gone, err = n.EvictTemplate(b.Context(), "default")
		n.Expect(err).NotTo(HaveOccurred())
	}
}

// keeping is a node without a cluster, whose volumes lie in the machine's own pool.
type keeping struct {
	*WithT
	*content.Keeper
	ctx      context.Context //nolint:containedctx // it lives as long as the test
	poolName string
	made     int
}

// newKeeping makes a node below a directory.
func newKeeping(t testing.TB, root string) *keeping {
	t.Helper()
	g := NewWithT(t)
	for _, dir := range []string{"area", "volumes", "store"} {
		g.Expect(os.Mkdir(filepath.Join(root, dir), 0o755)).To(Succeed())
	}
	area, err := state.Open(filepath.Join(root, "area"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(area.Init(state.Identity{Cluster: "cluster", Node: "node"})).To(Succeed())
	area.Close()
	return openKeeping(t, root)
}

// openKeeping starts a node that was made before.
func openKeeping(t testing.TB, root string) *keeping {
	t.Helper()
	n := &keeping{WithT: NewWithT(t), ctx: t.Context(), poolName: os.Getenv("WS_DAEMON_VM_POOL")}
	area, err := state.Open(filepath.Join(root, "area"))
	n.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(area.Close)
	driver, err := lvm.New(lvm.Class{
		Root: filepath.Join(root, "volumes"), Group: os.Getenv("WS_DAEMON_VM_GROUP"), Pool: n.poolName, Filesystem: "xfs", Overcommit: true,
	})
	n.Expect(err).NotTo(HaveOccurred())
	n.Keeper = &content.Keeper{
		Area: area, Store: fileStore(n.WithT, n.ctx, filepath.Join(root, "store")), Memory: memory.New(512 << 20),
		Volumes: map[string]volume.Driver{"default": driver}, Templates: map[string]int{"default": 2},
		Cluster: "cluster", Node: "node", StrayRetention: time.Hour, RetryMax: time.Minute, Now: time.Now,
	}
	return n
}

func idle(context.Context) error { return nil }

// next makes another workspace ready.
func (n *keeping) next(init content.Initializer) content.Subject {
	n.made++
	return n.begin("w"+strconv.Itoa(n.made), init)
}

// begin makes a workspace ready, and returns it.
func (n *keeping) begin(name string, init content.Initializer) content.Subject {
	s := content.Subject{UID: name, Namespace: "team", Name: name, Class: "default", Claim: 1}
	r := content.FillRequest{Subject: s, Owner: 33333, Group: 33333, InUse: idle, Initializer: init}
	n.Expect(n.Prepare(n.ctx, r, 8<<30, 0)).To(Succeed())
	_, err := n.Fill(n.ctx, r)
	n.Expect(err).NotTo(HaveOccurred())
	return s
}

func (n *keeping) drop(s content.Subject) {
	_, err := n.Remove(n.ctx, s, content.Consent{Discard: s.Claim}, idle)
	n.Expect(err).NotTo(HaveOccurred())
}

func (n *keeping) measure(b *testing.B, init content.Initializer) {
	b.Helper()
	for b.Loop() {
		s := n.next(init)
		b.StopTimer()
		o, err := n.Observe(n.ctx, s)
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(o.Marker.Content.Cloned).To(Equal(init.SnapshotID != nil))
		n.drop(s)
		b.StartTimer()
	}
}

// snapshot makes one of so many files that have so many bytes together, and a workspace that begins with it.
func (n *keeping) snapshot(id string, files int, size int64) {
	s := n.next(content.Initializer{})
	path := n.Volumes["default"].Path(s.UID, volume.Published)
	data := make([]byte, size/int64(files))
	for i := range files {
		dir := filepath.Join(path, strconv.Itoa(i/1000))
		if i%1000 == 0 {
			n.Expect(os.Mkdir(dir, 0o755)).To(Succeed())
		}
		copy(data, strconv.Itoa(i)) // no two are the same
		n.Expect(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), data, 0o600)).To(Succeed())
	}
	_, err := n.Snapshot(n.ctx, content.SaveRequest{Subject: s}, id, true)
	n.Expect(err).NotTo(HaveOccurred())
	n.drop(s)
	n.drop(n.next(snapshotOf(id)))
}
