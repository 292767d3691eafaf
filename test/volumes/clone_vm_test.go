//go:build vm

package volumes

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// cloneFiles is how many files a template has that is measured.
const cloneFiles = 100_000

// BenchmarkReady measures how long it takes until users can have a volume: one that begins empty, and ones that begin with templates of
// 1 and 5 GiB. They take turns, in changing order, so that all suffer alike from whatever else the machine does. The times are also written for `make bench`.
func BenchmarkReady(b *testing.B) {
	if !onLVM() {
		b.Fatal("it measures volumes of LVM: --disks=lvm")
	}
	n := newKeeping(b, b.TempDir())
	sizes := []int{1, 5}
	for _, gib := range sizes {
		n.keep(templateOf(gib), cloneFiles, int64(gib)<<30)
	}
	took, ways := map[int][]time.Duration{}, append([]int{0}, sizes...)
	for b.Loop() {
		for _, gib := range ways {
			took[gib] = append(took[gib], n.ready(gib))
		}
		ways = append(ways[1:], ways[0]) // so that each comes after each of the others' removals
	}
	for gib, times := range took {
		b.ReportMetric(slices.Sorted(slices.Values(times))[len(times)/2].Seconds(), fmt.Sprintf("s/start-of-%dGiB", gib))
	}
	data, err := json.Marshal(took)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(os.WriteFile(filepath.Join(os.Getenv("WS_DAEMON_VM_RESULTS"), "ready.json"), data, 0o600)).To(Succeed())
	for _, gib := range sizes {
		n.Expect(n.templater().DropTemplate(n.ctx, templateOf(gib))).To(Succeed())
	}
}

func templateOf(gib int) string { return fmt.Sprintf("of%dGiB", gib) }

// ready makes a volume, from a template or empty, and publishes what is staged in it as the job that fills it does. It returns how long
// that took, and removes the volume.
func (n *keeping) ready(gib int) time.Duration {
	driver, spec := n.Volumes["default"], volume.Spec{ID: "measured", Size: 8 << 30}
	began := time.Now()
	info := n.made(gib, spec)
	c, err := volume.Seal(n.ctx, driver.Path(info.ID, volume.Staged), volume.Content{})
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(volume.WriteMarker(info, volume.Marker{UID: info.ID, Content: &c})).To(Succeed())
	n.Expect(driver.Publish(n.ctx, info.ID)).To(Succeed())
	took := time.Since(began)
	n.Expect(driver.Remove(n.ctx, info.ID)).To(Succeed())
	return took
}

// made makes a volume with staged content.
func (n *keeping) made(gib int, spec volume.Spec) volume.Info {
	driver := n.Volumes["default"]
	if gib == 0 {
		info, err := driver.Ensure(n.ctx, spec)
		n.Expect(err).NotTo(HaveOccurred())
		_, err = driver.Stage(n.ctx, spec.ID)
		n.Expect(err).NotTo(HaveOccurred())
		return info
	}
	info, err := n.templater().CloneTemplate(n.ctx, templateOf(gib), spec, func(m volume.Marker, path string) (volume.Marker, error) {
		c, err := volume.Seal(n.ctx, path, *m.Content)
		return volume.Marker{UID: spec.ID, Prepared: &c}, err
	})
	n.Expect(err).NotTo(HaveOccurred())
	return info
}

// keeping is a node without a cluster, whose volumes lie in the machine's own pool.
type keeping struct {
	*WithT
	*content.Keeper
	ctx      context.Context //nolint:containedctx // it lives as long as the test
	poolName string
}

// newKeeping makes a node below a directory.
func newKeeping(tb testing.TB, root string) *keeping {
	tb.Helper()
	g := NewWithT(tb)
	for _, dir := range []string{"area", "volumes", "store"} {
		g.Expect(os.Mkdir(filepath.Join(root, dir), 0o755)).To(Succeed())
	}
	area, err := state.Open(filepath.Join(root, "area"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(area.Init(state.Identity{Cluster: "cluster", Node: "node"})).To(Succeed())
	id, err := area.Identity()
	g.Expect(err).NotTo(HaveOccurred())
	area.Close()
	tb.Cleanup(func() { // the pool goes over to the next
		pool := os.Getenv("WS_DAEMON_VM_GROUP") + "/" + os.Getenv("WS_DAEMON_VM_POOL")
		out, err := exec.Command("lvchange", "--quiet", "--deltag", "wsdaemon.area="+id.ID, pool).CombinedOutput() //nolint:noctx // the test has ended
		g.Expect(err).NotTo(HaveOccurred(), string(out))
	})
	return openKeeping(tb, root)
}

// openKeeping starts a node that was made before.
func openKeeping(tb testing.TB, root string) *keeping {
	tb.Helper()
	n := &keeping{WithT: NewWithT(tb), ctx: tb.Context(), poolName: os.Getenv("WS_DAEMON_VM_POOL")}
	area, err := state.Open(filepath.Join(root, "area"))
	n.Expect(err).NotTo(HaveOccurred())
	tb.Cleanup(area.Close)
	driver, err := lvm.New(lvm.Class{
		Root: filepath.Join(root, "volumes"), Group: os.Getenv("WS_DAEMON_VM_GROUP"), Pool: n.poolName, Filesystem: "xfs", Overcommit: true,
	})
	n.Expect(err).NotTo(HaveOccurred())
	n.Keeper = &content.Keeper{
		Area: area, Store: fileStore(n.ctx, n.WithT, filepath.Join(root, "store")), Memory: memory.New(512 << 20),
		Volumes: map[string]volume.Driver{"default": driver}, Templates: map[string]int{"default": 2},
		Cluster: "cluster", Node: "node", StrayRetention: time.Hour, RetryMax: time.Minute, Now: time.Now,
	}
	return n
}

func idle(context.Context) error { return nil }

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

// keep makes a template as it is made of a snapshot that was restored: of a volume with so many files that have so many bytes together,
// which users have not seen. They are written here, not restored: it is the copy that is measured.
func (n *keeping) keep(name string, files int, size int64) {
	driver := n.Volumes["default"]
	info, err := driver.Ensure(n.ctx, volume.Spec{ID: "source", Size: 8 << 30})
	n.Expect(err).NotTo(HaveOccurred())
	path, err := driver.Stage(n.ctx, "source")
	n.Expect(err).NotTo(HaveOccurred())
	data := make([]byte, size/int64(files))
	for i := range files {
		dir := filepath.Join(path, strconv.Itoa(i/1000))
		if i%1000 == 0 {
			n.Expect(os.Mkdir(dir, 0o755)).To(Succeed())
		}
		n.Expect(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), data, 0o600)).To(Succeed())
	}
	c, err := volume.Seal(n.ctx, path, volume.Content{Template: name, Files: int64(files), Bytes: size})
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(volume.WriteMarker(info, volume.Marker{UID: "source", Content: &c})).To(Succeed())
	n.Expect(n.templater().KeepTemplate(n.ctx, "source", name)).To(Succeed())
	n.Expect(driver.Remove(n.ctx, "source")).To(Succeed())
}

func (n *keeping) templater() volume.Templater {
	t, ok := n.Volumes["default"].(volume.Templater)
	n.Expect(ok).To(BeTrue())
	return t
}
