package server

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
)

const (
	maxListed = 500
	// fullPage is how many bytes a page may have, within what a client takes.
	fullPage = maxResponse / 4
)

// find returns a workspace of this node from the cache. It must not be changed.
func (s *service) find(ctx context.Context, r workspaceRequest) (*v1.Workspace, error) {
	if err := validWorkspace(r); err != nil {
		return nil, err
	}
	return s.cached(ctx, r)
}

func (s *service) cached(ctx context.Context, r workspaceRequest) (*v1.Workspace, error) {
	var ws v1.Workspace
	err := s.Client.Get(ctx, types.NamespacedName{Namespace: r.GetNamespace(), Name: r.GetName()}, &ws, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) {
		return nil, status.Errorf(codes.NotFound, "node %s has no workspace %s/%s: its object may name another node in spec.nodeName, ask there",
			s.Node, r.GetNamespace(), r.GetName())
	}
	return &ws, err
}

// subject is the workspace as the engine names it.
func subject(ws *v1.Workspace) content.Subject {
	return content.Subject{
		UID: string(ws.UID), Namespace: ws.Namespace, Name: ws.Name, Class: ws.Spec.Volume.Class, Claim: ws.Status.Claim,
	}
}

// Get returns one workspace.
func (s *service) Get(ctx context.Context, r *daemonv1.GetRequest) (*daemonv1.GetResponse, error) {
	ws, err := s.find(ctx, r)
	if err != nil {
		return nil, err
	}
	return &daemonv1.GetResponse{Workspace: workspaceOf(ws)}, nil
}

// List returns a page of workspaces.
func (s *service) List(ctx context.Context, r *daemonv1.ListRequest) (*daemonv1.ListResponse, error) {
	size, err := pageSize(r.GetPageSize(), maxListed)
	if err != nil {
		return nil, err
	}
	after, err := readToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	all, err := s.visible(ctx, r.GetNamespace())
	if err != nil {
		return nil, err
	}
	page := &daemonv1.ListResponse{}
	bytes := 0
	for i := range all {
		if after != nil && byName(&all[i], after) <= 0 {
			continue
		}
		w := workspaceOf(&all[i])
		bytes += proto.Size(w)
		if n := len(page.Workspaces); n == size || n > 0 && bytes > fullPage {
			page.NextPageToken = token(page.Workspaces[n-1])
			break
		}
		page.Workspaces = append(page.Workspaces, w)
	}
	return page, nil
}

// visible returns the workspaces of a namespace, or of all in which the caller may look, ordered by name.
func (s *service) visible(ctx context.Context, namespace string) ([]v1.Workspace, error) {
	options := []client.ListOption{client.UnsafeDisableDeepCopy}
	if namespace != "" {
		if err := validNamespace(namespace); err != nil {
			return nil, err
		}
		options = append(options, client.InNamespace(namespace))
	}
	var all v1.WorkspaceList
	if err := s.Client.List(ctx, &all, options...); err != nil {
		return nil, err
	}
	seen := slices.DeleteFunc(all.Items, func(ws v1.Workspace) bool { return !mayIn(ctx, ws.Namespace) })
	slices.SortFunc(seen, func(a, b v1.Workspace) int { return byName(&a, &b) })
	return seen, nil
}

// token says where a page ended.
func token(w *daemonv1.Workspace) string { return w.GetNamespace() + "/" + w.GetName() }

func readToken(text string) (*v1.Workspace, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // the beginning
	}
	namespace, name, _ := strings.Cut(text, "/")
	if validNamespace(namespace) != nil || validName("name", name) != nil {
		return nil, refuse("page_token: must be the next_page_token of the answer before, not %q", clip(text))
	}
	return &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, nil
}

