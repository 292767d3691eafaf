package nodes

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// The API server asks for a connection in this way.
func TestProxyConnectsWithNodesOnly(t *testing.T) {
	g := NewWithT(t)
	node := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	t.Cleanup(node.Close)
	socket := filepath.Join(t.TempDir(), "s")
	p, err := newProxy(t.Context(), socket)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(p.close)
	p.lead("10.0.2.15:10250", strings.TrimPrefix(node.URL, "https://"))

	transport, ok := node.Client().Transport.(*http.Transport)
	g.Expect(ok).To(BeTrue())
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy"})
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	transport.TLSClientConfig.ServerName = "example.com" // what the certificate of httptest says
	post := func(host string) (string, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host, strings.NewReader("hello"))
		g.Expect(err).NotTo(HaveOccurred())
		response, err := node.Client().Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		return string(text), err
	}
	g.Expect(post("10.0.2.15:10250")).To(Equal("hello"))
	_, err = post("10.0.2.16:10250")
	g.Expect(err).To(MatchError(ContainSubstring("Bad Gateway")))
}

func TestShellImage(t *testing.T) {
	g := NewWithT(t)
	layer, err := shellLayer(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	links := map[string]string{}
	for archive := tar.NewReader(bytes.NewReader(layer)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		g.Expect(err).NotTo(HaveOccurred())
		links[header.Name] = header.Linkname
	}
	g.Expect(links).To(And(HaveKeyWithValue("bin/busybox", ""), HaveKeyWithValue("bin/sh", "busybox"), HaveKeyWithValue("bin/sleep", "busybox")))
}

func TestEventuallyTellsTheLastError(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("too late"))
	defer cancel()
	err := eventually(ctx, "it is ready", func(context.Context) error { return errors.New("not yet") })
	NewWithT(t).Expect(err).To(MatchError("wait until it is ready: too late\nnot yet"))
}
