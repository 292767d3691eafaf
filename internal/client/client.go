// Package client asks the daemon of a node about its workspaces, and has it work for them: what the commands `ws-daemon client` do.
package client

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

const (
	// connectTimeout is how long one attempt to connect may take.
	connectTimeout = 10 * time.Second
	// maxMessage is the size of the largest answer: a page of workspaces.
	maxMessage = 64 << 20
	// unixScheme marks addresses that are paths of sockets.
	unixScheme = "unix://"
)

// Options say where the daemon is, and who asks.
type Options struct {
	// Address is unix:///path of a socket, or host:port.
	Address string
	// CA, Cert and Key are files in PEM format, for an address that is no socket: authorities that the daemon's certificate must come
	// from, and the caller's certificate and key.
	CA, Cert, Key string
	// ServerName is the name in the daemon's certificate; the host of the address if it is empty.
	ServerName string
}

// Client is a connection to a daemon. It connects when it is first used, and again whenever it has to.
type Client struct {
	address string
	conn    *grpc.ClientConn
	service daemonv1.WorkspaceServiceClient
}

// Dial prepares a connection.
func Dial(o Options) (*Client, error) {
	creds, err := o.credentials()
	if err != nil {
		return nil, err
	}
	backoffs := backoff.DefaultConfig
	backoffs.MaxDelay = connectTimeout
	conn, err := grpc.NewClient(o.Address, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoffs, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, Usage("--address %s: %v", o.Address, err)
	}
	return &Client{address: o.Address, conn: conn, service: daemonv1.NewWorkspaceServiceClient(conn)}, nil
}

// Close ends the connection, and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// credentials are those of TLS, but on a socket, whose file says who may connect.
func (o Options) credentials() (credentials.TransportCredentials, error) {
	if strings.HasPrefix(o.Address, unixScheme) {
		if o.CA != "" || o.Cert != "" || o.Key != "" {
			return nil, Usage("--ca, --cert and --key are for an address as host:port, not for the socket %s", o.Address)
		}
		return insecure.NewCredentials(), nil
	}
	if o.CA == "" || o.Cert == "" || o.Key == "" {
		return nil, Usage("--address %s: it needs --ca, --cert and --key; a socket of this machine is unix:///path", o.Address)
	}
	authorities, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, Usage("--ca: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, Usage("--ca %s: there is no certificate in PEM format in it", o.CA)
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		return nil, Usage("--cert %s and --key %s: %v", o.Cert, o.Key, err)
	}
	host, _, _ := strings.Cut(o.Address, ":")
	return greeted{credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: cmp.Or(o.ServerName, host),
	})}, nil
}

// Ref names a workspace.
type Ref struct{ Namespace, Name string }
