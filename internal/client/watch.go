package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

// watchPause is how long a watch that broke waits before it goes on.
const watchPause = time.Second

// Watch calls each with the workspaces of the node, all at once, and then with what changes, until ctx ends or each fails. Namespace and name may be
// empty, for all. It outlasts a daemon that restarts, and calls lost with why it has to try again; what has not changed meanwhile is
// not repeated. It returns nil when ctx was cancelled.
func (c *Client) Watch(ctx context.Context, namespace, name string, each func(...*daemonv1.WatchResponse) error, lost func(error)) error {
	w := watch{known: map[string]*daemonv1.Workspace{}, each: each}
	for {
		err := c.watchOnce(ctx, &daemonv1.WatchRequest{Namespace: namespace, Name: name}, &w)
		var failed *Error
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return nil
		case !errors.As(err, &failed) || !w.synced || ctx.Err() != nil:
			return err
		case failed.Code == CodeTimedOut: // it is the daemon's deadline for one call
		case failed.Code == CodeUnavailable:
			lost(err)
		default:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

func (c *Client) watchOnce(ctx context.Context, request *daemonv1.WatchRequest, w *watch) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.service.Watch(ctx, request)
	if err != nil {
		return c.explain(ctx, err)
	}
	w.seen, w.news = map[string]bool{}, nil
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &Error{CodeTimedOut, "the daemon ended the watch"}
		}
		if err != nil {
			return c.explain(ctx, err)
		}
		if err := w.take(event); err != nil {
			return err
		}
	}
}

// watch is what was told so far.
type watch struct {
	each   func(...*daemonv1.WatchResponse) error
	known  map[string]*daemonv1.Workspace
	seen   map[string]bool           // by the present call; nil once it is in step
	news   []*daemonv1.WatchResponse // of the present call until it is in step
	synced bool                      // at least once
}

func (w *watch) take(event *daemonv1.WatchResponse) error {
	ws := event.GetWorkspace()
	switch event.GetEvent() {
	case daemonv1.WatchEvent_WATCH_EVENT_SYNCED:
		return w.sync()
	case daemonv1.WatchEvent_WATCH_EVENT_DELETED:
		delete(w.known, ws.GetUid())
	default:
		if w.seen != nil {
			w.seen[ws.GetUid()] = true
		}
		if proto.Equal(w.known[ws.GetUid()], ws) {
			return nil
		}
		w.known[ws.GetUid()] = ws
	}
	if w.seen == nil {
		return w.each(event)
	}
	w.news = append(w.news, event)
	return nil
}

// sync tells of what was there, has changed and has gone until now.
func (w *watch) sync() error {
	for uid, ws := range w.known {
		if w.seen != nil && !w.seen[uid] {
			delete(w.known, uid)
			w.news = append(w.news, &daemonv1.WatchResponse{Event: daemonv1.WatchEvent_WATCH_EVENT_DELETED, Workspace: ws})
		}
	}
	slices.SortStableFunc(w.news, func(a, b *daemonv1.WatchResponse) int {
		x, y := a.GetWorkspace(), b.GetWorkspace()
		return cmp.Or(cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()))
	})
	news := w.news
	w.seen, w.news, w.synced = nil, nil, true
	if len(news) == 0 {
		return nil
	}
	return w.each(news...)
}

// WaitReady waits until a workspace is ready, however many calls that takes, and calls tell with what is heard of it meanwhile.
func (c *Client) WaitReady(ctx context.Context, ws Ref, tell func(*daemonv1.Workspace)) (*daemonv1.Workspace, error) {
	watching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// What it cannot tell is missed by nobody: the answer comes by the other call.
		_ = c.Watch(watching, ws.Namespace, ws.Name, func(news ...*daemonv1.WatchResponse) error {
			for _, e := range news {
				tell(e.GetWorkspace())
			}
			return nil
		}, func(error) {})
	}()
	defer func() {
		stop()
		<-ended
	}()
	for {
		response, err := c.service.WaitReady(ctx, &daemonv1.WaitReadyRequest{Namespace: ws.Namespace, Name: ws.Name})
		if err == nil {
			return response.GetWorkspace(), nil
		}
		err = c.explain(ctx, err)
		var failed *Error
		if ctx.Err() != nil || !errors.As(err, &failed) || failed.Code != CodeTimedOut {
			return nil, err
		}
	}
}
