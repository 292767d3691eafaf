package initializer

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxFailures is how often in a row a request may bring nothing.
	maxFailures  = 5
	maxRedirects = 5
	maxPause     = 30 * time.Second
	// maxRetryAfter is what is believed of the seconds that a server wants to be left alone for.
	maxRetryAfter = 24 * 3600
	// maxHeader is what an answer may have before the file.
	maxHeader = 256 << 10
)

// source is a file on a server, as one stream: what breaks off goes on where it was.
type source struct {
	ctx    context.Context //nolint:containedctx // it is that of the one task of this process
	client *http.Client
	order  downloadOrder
	home   *url.URL

	body     io.ReadCloser
	cancel   context.CancelFunc
	offset   int64 // of the next byte
	size     int64 // of the whole file, -1 if the server does not say
	tag      string
	failures int
	done     bool
}

func newSource(ctx context.Context, order downloadOrder) *source {
	home, _ := url.Parse(order.Spec.URL) // it was validated
	s := &source{ctx: ctx, order: order, home: home, size: -1}
	s.client = &http.Client{
		CheckRedirect: s.redirect,
		Transport: &http.Transport{
			DisableCompression: true, // ranges are those of the file
			Proxy:              nil, TLSHandshakeTimeout: order.Stall, ResponseHeaderTimeout: order.Stall,
			MaxResponseHeaderBytes: maxHeader,
			DialContext:            (&gate{deny: order.Deny}).dialer(order.Stall).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		},
	}
	return s
}

func (s *source) close() {
	if s.body != nil {
		s.cancel()
		_ = s.body.Close()
		s.body = nil
	}
}

// redirect follows to other hosts, but not to weaker schemes, and without the credentials.
func (s *source) redirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return newError(Invalid, nil, "download %s: more than %d redirects", s.order.Spec.URL, maxRedirects)
	case r.URL.Scheme != "https" && r.URL.Scheme != s.home.Scheme:
		return newError(Invalid, nil, "download %s: the server redirects to %s, which is not allowed", s.order.Spec.URL, r.URL.Scheme)
	}
	s.authorize(r)
	return nil
}

// authorize gives the credentials to exactly the scheme, host and port that they are for.
func (s *source) authorize(r *http.Request) {
	r.Header.Del("Authorization")
	c := s.order.Spec.Credentials
	if c == nil || r.URL.Scheme != s.home.Scheme || r.URL.Host != s.home.Host {
		return
	}
	r.Header.Set("Authorization", c.header())
}

