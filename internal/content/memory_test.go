package content_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/drivers"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	manyVariable      = "WS_DAEMON_TEST_MANY"
	manyStoreVariable = "WS_DAEMON_TEST_MANY_STORE"
	// manyBackups run at once, half of them final ones.
	manyBackups = 10
)

// TestTenBackupsAtOnceStayWithinTheMemoryLimit measures processes of their own, which the race detector and other tests would disturb. The
// server of a store is another one.
func TestTenBackupsAtOnceStayWithinTheMemoryLimit(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	binary := filepath.Join(t.TempDir(), "content.test")
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, ".").CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	at := map[string]string{"file": storetest.Filesystem(t).String()}
	for kind, s := range servers(t) {
		at[kind] = s.made(t).String()
	}
	limit := config.Default().Limits.Store.Memory
	g.Expect(limit).To(BeEquivalentTo(512 << 20))
	for kind, url := range at {
		t.Run(kind, func(t *testing.T) {
			g := NewWithT(t)
			cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestManyChild$", "-test.v")
			cmd.Env = append(os.Environ(), manyVariable+"="+t.TempDir(), manyStoreVariable+"="+url, "GOMEMLIMIT=off", "GOGC=100")
			out, err := cmd.CombinedOutput()
			g.Expect(err).NotTo(HaveOccurred(), string(out))
			peak := regexp.MustCompile(`peak (\d+) KiB`).FindSubmatch(out)
			g.Expect(peak).To(HaveLen(2), string(out))
			kib, err := strconv.ParseInt(string(peak[1]), 10, 64)
			g.Expect(err).NotTo(HaveOccurred())
			t.Logf("peak %d MiB", kib>>10)
			g.Expect(kib<<10).To(BeNumerically("<", limit), "of the whole process, buffers and all")
			g.Expect(kib<<10).To(BeNumerically(">", manyBackups*32<<20), "each backup has at least one pack in memory")
		})
	}
}

// TestManyChild makes the backups in a process of its own.
func TestManyChild(t *testing.T) {
	dir := os.Getenv(manyVariable)
	if dir == "" {
		return // it is the parent's
	}
	f := &fixture{Gomega: NewWithT(t), t: t, ctx: t.Context()}
	var err error
	f.store, err = drivers.Open(t.Context(), os.Getenv(manyStoreVariable))
	f.Expect(err).NotTo(HaveOccurred())
	gate := &crawling{Store: f.store, all: make(chan struct{}), uploading: map[string]bool{}}
	f.store = gate
	n := f.node("node-a")
	n.Memory = memory.New(int64(config.Default().Limits.Store.Memory))
	makeIncompressible(f, dir)
	var wg sync.WaitGroup
	for i := range manyBackups {
		r := content.SaveRequest{Subject: content.Subject{
			UID: fmt.Sprintf("uid-%d", i), Namespace: fmt.Sprintf("team-%d", i), Name: "web", Class: "default", Claim: 1,
		}}
		f.Expect(n.tryFill(content.FillRequest{Subject: r.Subject, InUse: idle})).To(Succeed())
		linkFiles(f, dir, n.Volumes["default"].Path(r.UID, volume.Published))
		wg.Go(func() {
			if i%2 == 0 {
				f.Expect(n.Backup(f.ctx, r)).To(Succeed())
				return
			}
			_, err := n.Release(f.ctx, r, idle)
			f.Expect(err).NotTo(HaveOccurred())
		})
	}
	wg.Wait()
	f.Expect(gate.uploading).To(HaveLen(manyBackups))
	t.Logf("peak %d KiB", peakMemory(f))
}

// crawling is a store that is no directory to those who ask, and that crawls: it takes no pack before every backup sends one, or a while
// has passed, because those that have more than one buffer may keep others waiting that long.
type crawling struct {
	store.Store
	all chan struct{}

	mu        sync.Mutex
	uploading map[string]bool // by domain
}

func (r *crawling) String() string { return "remote" + r.Store.String() }

func (r *crawling) Put(ctx context.Context, key string, data []byte) error {
	if domain, pack, _ := strings.Cut(key, "/p/"); pack != "" {
		r.mu.Lock()
		if r.uploading[domain] = true; len(r.uploading) == manyBackups {
			select {
			case <-r.all:
			default:
				close(r.all)
			}
		}
		r.mu.Unlock()
		select {
		case <-r.all:
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.Store.Put(ctx, key, data)
}

// makeIncompressible makes files that fill more than a pack.
func makeIncompressible(f *fixture, dir string) {
	f.t.Helper()
	data := make([]byte, 1<<20)
	for i := range 40 {
		_, _ = rand.Read(data)
		f.Expect(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), data, 0o600)).To(Succeed())
	}
}

// linkFiles spares the disk.
func linkFiles(f *fixture, from, to string) {
	f.t.Helper()
	entries, err := os.ReadDir(from)
	f.Expect(err).NotTo(HaveOccurred())
	for _, e := range entries {
		f.Expect(os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))).To(Succeed())
	}
}

// peakMemory is the most that the process ever had in memory, in KiB.
func peakMemory(f *fixture) int64 {
	f.t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	f.Expect(err).NotTo(HaveOccurred())
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	f.Expect(peak).To(HaveLen(2))
	kib, err := strconv.ParseInt(string(peak[1]), 10, 64)
	f.Expect(err).NotTo(HaveOccurred())
	return kib
}
