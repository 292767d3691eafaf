package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/persist"
)

// What one server and one connection may have.
const (
	maxStreams  = 128 // of a connection
	maxRequest  = 64 << 10
	maxResponse = 4 << 20 // what clients take by default
	maxHeaders  = 16 << 10
)

// endpoint is where the service is served.
type endpoint interface {
	// String names the key of the configuration, for messages.
	String() string
	listen(ctx context.Context) (net.Listener, error)
	credentials() credentials.TransportCredentials
	// register puts more than the service into a server.
	register(g *grpc.Server) (stop func())
}

// keepServing serves until ctx ends, again after each failure.
func (s *Server) keepServing(ctx context.Context, at endpoint) {
	persist.Serve(ctx, s.pauses.retry, func() error { return s.serve(ctx, at) }, func(err error) {
		s.Log.Error(err, "trying again", "endpoint", at.String())
		s.Tell(EventServiceUnavailable, fmt.Sprintf("%s: nobody can use the service there: %v", at, err))
	})
}

func (s *Server) serve(ctx context.Context, at endpoint) error {
	l, err := at.listen(ctx)
	if err != nil {
		return err
	}
	g := grpc.NewServer(s.options(at)...)
	daemonv1.RegisterWorkspaceServiceServer(g, &service{Server: s})
	stop := at.register(g)
	s.Log.Info("serving", "endpoint", at.String(), "address", l.Addr().String())
	ended := make(chan struct{})
	cancelled := context.AfterFunc(ctx, func() {
		defer close(ended)
		stop()
		s.end(g)
	})
	err = g.Serve(l)
	if !cancelled() {
		<-ended
		return nil
	}
	s.end(g)
	if err == nil {
		err = errors.New("the server has ended")
	}
	return err
}

// end lets calls come to an end, and ends those that do not.
func (s *Server) end(g *grpc.Server) {
	s.calls.end(errStopping)
	hurry := time.AfterFunc(s.pauses.end, g.Stop)
	defer hurry.Stop()
	g.GracefulStop()
}

func (s *Server) options(at endpoint) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(at.credentials()), grpc.InTapHandle(s.begin),
		grpc.ChainUnaryInterceptor(s.observeUnary, s.recoverUnary()),
		grpc.ChainStreamInterceptor(s.observeStream, s.recoverStream()),
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxSendMsgSize(maxResponse), grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(10 * time.Second), grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		// A connection ends now and then, so that a certificate is asked for again, and with it what nobody reads.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 15 * time.Minute, MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: longestCall,
			Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
	}
}

// registerPlain adds what only the socket has: health and reflection.
func registerPlain(g *grpc.Server) (stop func()) {
	h := health.NewServer()
	h.SetServingStatus(daemonv1.WorkspaceService_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(g, h)
	reflection.Register(g)
	return h.Shutdown
}
