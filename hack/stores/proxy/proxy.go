// Package proxy stands between an object store and its client, and does what networks, proxies and stores do at their worst.
package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Request is what a fault is chosen by.
type Request struct {
	// N counts from 1 since the last [Proxy.Break].
	N int
	// Method is the HTTP method.
	Method string
	// Target is the path and the query, as the client sent them.
	Target string
	// Range is the header of that name.
	Range string
}

// Is says whether the request has a method and names something in its target: "PUT", "store.json".
func (r Request) Is(method, part string) bool {
	return r.Method == method && strings.Contains(r.Target, part)
}

// Fault is something that goes wrong with one request. The zero value is that nothing does.
type Fault struct {
	// Refuse closes the connection; the server hears nothing.
	Refuse bool
	// Delay waits before anything else is done.
	Delay time.Duration
	// Answer is a status with which the proxy replies; the server hears nothing.
	Answer int
	// Header and Body are those of the Answer. Header is added to other replies, too.
	Header http.Header
	Body   string
	// CorruptRequest flips a bit of the body's byte in the middle before the server gets it.
	CorruptRequest bool
	// WithoutRange hides from the server that a range was asked for.
	WithoutRange bool
	// Duplicate makes the request twice; the second reply is passed on.
	Duplicate bool
	// LoseReply has the server do it, and closes the connection.
	LoseReply bool
	// Cut ends the body of the reply after so many bytes, and closes the connection; -1 is after none. The header says that there are more.
	Cut int
	// Stall is like Cut, but the connection stays open, until the client leaves.
	Stall int
	// Chunked leaves out of the reply how long it is.
	Chunked bool
	// CorruptReply flips a bit of the body's byte in the middle.
	CorruptReply bool
}

// Proxy is a running proxy.
type Proxy struct {
	// URL is its address, as http://127.0.0.1:port.
	URL string

	target *url.URL
	server *http.Server
	done   chan struct{}
	client *http.Transport

	mu    sync.Mutex
	fault func(Request) Fault
	seen  []Request
}

// Start puts a proxy before a server, given by its endpoint.
func Start(ctx context.Context, endpoint string) (*Proxy, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	p := &Proxy{
		URL: "http://" + listener.Addr().String(), target: target, done: make(chan struct{}),
		client: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(p.done)
		_ = p.server.Serve(listener) // it ends by Close
	}()
	return p, nil
}

// Close ends the proxy, and all connections.
func (p *Proxy) Close() error {
	err := p.server.Close()
	<-p.done
	p.client.CloseIdleConnections()
	return err
}

// Break has fault choose what happens to each request from now on, and counts anew; nil heals everything.
func (p *Proxy) Break(fault func(Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.seen = fault, nil
}

// Requests are those since the last [Proxy.Break], in their order.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Request(nil), p.seen...)
}

func (p *Proxy) choose(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	request := Request{N: len(p.seen) + 1, Method: r.Method, Target: r.URL.RequestURI(), Range: r.Header.Get("Range")}
	p.seen = append(p.seen, request)
	if p.fault == nil {
		return Fault{}
	}
	return p.fault(request)
}

// ServeHTTP passes a request on, or does not.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault := p.choose(r)
	if fault.Delay > 0 {
		select {
		case <-time.After(fault.Delay):
		case <-r.Context().Done():
		}
	}
	if fault.Refuse {
		panic(http.ErrAbortHandler) // closes the connection
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if fault.Answer != 0 {
		maps.Copy(w.Header(), fault.Header)
		w.WriteHeader(fault.Answer)
		_, _ = io.WriteString(w, fault.Body)
		return
	}
	if fault.CorruptRequest {
		flip(body)
	}
	if fault.WithoutRange {
		r.Header.Del("Range")
	}
	reply, content := p.forward(r, body) //nolint:bodyclose // forward closes it
	if fault.Duplicate {
		reply, content = p.forward(r, body) //nolint:bodyclose // forward closes it
	}
	if reply == nil || fault.LoseReply {
		panic(http.ErrAbortHandler)
	}
	if fault.CorruptReply {
		flip(content)
	}
	maps.Copy(w.Header(), reply.Header)
	maps.Copy(w.Header(), fault.Header)
	begin(w, r, reply.StatusCode, len(content), fault)
	send(w, r, content, fault)
}

// begin writes the header of a reply.
func begin(w http.ResponseWriter, r *http.Request, status, length int, fault Fault) {
	switch {
	case fault.Chunked:
		w.Header().Del("Content-Length")
	case r.Method != http.MethodHead:
		w.Header().Set("Content-Length", strconv.Itoa(length))
	}
	w.WriteHeader(status)
	if fault.Chunked {
		_ = http.NewResponseController(w).Flush() // or the library counts
	}
}

// send writes a body, or a part of it.
func send(w http.ResponseWriter, r *http.Request, content []byte, fault Fault) {
	limit := max(fault.Cut, fault.Stall, 0)
	if fault.Cut == 0 && fault.Stall == 0 {
		limit = len(content)
	}
	_, _ = w.Write(content[:min(limit, len(content))])
	if fault.Cut == 0 && fault.Stall == 0 {
		return
	}
	_ = http.NewResponseController(w).Flush()
	if fault.Stall != 0 {
		<-r.Context().Done()
	}
	panic(http.ErrAbortHandler)
}

// flip changes one bit.
func flip(data []byte) {
	if len(data) > 0 {
		data[len(data)/2] ^= 1
	}
}

// forward makes a request as the client made it: what it signed stays as it is. Without a reply it returns nothing.
func (p *Proxy) forward(r *http.Request, body []byte) (*http.Response, []byte) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = p.target.Scheme, p.target.Host
	out.RequestURI = ""
	out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, int64(len(body)), nil
	if len(body) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(body))
	}
	reply, err := p.client.RoundTrip(out)
	if err != nil {
		return nil, nil
	}
	defer reply.Body.Close()
	content, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, nil
	}
	return reply, content
}
