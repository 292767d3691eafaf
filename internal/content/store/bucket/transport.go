package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	idleTimeout = 90 * time.Second
	// idlePerHost is more than a node ever has in flight, so that no connection is made twice.
	idlePerHost = 128
	// stallTimeout is how long a request may make no progress at all: no byte sent, none received. It has nothing to do with how long
	// the whole takes.
	stallTimeout = 30 * time.Second
)

// errStalled ends a request that makes no progress.
var errStalled = errors.New("the connection made no progress")

// Reply is what the last reply to a request said beside its content.
type Reply struct {
	// Method is that of the request.
	Method string
	// Status is the HTTP status, 0 if there was no reply.
	Status int
	// Date is the server's clock, in whole seconds.
	Date time.Time
	// After is the pause that the server asks for, 0 if it does not.
	After time.Duration
}

type replyKey struct{}

// Traced returns a context that notes the reply to the requests made with it, one after the other. Within a traced one it is that.
func Traced(ctx context.Context) (context.Context, *Reply) {
	if reply, ok := ctx.Value(replyKey{}).(*Reply); ok {
		return ctx, reply
	}
	reply := &Reply{}
	return context.WithValue(ctx, replyKey{}, reply), reply
}

// NewTransport returns the connections to a store: as many as are needed at once. The certificates in the file ca are trusted beside
// those of the system, if it is not empty. Requests end when they make no progress for half a minute.
func NewTransport(ca string) (http.RoundTripper, error) {
	roots, err := authorities(ca)
	if err != nil {
		return nil, err
	}
	return &watched{limit: stallTimeout, inner: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		MaxIdleConnsPerHost:   idlePerHost,
		IdleConnTimeout:       idleTimeout,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // ranges are of what is stored
		// HTTP/1.1 only: with one connection for everything, one lost packet would hold up all.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}}, nil
}

// authorities are those of the system, which nil means, and those in a file.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the store's CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // there are none
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the store's CA file %s has no certificate: it must be in PEM format", file)
	}
	return pool, nil
}

// watched ends requests that make no progress, and notes replies.
type watched struct {
	inner http.RoundTripper
	limit time.Duration
}

func (w *watched) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	watch := &watch{limit: w.limit, timer: time.AfterFunc(w.limit, func() { cancel(errStalled) }), cancel: cancel}
	req = req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedBody{ReadCloser: req.Body, watch: watch}
		req.GetBody = nil // a body that was begun is sent again by the caller only
	}
	resp, err := w.inner.RoundTrip(req)
	if err != nil {
		watch.end()
		return nil, cause(ctx, err)
	}
	watch.progress()
	note(ctx, resp)
	resp.Body = &watchedBody{ReadCloser: resp.Body, watch: watch, ctx: ctx, last: true}
	return resp, nil
}

// cause names a stall, which the transport calls cancelled.
func cause(ctx context.Context, err error) error {
	if stalled := context.Cause(ctx); errors.Is(stalled, errStalled) {
		return stalled
	}
	return err
}

func note(ctx context.Context, resp *http.Response) {
	reply, ok := ctx.Value(replyKey{}).(*Reply)
	if !ok {
		return
	}
	*reply = Reply{Status: resp.StatusCode, Method: resp.Request.Method}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		reply.Date = date.UTC()
	}
	after := resp.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(after); err == nil {
		reply.After = time.Duration(max(0, seconds)) * time.Second
	} else if at, err := http.ParseTime(after); err == nil && !reply.Date.IsZero() {
		reply.After = max(0, at.Sub(reply.Date))
	}
}

// watch is the timer of one request.
type watch struct {
	mu     sync.Mutex
	limit  time.Duration
	timer  *time.Timer
	ended  bool
	cancel context.CancelCauseFunc
}

func (w *watch) progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.timer.Reset(w.limit)
	}
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// watchedBody reports progress. Each read is one, and so is the call itself: whoever reads slowly is not a store that stalls.
type watchedBody struct {
	io.ReadCloser
	watch *watch
	ctx   context.Context //nolint:containedctx // the request's, whose cause tells a stall
	last  bool            // its end is the end of the request
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.progress()
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.watch.progress()
	}
	if err != nil && b.last && !errors.Is(err, io.EOF) {
		err = cause(b.ctx, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	if b.last {
		b.watch.end()
	}
	return err
}
