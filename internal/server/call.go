package server

import (
	"context"
	"path"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Why calls are ended before their time.
var (
	errStopping = status.Error(codes.Unavailable, "the daemon of this node stops: call again when it is back")
	errRevoked  = status.Error(codes.PermissionDenied, "the configuration does not give the caller this right any more")
	errExpired  = status.Error(codes.Unauthenticated, "the caller's certificate has expired: renew it")
	errTooLong  = status.Error(codes.DeadlineExceeded, "the call took longer than the daemon lets one take: call again")
	errUnread   = status.Error(codes.DeadlineExceeded, "the caller took nothing of what was sent for too long")
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
	end    context.CancelCauseFunc
	began  time.Time

	mu              sync.Mutex
	asked           bool
	namespace, name string // of the workspace that it is about
}

// calls are all that run.
type calls struct {
	mu      sync.Mutex
	running map[*call]struct{}
}

func (c *calls) add(one *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = map[*call]struct{}{}
	}
	c.running[one] = struct{}{}
}

func (c *calls) remove(one *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, one)
}

// end ends all of them.
func (c *calls) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.running {
		one.end(why)
	}
}

// revoke ends those that a policy does not allow.
func (c *calls) revoke(p *policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.running {
		if namespace, asked := one.about(); asked && !p.allows(one.who, one.method, namespace) {
			one.end(errRevoked)
		}
	}
}

func (c *call) about() (namespace string, asked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.namespace, c.asked
}

// begin makes a call of a request that has come in, or says why it is refused. The context has its deadline.
func (s *Server) begin(ctx context.Context, fullMethod string) (context.Context, *call, error) {
	c := &call{server: s, method: path.Base(fullMethod), began: time.Now(), who: &caller{name: "unknown"}, end: func(error) {}}
	who, err := callerOf(ctx)
	if err != nil {
		return ctx, c, err
	}
	c.who = who
	if err := s.callers.admit(who); err != nil {
		return ctx, c, err
	}
	ctx, c.end = context.WithCancelCause(ctx)
	deadline, why := c.began.Add(longest(c.method)), errTooLong
	if !who.expires.IsZero() && who.expires.Before(deadline) {
		deadline, why = who.expires, errExpired
	}
	ctx, release := context.WithDeadlineCause(ctx, deadline, why)
	s.calls.add(c)
	context.AfterFunc(ctx, release)
	return context.WithValue(ctx, callKey{}, c), c, nil
}

type callKey struct{}

// mayIn says whether the caller of a context may do what he does in a namespace, as the rights are now.
func mayIn(ctx context.Context, namespace string) bool {
	c, ok := ctx.Value(callKey{}).(*call)
	return ok && c.server.policy.Load().allows(c.who, c.method, namespace)
}

// ask takes note of what a call is about, and refuses what the caller has no right to. What has no namespace is served on the socket
// only.
func (c *call) ask(request any) error {
	about, ok := request.(interface{ GetNamespace() string })
	if !ok {
		if c.who.local {
			return nil
		}
		return status.Error(codes.PermissionDenied, "this is served on the daemon's socket only")
	}
	c.mu.Lock()
	c.asked, c.namespace = true, about.GetNamespace()
	if named, ok := request.(interface{ GetName() string }); ok {
		c.name = named.GetName()
	}
	c.mu.Unlock()
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
func (s *Server) observeUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	ctx, c, err := s.begin(ctx, info.FullMethod)
	defer func() { err = s.finish(ctx, c, err) }()
	if err == nil {
		err = c.ask(request)
	}
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// observeStream is around every call with several answers.
func (s *Server) observeStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, c, err := s.begin(stream.Context(), info.FullMethod)
	defer func() { err = s.finish(ctx, c, err) }()
	if err != nil {
		return err
	}
	return s.watched(ctx, c, stream, func(w grpc.ServerStream) error { return handler(srv, w) })
}

// finish says what became of a call: to the caller, in the audit log, and to the metrics.
func (s *Server) finish(ctx context.Context, c *call, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = ended(cause, err)
	}
	err = answer(err)
	s.calls.remove(c)
	c.end(nil)
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
	return err
}

// clip keeps what a caller has sent from filling the log.
func clip(text string) string {
	const longest = 128
	if len(text) <= longest {
		return text
	}
	return text[:longest] + "…"
}
