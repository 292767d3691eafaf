package server

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// watchedStream is a stream of which somebody sees how long a message waits for its reader.
type watchedStream struct {
	grpc.ServerStream
	call  *call
	since atomic.Int64 // when the message began to be sent that is being sent, in nanoseconds; 0 if none is
}

// Context has the deadline of the call.
func (w *watchedStream) Context() context.Context { return w.call.ctx }

// SendMsg waits until the reader has room for a message.
func (w *watchedStream) SendMsg(m any) error {
	if err := context.Cause(w.call.ctx); err != nil {
		return err
	}
	w.since.Store(time.Now().UnixNano())
	defer w.since.Store(0)
	return w.ServerStream.SendMsg(m)
}

// RecvMsg takes a request, and refuses what the caller has no right to.
func (w *watchedStream) RecvMsg(m any) error {
	if err := w.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return w.call.ask(m)
}

// watched runs a handler, and leaves it when the call is over: a send or a receive that waits for the other side cannot be ended
// otherwise. It ends by itself then, since the stream has ended.
func (s *Server) watched(c *call, stream grpc.ServerStream, handle func(grpc.ServerStream) error) error {
	w := &watchedStream{ServerStream: stream, call: c}
	ended := make(chan error, 1)
	s.ending.Go(func() { ended <- handle(w) })
	look := time.NewTicker(max(s.pauses.unread/4, time.Millisecond))
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-c.ctx.Done():
			return s.leave(c.ctx, ended)
		case <-look.C:
			if since := w.since.Load(); since != 0 && time.Since(time.Unix(0, since)) > s.pauses.unread {
				c.end(errUnread)
			}
		}
	}
}

// leave gives a handler whose call is over a moment for its last words.
func (s *Server) leave(ctx context.Context, ended <-chan error) error {
	moment := time.NewTimer(s.pauses.words)
	defer moment.Stop()
	select {
	case err := <-ended:
		return err
	case <-moment.C:
		return context.Cause(ctx)
	}
}

func (s *Server) recoverUnary() grpc.UnaryServerInterceptor {
	return recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(s.panicked))
}

func (s *Server) recoverStream() grpc.StreamServerInterceptor {
	return recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(s.panicked))
}

// panicked makes an error of a panic: one call with a mistake in it must not end what all others need.
func (s *Server) panicked(_ context.Context, what any) error {
	s.Log.Error(nil, "a call has panicked", "panic", what, "stack", string(debug.Stack()))
	s.Metrics.ServicePanicked()
	return status.Error(codes.Internal, "a mistake in the daemon: its log has the details, at this time; please report them")
}
