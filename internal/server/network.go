package server

import (
	"context"
	"crypto/tls"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

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
	return &doors{Listener: l, places: manyPlaces()}, nil
}

func (e *networkEndpoint) credentials() credentials.TransportCredentials {
	return &told{credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return e.certificates.current() },
	}), e.refused}
}

// told lets in whose handshake is done, and tells of those that fail: gRPC keeps them to itself.
type told struct {
	credentials.TransportCredentials
	refused func(peer net.Addr, err error)
}

// ServerHandshake is that of TLS.
func (t *told) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := t.TransportCredentials.ServerHandshake(c)
	if v, ok := c.(*visitor); ok && err == nil {
		err = v.enter(info)
	}
	if err != nil {
		t.refused(c.RemoteAddr(), err)
		return nil, nil, err
	}
	return conn, info, nil
}

// Clone keeps telling.
func (t *told) Clone() credentials.TransportCredentials {
	return &told{t.TransportCredentials.Clone(), t.refused}
}
