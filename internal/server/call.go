package server

import (
	"context"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// Why calls are ended before their time.
var (
	errStopping = status.Error(codes.Unavailable, "the daemon of this node stops: call again when it is back")
	errRevoked  = status.Error(codes.PermissionDenied, "the configuration does not give the caller this right any more")
	errExpired  = status.Error(codes.Unauthenticated, "the caller's certificate has expired: renew it")
	errTooLong  = status.Error(codes.DeadlineExceeded, "the call took longer than the daemon lets one take: call again")
	errUnread   = status.Error(codes.DeadlineExceeded, "the caller took nothing of what was sent for too long")
	errUnasked  = status.Error(codes.Unknown, "nothing came that is a request of this method")
)

// longestCall is how long any call may take.
const longestCall = 6 * time.Hour

// longest is how long a call of a method may take.
func longest(method string) time.Duration {
	switch method {
	case "Export":
		return longestCall
	case "Backup":
		return 2 * time.Hour
	case "Watch", "WaitReady", "Snapshot":
		return time.Hour
	case "ListFiles":
		return 10 * time.Minute
	case "ListBackups":
		return 2 * time.Minute
	default:
		return 30 * time.Second
	}
}

// call is one that runs.
type call struct {
	server *Server
	who    *caller
	method string // without the service
	began  time.Time
	ctx    context.Context //nolint:containedctx // the handler's; that of the stream is gRPC's, which waits for requests and readers by it
	end    context.CancelCauseFunc
	// heard is set once it has got to its handler, which then tells what became of it.
	heard atomic.Bool

	mu              sync.Mutex
	asked           bool
	namespace, name string // of the workspace that it is about
}

func (c *call) about() (namespace string, asked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.namespace, c.asked
}

// methodOf is the name of a method, without its service; of those that there are not, callers could think of any number.
func methodOf(full string) string {
	if method := path.Base(full); slices.Contains(append(config.Methods(), "Check", "ServerReflectionInfo"), method) {
		return method
	}
	return "other"
}

// begin makes a call of what comes in, before any of it is read, or says why it is refused. A call that asks for nothing in good time ends.
func (s *Server) begin(stream context.Context, info *tap.Info) (context.Context, error) {
	who, err := callerOf(stream)
	c := &call{server: s, method: methodOf(info.FullMethodName), began: time.Now(), who: who}
	often, tooOften := s.callers.admit(who)
	for _, err := range []error{err, tooOften, stream.Err()} {
		if err != nil {
			return stream, s.turnAway(c, err, often)
		}
	}
	c.limit(stream)
	if err := s.calls.add(c); err != nil {
		c.end(nil)
		return stream, s.turnAway(c, err, false)
	}
	waiting, cut := context.WithCancel(stream)
	unasked := time.AfterFunc(s.pauses.request, func() {
		if _, asked := c.about(); !asked {
			cut()
		}
	})
	context.AfterFunc(stream, func() { // it ends with the call, whatever became of that
		unasked.Stop()
		cut()
		c.end(nil)
		s.calls.remove(c)
		if c.heard.CompareAndSwap(false, true) {
			s.audit(c, errUnasked)
		}
	})
	return context.WithValue(waiting, callKey{}, c), nil
}

// limit makes the context of a call's handler, which has its deadline.
func (c *call) limit(ctx context.Context) {
	ctx, c.end = context.WithCancelCause(context.WithValue(ctx, callKey{}, c))
	deadline, why := c.began.Add(longest(c.method)), errTooLong
	if !c.who.expires.IsZero() && c.who.expires.Before(deadline) {
		deadline, why = c.who.expires, errExpired
	}
	ctx, release := context.WithDeadlineCause(ctx, deadline, why)
	context.AfterFunc(ctx, release)
	c.ctx = ctx
}

type callKey struct{}

// callOf is the call of a context. Each has one: nothing is handled that has not begun.
func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		panic("a request is handled that is no call")
	}
	return c
}

// mayIn says whether the caller of a context may do what he does in a namespace, as the rights are now.
func mayIn(ctx context.Context, namespace string) bool {
	c := callOf(ctx)
	return c.server.policy.Load().allows(c.who, c.method, namespace)
}

// ask takes note of what a call is about, and refuses what the caller has no right to. What has no namespace is served on the socket
// only.
func (c *call) ask(request any) error {
	about, placed := request.(interface{ GetNamespace() string })
	c.mu.Lock()
	c.asked = true
	if placed {
		c.namespace = about.GetNamespace()
	}
	if named, ok := request.(interface{ GetName() string }); ok {
		c.name = named.GetName()
	}
	c.mu.Unlock()
	switch {
	case c.who.local:
		return nil
	case !placed:
		return status.Error(codes.PermissionDenied, "this is served on the daemon's socket only")
	}
	if !c.server.policy.Load().allows(c.who, c.method, about.GetNamespace()) {
		return c.refusal(about.GetNamespace())
	}
	return nil
}

func (c *call) refusal(namespace string) error {
	where := "in any namespace"
	if namespace != "" {
		where = "in namespace " + clip(namespace)
	}
	return status.Errorf(codes.PermissionDenied, "%s may not %s %s: service.rights of the daemon's configuration would have to allow it", c.who.key, c.method, where)
}

// observeUnary is around every call that has one answer.
func (s *Server) observeUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	c := callOf(ctx)
	if !c.heard.CompareAndSwap(false, true) {
		return nil, errUnasked // the caller has gone
	}
	if err = c.ask(request); err == nil {
		answer, err = handler(c.ctx, request) //nolint:contextcheck // it is made of the stream's, as ctx is
	}
	return answer, s.finish(c, err)
}

// observeStream is around every call with several answers.
func (s *Server) observeStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := callOf(stream.Context())
	if !c.heard.CompareAndSwap(false, true) {
		return errUnasked // the caller has gone
	}
	return s.finish(c, s.watched(c, stream, func(w grpc.ServerStream) error { return handler(srv, w) }))
}

// finish says what became of a call, in the audit log and to the metrics, and returns what its caller is told.
func (s *Server) finish(c *call, err error) error {
	if cause := context.Cause(c.ctx); err != nil && cause != nil {
		err = ended(cause, err)
	}
	err = answer(err)
	s.audit(c, err)
	return err
}

// turnAway refuses a call before it begins. One that comes too often is counted, and not in the log each time: it would be full of them.
func (s *Server) turnAway(c *call, err error, often bool) error {
	err = answer(err)
	if often {
		s.Metrics.ServiceCalled(c.method, status.Code(err).String(), 0)
	} else {
		s.audit(c, err)
	}
	return err
}

func (s *Server) audit(c *call, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	took := time.Since(c.began)
	words := []any{
		"caller", c.who.name, "method", c.method, "namespace", clip(c.namespace), "workspace", clip(c.name),
		"result", status.Code(err).String(), "duration", took.String(),
	}
	if err != nil {
		words = append(words, "message", status.Convert(err).Message())
	}
	s.Log.WithName("audit").Info("call", words...)
	s.Metrics.ServiceCalled(c.method, status.Code(err).String(), took)
}

// clip keeps what a caller has sent from filling the log.
func clip(text string) string {
	const longest = 128
	if len(text) <= longest {
		return text
	}
	return text[:longest] + "…"
}
