package archive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// noPacks takes packs and forgets them.
type noPacks struct{}

func (noPacks) PutPack(context.Context, format.PackID, []byte) error { return nil }

// manyPages makes a backup whose pages are more than the decoders decode in advance.
func manyPages(t *testing.T) *Result {
	t.Helper()
	g := NewWithT(t)
	dir := t.TempDir()
	for i := range 12_000 {
		g.Expect(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600)).To(Succeed())
	}
	res, err := Create(t.Context(), dir, CreateOptions{Sink: noPacks{}})
	g.Expect(err).NotTo(HaveOccurred())
	return res
}

// Who walks through the parent when everything ends is told why, and does not wait for pages that nobody decodes any more.
func TestS7_WalkThroughTheParentEnds(t *testing.T) {
	g := NewWithT(t)
	res := manyPages(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	p, err := openParent(ctx, &CreateOptions{Parent: &res.Root, Index: res.Index}, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(len(p.refs)).To(BeNumerically(">", 30))
	reason := errors.New("the store is full")
	cancel(reason)
	for name, walk := range map[string]func(c *parentCursor){
		"entries":   func(c *parentCursor) { c.enter(); c.leave() },
		"directory": func(c *parentCursor) { c.seek([]byte("zzz")) },
		"pages":     func(c *parentCursor) { turnAll(c) },
	} {
		ended := make(chan error, 1)
		go func() {
			c := newParentCursor(ctx, p)
			defer c.close()
			if c.page != nil {
				walk(c)
			}
			ended <- c.err
		}()
		g.Eventually(ended, "20s").Should(Receive(MatchError(reason)), name)
	}
}

func turnAll(c *parentCursor) {
	for c.page != nil {
		c.turn()
	}
}
