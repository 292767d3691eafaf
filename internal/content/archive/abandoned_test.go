package archive_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// lateSource gives up every other request, which goes on writing to its buffer until the end of the test.
type lateSource struct {
	archive.Source
	mu      sync.Mutex
	count   int
	end     chan struct{}
	running sync.WaitGroup
}

func newLateSource(t *testing.T, s archive.Source) *lateSource {
	t.Helper()
	l := &lateSource{Source: s, end: make(chan struct{})}
	t.Cleanup(func() {
		close(l.end)
		l.running.Wait()
	})
	return l
}

func (l *lateSource) ReadPack(ctx context.Context, id format.PackID, offset int64, buf []byte) error {
	l.mu.Lock()
	l.count++
	late := l.count%2 == 0
	l.mu.Unlock()
	if !late {
		return l.Source.ReadPack(ctx, id, offset, buf)
	}
	l.running.Go(func() {
		for {
			select {
			case <-l.end:
				return
			default:
				clear(buf)
			}
		}
	})
	return errors.New("no answer within 1m0s")
}

// A request that was given up may still write to its buffer, which therefore nobody uses again.
func TestBuffersOfAbandonedRequestsAreForgotten(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `for i in 1 2 3 4 5 6 7 8; do head -c 3000000 /dev/urandom >$i; done`)
	source := newLateSource(t, b.store)
	to := t.TempDir()
	report, _, err := archive.Restore(t.Context(), b.last.Root, to, archive.RestoreOptions{Source: source, Salvage: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.UnreadableCount).To(BeNumerically("~", 4, 2), "some were given up twice")
	want := independentWalk(t, b.dir)
	for name, made := range independentWalk(t, to) {
		g.Expect(made).To(Equal(want[name]), name)
	}
	g.Expect(archive.Verify(t.Context(), b.last.Root, source, nil, true, nil)).To(MatchError(ContainSubstring("no answer")))
}