// header is what a server is shown.
func (c *Credentials) header() string {
	if c.Bearer != "" {
		return "Bearer " + c.Bearer
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// Read asks again for what is missing until nothing is.
func (s *source) Read(p []byte) (int, error) {
	for {
		if s.done {
			return 0, io.EOF
		}
		if s.body == nil {
			if err := s.connect(); err != nil {
				return 0, err
			}
		}
		n, err := s.body.Read(p)
		if s.size >= 0 && int64(n) > s.size-s.offset {
			return 0, newError(Failed, nil, "download %s: the server sends more than the %d bytes that it says there are", s.order.Spec.URL, s.size)
		}
		s.offset += int64(n)
		if n > 0 {
			s.failures = 0
		}
		if err != nil {
			s.close()
			s.done = errors.Is(err, io.EOF) && (s.size < 0 || s.offset == s.size)
			if err := s.missed(err); !s.done && err != nil {
				return n, err
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

// missed waits before the next request, or gives up.
func (s *source) missed(cause error) error {
	if s.done {
		return nil
	}
	s.failures++
	if s.failures > maxFailures {
		return newError(Failed, cause, "download %s: %s", s.order.Spec.URL, s.plain(cause))
	}
	return s.wait(s.order.Pause << (s.failures - 1))
}

func (s *source) wait(d time.Duration) error {
	timer := time.NewTimer(min(d, maxPause))
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return s.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// plain says what is wrong without the URL, which the message has already.
func (s *source) plain(err error) string {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if errors.Is(err, context.Canceled) && s.ctx.Err() == nil {
		return fmt.Sprintf("the server said nothing for %s", s.order.Stall)
	}
	return err.Error()
}

// connect asks until the server answers with the part that is wanted.
func (s *source) connect() error {
	for {
		response, cancel, err := s.request() //nolint:bodyclose // it is s.body, which close closes
		if err != nil {
			if final := s.hopeless(err); final != nil {
				return final
			}
			if err := s.missed(err); err != nil {
				return err
			}
			continue
		}
		s.cancel = cancel
		s.body = &patient{ReadCloser: response.Body, timer: time.AfterFunc(s.order.Stall, cancel), stall: s.order.Stall}
		again, err := s.accept(response)
		if err == nil && !again {
			return nil
		}
		s.close()
		if err != nil {
			return err
		}
	}
}

func (s *source) request() (*http.Response, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.order.Spec.URL, nil)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	r.Header.Set("User-Agent", "ws-daemon")
	r.Header.Set("Accept-Encoding", "identity") // the file as it is, of which its digest is
	s.authorize(r)
	if s.offset > 0 {
		r.Header.Set("Range", "bytes="+strconv.FormatInt(s.offset, 10)+"-")
		if s.tag != "" {
			r.Header.Set("If-Range", s.tag)
		}
	}
	response, err := s.client.Do(r)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return response, cancel, nil
}

// hopeless returns an error that no other attempt will make go away within seconds.
func (s *source) hopeless(err error) error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	var certificate *tls.CertificateVerificationError
	var denied *deniedError
	var unknown *net.DNSError
	switch {
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case errors.As(err, &denied): // by the gate
		return newError(Invalid, err, "download %s: %v", s.order.Spec.URL, denied)
	case errors.As(err, &certificate):
		return newError(Failed, err, "download %s: %s", s.order.Spec.URL, s.plain(err))
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return newError(Failed, err, "download %s: there is no host %s", s.order.Spec.URL, unknown.Name)
	}
	return nil
}

// accept looks at an answer. It returns true if the request is to be repeated.
func (s *source) accept(r *http.Response) (again bool, err error) {
	switch {
	case r.StatusCode == http.StatusOK:
		return false, s.fromBeginning(r)
	case r.StatusCode == http.StatusPartialContent && s.offset > 0:
		return false, s.fromOffset(r)
	case r.StatusCode == http.StatusTooManyRequests, r.StatusCode >= 500:
		return true, s.refused(r)
	}
	kind := Invalid
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = Unauthorized
	case http.StatusNotFound, http.StatusGone:
		kind = NotFound
	}
	return false, newError(kind, nil, "download %s: the server answers %s", s.order.Spec.URL, status(r))
}

// status is the server's answer in our own words.
func status(r *http.Response) string {
	return strings.TrimSpace(strconv.Itoa(r.StatusCode) + " " + http.StatusText(r.StatusCode))
}

// refused waits as long as the server asks for, or gives up where that is too long: the next attempt comes later than that.
func (s *source) refused(r *http.Response) error {
	says := "the server answers " + status(r)
	seconds, _ := strconv.Atoi(r.Header.Get("Retry-After"))
	pause := time.Duration(max(0, min(seconds, maxRetryAfter))) * time.Second
	if pause > maxPause {
		return newError(Failed, nil, "download %s: %s, and wants to be left alone for %s", s.order.Spec.URL, says, pause)
	}
	if err := s.missed(errors.New(says)); err != nil {
		return err
	}
	return s.wait(pause)
}

// fromBeginning takes the whole file, or, if a part of it has come already, skips that: it must be the same file.
func (s *source) fromBeginning(r *http.Response) error {
	tag := validator(r)
	if s.offset == 0 {
		s.size, s.tag = r.ContentLength, tag
		return nil
	}
	same := s.order.Spec.Digest != "" || (tag != "" && tag == s.tag)
	if !same || r.ContentLength != s.size {
		return newError(Failed, nil, "download %s: it broke off, and the server has another file now or cannot go on", s.order.Spec.URL)
	}
	if _, err := io.CopyN(io.Discard, s.body, s.offset); err != nil {
		return newError(Failed, err, "download %s: %s", s.order.Spec.URL, s.plain(err))
	}
	return nil
}

func (s *source) fromOffset(r *http.Response) error {
	var from, to, size int64
	n, _ := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size)
	unsure := s.order.Spec.Digest == "" && (s.tag == "" || validator(r) != s.tag)
	if n != 3 || from != s.offset || to != size-1 || (s.size >= 0 && size != s.size) || unsure {
		return newError(Failed, nil, "download %s: it broke off, and the server does not go on where it was", s.order.Spec.URL)
	}
	s.size = size
	return nil
}

// validator is what tells one version of a file from another.
func validator(r *http.Response) string {
	if tag := r.Header.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return ""
}

// patient is a body that ends when nothing comes for a while.
type patient struct {
	io.ReadCloser
	timer *time.Timer
	stall time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	p.timer.Reset(p.stall)
	defer p.timer.Stop()
	return p.ReadCloser.Read(b)
}
