package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
)

// proxy connects the API server with the nodes: it is asked to CONNECT to an address of a node, and dials the port of this machine that leads
// there.
type proxy struct {
	server *http.Server

	mu   sync.Mutex
	ways map[string]string // address of a node and port → address here
}

// newProxy listens on a Unix socket.
func newProxy(ctx context.Context, socket string) (*proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("start the proxy of nodes: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("start the proxy of nodes: %w", err)
	}
	p := &proxy{ways: map[string]string{}}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: requestTimeout}
	go func() { _ = p.server.Serve(listener) }() // close ends it
	return p, nil
}

func (p *proxy) close() { _ = p.server.Close() }

func (p *proxy) lead(address, here string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ways[address] = here
}

func (p *proxy) way(address string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ways[address]
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	here := p.way(r.Host)
	if r.Method != http.MethodConnect || here == "" {
		http.Error(w, "only nodes can be reached, by CONNECT: not "+r.Host, http.StatusBadGateway)
		return
	}
	node, err := (&net.Dialer{Timeout: requestTimeout}).DialContext(r.Context(), "tcp", here)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer node.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err == nil {
		_ = join(client, buffered, node)
	}
}

// join copies both ways until both have ended; the end of one way is passed on.
func join(client net.Conn, from io.Reader, node net.Conn) error {
	errs := make(chan error, 2)
	one := func(to net.Conn, from io.Reader) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			err = errors.Join(err, half.CloseWrite())
		}
		errs <- err
	}
	go one(node, from)
	go one(client, node)
	return errors.Join(<-errs, <-errs)
}
