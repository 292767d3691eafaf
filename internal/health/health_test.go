package health_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"

	"wsdaemon.dev/ws-daemon/internal/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server for a test.
func serve(t *testing.T, logger logr.Logger) *health.Server {
	t.Helper()
	g := NewWithT(t)
	s := health.New(logger, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	g.Eventually(s.Address).ShouldNot(BeEmpty())
	t.Cleanup(func() {
		cancel()
		g.Eventually(ended).Should(Receive(BeNil()))
	})
	return s
}

type reply struct {
	Code int
	Body string
}

func get(t *testing.T, s *health.Server, path string) reply {
	t.Helper()
	g := NewWithT(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Address()+path, nil)
	g.Expect(err).NotTo(HaveOccurred())
	response, err := client.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return reply{response.StatusCode, string(body)}
}

func TestReadyOnceStartedAndEveryCheckPasses(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, logr.Discard())
	var disk atomic.Pointer[error]
	s.Require("volumes", func(context.Context) error {
		if err := disk.Load(); err != nil {
			return *err
		}
		return nil
	})
	s.Require("cache", func(context.Context) error { return nil })
	g.Expect(get(t, s, "/healthz")).To(Equal(reply{200, "ok\n"}))
	g.Expect(get(t, s, "/readyz")).To(Equal(reply{503, "start failed\n"}))
	s.Started()
	g.Expect(get(t, s, "/readyz")).To(Equal(reply{200, "cache ok\nvolumes ok\n"}))
	broken := errors.New("/mnt/secret-place is not mounted")
	disk.Store(&broken)
	g.Expect(get(t, s, "/readyz")).To(Equal(reply{503, "cache ok\nvolumes failed\n"}), "the reason is not for everybody")
	g.Expect(get(t, s, "/healthz")).To(Equal(reply{200, "ok\n"}), "it lives")
	g.Expect(get(t, s, "/other").Code).To(Equal(404))
}

func TestWhyItIsNotReadyIsLoggedOnce(t *testing.T) {
	g := NewWithT(t)
	var lines []string
	s := serve(t, funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
	fails := atomic.Bool{}
	fails.Store(true)
	s.Require("volumes", func(context.Context) error {
		if fails.Load() {
			return errors.New("no disk")
		}
		return nil
	})
	s.Started()
	for range 3 {
		g.Expect(get(t, s, "/readyz").Code).To(Equal(503))
	}
	fails.Store(false)
	g.Expect(get(t, s, "/readyz").Code).To(Equal(200))
	g.Expect(get(t, s, "/readyz").Code).To(Equal(200))
	g.Expect(lines).To(Equal([]string{
		`"level"=0 "msg"="not ready" "because"="volumes: no disk"`,
		`"level"=0 "msg"="ready"`,
	}))
}

func TestACheckThatHangsKeepsNobodyWaiting(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, logr.Discard())
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	s.Require("volumes", func(context.Context) error { // in the kernel, where no context counts
		<-release
		return nil
	})
	s.Started()
	g.Expect(get(t, s, "/readyz")).To(Equal(reply{503, "volumes failed\n"}))
}

// An address that is taken is waited for: nothing else of the daemon stops.
func TestAnAddressInUseIsNamedAndWaitedFor(t *testing.T) {
	g := NewWithT(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	lines := make(chan string, 100)
	s := health.New(funcr.New(func(_, args string) { lines <- args }, funcr.Options{}), taken.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	g.Eventually(lines).Should(Receive(And(ContainSubstring("health.address: listen tcp "+taken.Addr().String()),
		ContainSubstring("address already in use"), ContainSubstring("another daemon of this node"))))
	g.Expect(s.Address()).To(BeEmpty())
	g.Expect(taken.Close()).To(Succeed())
	g.Eventually(s.Address, "20s").Should(Equal(taken.Addr().String()))
	g.Expect(get(t, s, "/healthz")).To(Equal(reply{200, "ok\n"}))
	cancel()
	g.Eventually(ended).Should(Receive(BeNil()))
}

func TestNoAddressNoServer(t *testing.T) {
	g := NewWithT(t)
	s := health.New(logr.Discard(), "")
	g.Expect(s.Run(t.Context())).To(Succeed())
	g.Expect(s.Address()).To(BeEmpty())
}
