package content_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// counting serves each path as its own content, and counts; what is broken ends half way.
type counting struct {
	*httptest.Server
	asked  atomic.Int64
	broken atomic.Bool
}

func newCounting(t *testing.T) *counting {
	t.Helper()
	c := &counting{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.asked.Add(1)
		if c.broken.Load() && r.URL.Path == "/two" {
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(r.URL.Path))
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *counting) steps(names ...string) []content.Initializer {
	steps := make([]content.Initializer, 0, len(names))
	for _, name := range names {
		steps = append(steps, content.Initializer{Download: &initializer.DownloadSpec{URL: c.URL + "/" + name, Path: name}})
	}
	return steps
}

func (f *fixture) sandboxed(name string) *node {
	f.t.Helper()
	n := f.node(name)
	box, err := sandbox.New(f.ctx, sandbox.Options{})
	f.Expect(err).NotTo(HaveOccurred())
	n.Git = initializer.Git{Sandbox: box, AllowedSchemes: []string{"http"}}
	return n
}

// An attempt that fails leaves nothing to the next one, and what is finished is never done again.
func TestS5_InitializersBeginAgainAndEndOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	n := f.sandboxed("node-a")
	c := newCounting(t)
	f.Expect(n.Provision(f.ctx, subject(1), 1<<20, 0)).To(Succeed())
	r := fillRequest(1)
	r.Initializer.Steps = c.steps("one", "two")
	c.broken.Store(true)
	f.Expect(n.Fill(f.ctx, r)).Error().To(MatchError(ContainSubstring("step 2 of 2 of the initializer: download " + c.URL + "/two")))
	f.Expect(n.seen().Finished()).To(BeFalse())

	c.broken.Store(false)
	r.Initializer.Steps = c.steps("three", "two")
	f.Expect(n.Fill(f.ctx, r)).Error().NotTo(HaveOccurred())
	f.Expect(n.files()).To(Equal("three=/three two=/two"))
	got := *n.seen().Marker.Content
	f.Expect(got.Source).To(Equal(content.SourceComposite))
	f.Expect([]int64{got.Files, got.Bytes}).To(Equal([]int64{2, 10}))
	for i := range got.Steps {
		f.Expect(got.Steps[i].Duration).To(BeNumerically(">", 0))
		got.Steps[i].Duration = 0
	}
	f.Expect(got.Steps).To(Equal([]volume.Step{
		{Source: content.SourceDownload, From: c.URL + "/three", Files: 1, Bytes: 6},
		{Source: content.SourceDownload, From: c.URL + "/two", Files: 1, Bytes: 4},
	}))

	asked := c.asked.Load()
	n.restart()
	f.Expect(n.Fill(f.ctx, r)).Error().NotTo(HaveOccurred())
	f.Expect(c.asked.Load()).To(Equal(asked))
}

func TestOnlyTheFirstStepRestoresASnapshot(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	n := f.sandboxed("node-a")
	c := newCounting(t)
	f.Expect(n.Provision(f.ctx, subject(1), 1<<20, 0)).To(Succeed())
	r := fillRequest(1)
	r.Initializer.Steps = append(c.steps("one"), content.Initializer{SnapshotID: func(context.Context) (string, error) { return "x", nil }})
	f.Expect(n.Fill(f.ctx, r)).Error().To(MatchError(ContainSubstring("a snapshot can be restored by the first step only")))
}

// A stop waits for no clone.
func TestInitializersAreStopped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	n := f.sandboxed("node-a")
	ctx, cancel := context.WithCancel(f.ctx)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }))
	t.Cleanup(s.Close)
	f.Expect(n.Provision(f.ctx, subject(1), 1<<20, 0)).To(Succeed())
	r := fillRequest(1)
	r.Initializer.Git = &initializer.GitSpec{URL: s.URL + "/r.git"}
	began := time.Now()
	f.Expect(n.Fill(ctx, r)).Error().To(MatchError(context.Canceled))
	f.Expect(time.Since(began)).To(BeNumerically("<", 20*time.Second))
}
