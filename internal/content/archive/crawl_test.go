package archive_test

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

// crawlingSink takes packs one by one, whenever it likes.
type crawlingSink struct{ arrived, next chan struct{} }

func (s crawlingSink) PutPack(ctx context.Context, _ format.PackID, _ []byte) error {
	s.arrived <- struct{}{}
	select {
	case <-s.next:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// There is memory for one backup at a time, and one whose packs crawl has it. After a pack it lets the next one go first, and goes on when that
// has ended: nobody waits for all that it has to send.
func TestABackupWhosePacksCrawlLetsOthersGoFirst(t *testing.T) {
	g := NewWithT(t)
	const packs = 3
	large, small := t.TempDir(), t.TempDir()
	noise := make([]byte, packs*(16<<20))
	_, _ = rand.Read(noise)
	g.Expect(os.WriteFile(filepath.Join(large, "noise"), noise, 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(small, "file"), []byte("content"), 0o600)).To(Succeed())
	budget := memory.New(45 << 20)
	crawling := crawlingSink{make(chan struct{}), make(chan struct{})}
	create := func(dir, name string, sink archive.Sink) chan error {
		ended := make(chan error, 1)
		go func() {
			ctx := fair.With(t.Context(), name, fair.Urgent)
			_, err := archive.Create(ctx, dir, archive.CreateOptions{Sink: sink, Memory: budget, Connections: 1})
			ended <- err
		}()
		return ended
	}
	slow := create(large, "slow", crawling)
	g.Eventually(crawling.arrived, "30s").Should(Receive())
	quick := crawlingSink{make(chan struct{}, 1), make(chan struct{}, 1)}
	quick.next <- struct{}{}
	next := create(small, "next", quick)
	g.Eventually(func() int { return budget.Waiting("next") }, "30s").Should(Equal(1))
	g.Expect(next).NotTo(Receive())

	crawling.next <- struct{}{}
	g.Eventually(next, "30s").Should(Receive(BeNil()))
	for sent := 1; sent <= packs; sent++ { // what does not fit because of headers is in one more
		g.Eventually(crawling.arrived, "30s").Should(Receive())
		crawling.next <- struct{}{}
	}
	g.Eventually(slow, "30s").Should(Receive(BeNil()))
}