// Watch sends what there is and then what changes.
func (s *service) Watch(r *daemonv1.WatchRequest, stream grpc.ServerStreamingServer[daemonv1.WatchResponse]) error {
	ctx := stream.Context()
	if err := validWatch(r); err != nil {
		return err
	}
	w := s.hub.watch(r.GetNamespace(), r.GetName()) // before the list: nothing falls between the two
	defer s.hub.leave(w)
	all, err := s.visible(ctx, r.GetNamespace())
	if err != nil {
		return err
	}
	for i := range all {
		if r.GetName() != "" && r.GetName() != all[i].Name {
			continue
		}
		if err := stream.Send(watched(change{ws: &all[i]})); err != nil {
			return err
		}
	}
	if err := stream.Send(&daemonv1.WatchResponse{Event: daemonv1.WatchEvent_WATCH_EVENT_SYNCED}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.wake:
		}
		for _, c := range w.take() {
			if !mayIn(ctx, c.ws.Namespace) {
				continue
			}
			if err := stream.Send(watched(c)); err != nil {
				return err
			}
		}
	}
}

func validWatch(r *daemonv1.WatchRequest) error {
	switch {
	case r.GetName() != "":
		return validWorkspace(r)
	case r.GetNamespace() != "":
		return validNamespace(r.GetNamespace())
	default:
		return nil
	}
}

func watched(c change) *daemonv1.WatchResponse {
	event := daemonv1.WatchEvent_WATCH_EVENT_UPDATED
	if c.gone {
		event = daemonv1.WatchEvent_WATCH_EVENT_DELETED
	}
	return &daemonv1.WatchResponse{Event: event, Workspace: workspaceOf(c.ws)}
}

// WaitReady waits for a workspace to be ready.
func (s *service) WaitReady(ctx context.Context, r *daemonv1.WaitReadyRequest) (*daemonv1.WaitReadyResponse, error) {
	if err := validWorkspace(r); err != nil {
		return nil, err
	}
	w := s.hub.watch(r.GetNamespace(), r.GetName())
	defer s.hub.leave(w)
	for {
		ws, err := s.cached(ctx, r)
		missing := status.Code(err) == codes.NotFound
		if err == nil && ready(ws) {
			return &daemonv1.WaitReadyResponse{Workspace: workspaceOf(ws)}, nil
		}
		if err == nil {
			err = hopeless(ws)
		}
		if err != nil && !missing {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, tooLate(ctx, ws, err)
		case <-w.wake:
			w.take()
		}
	}
}

// ready says whether the spec as it is has been fulfilled on this node.
func ready(ws *v1.Workspace) bool {
	return ws.DeletionTimestamp.IsZero() && ws.Spec.State != v1.StateStopped && apimeta.IsStatusConditionTrue(ws.Status.Conditions, v1.ConditionReady)
}

// hopeless says why a workspace does not get ready before somebody changes something; nil if it may.
func hopeless(ws *v1.Workspace) error {
	stalled := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionStalled)
	switch {
	case !ws.DeletionTimestamp.IsZero():
		return status.Errorf(codes.FailedPrecondition, "workspace %s/%s is being deleted", ws.Namespace, ws.Name)
	case ws.Spec.State == v1.StateStopped:
		return status.Errorf(codes.FailedPrecondition, "workspace %s/%s shall be stopped: set spec.state to Running", ws.Namespace, ws.Name)
	case stalled != nil && stalled.Status == metav1.ConditionTrue && stalled.ObservedGeneration == ws.Generation:
		return status.Errorf(codes.FailedPrecondition, "workspace %s/%s is stalled: %s: %s", ws.Namespace, ws.Name, stalled.Reason, stalled.Message)
	default:
		return nil
	}
}

// tooLate says what was waited for in vain.
func tooLate(ctx context.Context, ws *v1.Workspace, missing error) error {
	cause := context.Cause(ctx)
	if ended := status.FromContextError(cause); ended.Code() != codes.DeadlineExceeded && status.Code(cause) != codes.DeadlineExceeded {
		return cause
	}
	if missing != nil {
		return status.Error(codes.DeadlineExceeded, status.Convert(missing).Message())
	}
	return status.Errorf(codes.DeadlineExceeded, "workspace %s/%s is not ready yet: %s", ws.Namespace, ws.Name, standing(ws))
}

// standing is what the condition Ready says.
func standing(ws *v1.Workspace) string {
	c := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionReady)
	if c == nil {
		return "the daemon has not looked at it yet"
	}
	return c.Reason + ": " + c.Message
}
