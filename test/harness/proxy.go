package harness

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Proxy is a node's way to the API server, which can be cut.
type Proxy struct {
	listener net.Listener
	target   string
	cut      atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// newProxy serves until close is called; it makes no new connections when ctx has ended.
func newProxy(ctx context.Context, target string) (*Proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, target: target, conns: map[net.Conn]bool{}}
	go p.serve(ctx)
	return p, nil
}

// Address is where the proxy listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Cut resets all connections, and new ones as soon as they are made.
func (p *Proxy) Cut() {
	p.cut.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		reset(conn)
	}
}

// Mend lets connections through again.
func (p *Proxy) Mend() { p.cut.Store(false) }

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.Cut()
}

func (p *Proxy) serve(ctx context.Context) {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.forward(ctx, conn)
	}
}

func (p *Proxy) forward(ctx context.Context, conn net.Conn) {
	defer reset(conn)
	if !p.keep(conn) {
		return
	}
	defer p.drop(conn)
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(server, conn)
		_ = server.Close()
	}()
	_, _ = io.Copy(conn, server)
}

// keep remembers a connection, unless the way is cut.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut.Load() {
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

// reset closes a connection so that the other side notices at once.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
