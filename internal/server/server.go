// Package server is the daemon's gRPC service: on a unix socket for root of the node, and by TLS with certificates of both sides for
// callers to whom the configuration gives rights.
//
// Reading costs the API server nothing: it is answered from the informer's cache, the journal and the store. What changes something goes
// the way of the objects: a backup is a reason for the reconciler to make one, a snapshot is an object. No caller can keep others
// waiting: calls have deadlines, readers that do not read are left, and what is expensive has places of its own.
package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// BackupRequest is a backup that was asked for.
type BackupRequest interface {
	// Done is closed when it has ended.
	Done() <-chan struct{}
	// Progress is how far it is, and whether it runs yet.
	Progress() (p jobs.Progress, running bool)
	// Result is the newest backup, after Done, whether it was there before, and what making one failed of.
	Result() (newest state.Backup, unchanged bool, err error)
	// Leave gives it up.
	Leave()
}

// Engine is what the service works with.
type Engine interface {
	// RequestBackup has a backup made by the way of the reconciler.
	RequestBackup(ctx context.Context, ws *v1.Workspace) (BackupRequest, error)
	// Stored opens what the store has of a workspace.
	Stored(ctx context.Context, s content.Subject) (*content.Stored, error)
	// Entry is what the journal says of a workspace.
	Entry(uid string) (state.Entry, bool)
	// Measure asks the disk what the content takes, where that is one question.
	Measure(ctx context.Context, s content.Subject) (state.Entry, error)
}

// Options are what a server needs.
type Options struct {
	// Node is the name of this node.
	Node string
	// Config says where to listen; what may change while the daemon runs is taken from [Server.Configure] later.
	Config config.Service
	// Client reads this node's objects from the cache, and creates snapshots.
	Client client.Client
	// Reader reads from the API server: a snapshot whose name is taken.
	Reader client.Reader
	// Informer returns that of workspaces.
	Informer func(context.Context) (cache.Informer, error)
	Engine   Engine
	Metrics  *metrics.Metrics
	Log      logr.Logger
	// Tell says of the node what people should know: an event.
	Tell func(reason, message string)
}

// Reasons of events.
const (
	// EventServiceUnavailable says that a socket or an address cannot be served.
	EventServiceUnavailable = "ServiceUnavailable"
	// EventServiceCertificate says that certificates cannot be read, or are over.
	EventServiceCertificate = "ServiceCertificate"
)

// Server serves the service.
type Server struct {
	Options

	pauses  pauses
	policy  atomic.Pointer[policy]
	exports atomic.Pointer[semaphore.Weighted]
	callers callers
	calls   calls
	hub     hub
	ending  sync.WaitGroup // of streams that were left
}

// pauses are how long things are waited for. Tests have shorter ones.
type pauses struct {
	retry    time.Duration // before a server that could not serve tries again
	request  time.Duration // for the request of a call that has begun
	unread   time.Duration // for a reader to take something
	words    time.Duration // for the last words of a call that is over
	end      time.Duration // for calls to end when the daemon does
	place    time.Duration // for a place among the exports
	progress time.Duration // between two looks at how a job gets on
	tls      time.Duration // between two looks at the certificates
}

func patience() pauses {
	return pauses{
		retry: 10 * time.Second, request: 20 * time.Second, unread: 30 * time.Second, words: 2 * time.Second, end: 5 * time.Second, place: 20 * time.Second,
		progress: 500 * time.Millisecond, tls: time.Minute,
	}
}

// New makes a server, which serves when it is run.
func New(o Options) *Server {
	s := &Server{Options: o, pauses: patience()}
	s.Configure(o.Config)
	return s
}

// Configure takes over rights and limits. Calls that no right allows any more end.
func (s *Server) Configure(c config.Service) {
	now := &policy{c}
	before := s.policy.Swap(now)
	if before == nil || before.Exports != c.Exports {
		s.exports.Store(semaphore.NewWeighted(int64(c.Exports)))
	}
	if before == nil || before.RequestsPerSecond != c.RequestsPerSecond {
		s.callers.configure(c.RequestsPerSecond)
	}
	s.calls.revoke(now)
}

// Configured returns what the last Configure gave.
func (s *Server) Configured() config.Service { return s.policy.Load().Service }

// Run serves until ctx ends. Whatever cannot be served keeps nothing else from going on, and is tried again.
func (s *Server) Run(ctx context.Context) error {
	informer, err := s.Informer(ctx)
	if err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(&s.hub)
	if err != nil {
		return err
	}
	var endpoints sync.WaitGroup
	if path := s.Config.Socket; path != "" {
		endpoints.Go(func() { s.keepServing(ctx, &socketEndpoint{path: path}) })
	}
	if address := s.Config.Address; address != "" {
		certificates := newCertificates(s.Config)
		endpoints.Go(func() { s.watchCertificates(ctx, certificates) })
		endpoints.Go(func() { s.keepServing(ctx, &networkEndpoint{address, certificates, s.refused}) })
	}
	<-ctx.Done()
	endpoints.Wait()
	s.ending.Wait()
	return informer.RemoveEventHandler(registration)
}

// refused takes note of somebody who could not show that he may call at all.
func (s *Server) refused(peer net.Addr, err error) {
	s.Metrics.ServiceRefused()
	s.Log.WithName("audit").V(1).Info("refused", "peer", peer.String(), "reason", err.Error())
}

// service answers.
type service struct {
	daemonv1.UnimplementedWorkspaceServiceServer
	*Server
}
