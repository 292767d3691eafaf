package server

import (
	"context"
	"crypto/tls"
	"net"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// maxConnections is how many callers from the network may be connected at once.
const maxConnections = 512

// networkEndpoint is the address at which callers need a certificate.
type networkEndpoint struct {
	address      string
	certificates *certificates
	// refused is told of every handshake that failed.
	refused func(peer net.Addr, err error)
}

func (e *networkEndpoint) String() string { return "service.address" }

func (e *networkEndpoint) register(*grpc.Server) (stop func()) { return func() {} }

// listen needs certificates first: without them every caller would have to be refused.
func (e *networkEndpoint) listen(ctx context.Context) (net.Listener, error) {
	if _, err := e.certificates.current(); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", e.address)
	if err != nil {
		return nil, err
	}
	return netutil.LimitListener(l, maxConnections), nil
}

func (e *networkEndpoint) credentials() credentials.TransportCredentials {
	return &told{credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return e.certificates.current() },
	}), e.refused}
}

// told tells of handshakes that fail: gRPC keeps them to itself.
type told struct {
	credentials.TransportCredentials
	refused func(peer net.Addr, err error)
}

// ServerHandshake is that of TLS.
func (t *told) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := t.TransportCredentials.ServerHandshake(c)
	if err != nil {
		t.refused(c.RemoteAddr(), err)
	}
	return conn, info, err
}

// Clone keeps telling.
func (t *told) Clone() credentials.TransportCredentials {
	return &told{t.TransportCredentials.Clone(), t.refused}
}
