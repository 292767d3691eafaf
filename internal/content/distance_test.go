package content_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// distant is a store that is no directory to those who ask, and each of whose requests takes longer.
type distant struct {
	store.Store
	delay time.Duration
	reads atomic.Int64 // of ranges
	last  atomic.Int64 // when the last one of them was answered, in nanoseconds
}

func (d *distant) String() string { return "distant" + d.Store.String() }

func (d *distant) wait(ctx context.Context) {
	select {
	case <-time.After(d.delay):
	case <-ctx.Done():
	}
}

func (d *distant) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	d.wait(ctx)
	return d.Store.Get(ctx, key, limit)
}

func (d *distant) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	d.wait(ctx)
	d.reads.Add(1)
	d.last.Store(time.Now().UnixNano())
	return d.Store.Read(ctx, key, offset, buf)
}

func (d *distant) Stat(ctx context.Context, key string) (store.Object, error) {
	d.wait(ctx)
	return d.Store.Stat(ctx, key)
}

func (d *distant) List(ctx context.Context, prefix, after string, limit int) ([]store.Object, error) {
	d.wait(ctx)
	return d.Store.List(ctx, prefix, after, limit)
}

// newDistance has a workspace without a cluster, whose store is far away.
func newDistance(t *testing.T) (*fixture, *distant, content.Standalone) {
	t.Helper()
	f := newFixture(t)
	far := &distant{Store: f.store}
	f.store = far
	d, _ := f.open()
	return f, far, content.Standalone{Domain: d, Namespace: "team", Workspace: "web"}
}

// TestDistanceIsHidden restores in a world in which only the way to the store takes time: 20 ms for each request. So it does not matter how
// busy this machine is, and what is measured is what distance adds at most, since nothing else is done meanwhile. Eight ranges of 8 MiB
// are under way at once, and little comes one after the other: the 150 ranges of a whole GiB add four tenths of a second at most, to a restore
// of 100,000 files that takes some seconds.
func TestDistanceIsHidden(t *testing.T) {
	t.Parallel()
	f, far, a := newDistance(t)
	from := t.TempDir()
	data := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	for i := range 160 {
		_, _ = random.Read(data)
		f.Expect(os.WriteFile(filepath.Join(from, fmt.Sprint(i)), data, 0o600)).To(Succeed())
	}
	made, err := a.Create(f.ctx, from, "", "")
	f.Expect(err).NotTo(HaveOccurred())
	const delay = 20 * time.Millisecond
	var took time.Duration // until the last answer; what comes then waits for the kernel's own clock
	synctest.Test(t, func(t *testing.T) {
		far.delay = delay
		far.reads.Store(0)
		began := time.Now().UnixNano()
		_, err := a.Restore(t.Context(), made.Commit, filepath.Join(from, "to"), nil, false, "")
		took = time.Duration(far.last.Load() - began)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	})
	rounds := int64(took / delay)
	t.Logf("%d ranges took as long as %d requests one after the other", far.reads.Load(), rounds)
	f.Expect(far.reads.Load()).To(BeNumerically(">=", 160/8))
	f.Expect(rounds).To(BeNumerically("<=", far.reads.Load()/8+2))
}
