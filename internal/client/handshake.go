package client

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// greeted are credentials of TLS that wait for the daemon's first word. A handshake is over for the caller before the daemon has looked at
// his certificate: only what it says next tells whether it accepts it. Whoever wrote before would rather find the connection broken.
type greeted struct {
	credentials.TransportCredentials
}

// ClientHandshake returns why the daemon refuses the caller, if it does.
func (g greeted) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := g.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	first := make([]byte, 1)
	if end, limited := ctx.Deadline(); limited {
		_ = conn.SetReadDeadline(end) // a connection that cannot have one fails when it is read
	}
	if _, err := conn.Read(first); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	_ = conn.SetReadDeadline(time.Time{})
	return &begun{Conn: conn, first: first}, info, nil
}

// Clone waits for the first word, too.
func (g greeted) Clone() credentials.TransportCredentials {
	return greeted{g.TransportCredentials.Clone()}
}

// begun is a connection of which the first word was read before.
type begun struct {
	net.Conn
	first []byte
}

// Read gives the first word, and then what follows. It is called by one goroutine at a time.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 || len(p) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}
