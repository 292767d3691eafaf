package server

import (
	"context"
	"errors"
	"io"
	"strings"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

// everyMethod calls a method each, with a request that is valid.
func everyMethod(c daemonv1.WorkspaceServiceClient, namespace, name string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"List": func(ctx context.Context) error {
			return second(c.List(ctx, &daemonv1.ListRequest{Namespace: namespace}))
		},
		"Get": func(ctx context.Context) error {
			return second(c.Get(ctx, &daemonv1.GetRequest{Namespace: namespace, Name: name}))
		},
		"Watch": drained(c.Watch, &daemonv1.WatchRequest{Namespace: namespace, Name: name}),
		"WaitReady": func(ctx context.Context) error {
			return second(c.WaitReady(ctx, &daemonv1.WaitReadyRequest{Namespace: namespace, Name: name}))
		},
		"Backup": drained(c.Backup, &daemonv1.BackupRequest{Namespace: namespace, Name: name}),
		"ListBackups": func(ctx context.Context) error {
			return second(c.ListBackups(ctx, &daemonv1.ListBackupsRequest{Namespace: namespace, Name: name}))
		},
		"ListFiles": drained(c.ListFiles, &daemonv1.ListFilesRequest{Namespace: namespace, Name: name}),
		"Snapshot": func(ctx context.Context) error {
			return second(c.Snapshot(ctx, &daemonv1.SnapshotRequest{Namespace: namespace, Name: name}))
		},
		"Usage": func(ctx context.Context) error {
			return second(c.Usage(ctx, &daemonv1.UsageRequest{Namespace: namespace, Name: name}))
		},
		"Export": drained(c.Export, &daemonv1.ExportRequest{Namespace: namespace, Name: name}),
	}
}

func second[T any](_ T, err error) error { return err }

// drained reads a stream to its end.
func drained[Request, Response any](
	call func(context.Context, *Request, ...grpc.CallOption) (grpc.ServerStreamingClient[Response], error), request *Request,
) func(context.Context) error {
	return func(ctx context.Context) error {
		stream, err := call(ctx, request)
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

func methodsOf(d grpc.ServiceDesc) []string {
	var names []string
	for _, m := range d.Methods {
		names = append(names, m.MethodName)
	}
	for _, s := range d.Streams {
		names = append(names, s.StreamName)
	}
	return names
}

func dial(address string, c credentials.TransportCredentials) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(c))
}

// plain asks for health and for the services that there are, and says what came of it.
func plain(ctx context.Context, c *grpc.ClientConn) string {
	health, err := healthv1.NewHealthClient(c).Check(ctx, &healthv1.HealthCheckRequest{Service: "wsdaemon.daemon.v1.WorkspaceService"})
	healthy := status.Code(err).String()
	if err == nil {
		healthy += " " + health.GetStatus().String()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := reflectionv1.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
	if err == nil {
		err = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	}
	if err == nil || errors.Is(err, io.EOF) {
		_, err = stream.Recv()
	}
	return healthy + ", " + status.Code(err).String()
}

// eventsOf returns the next events of a watch, in words.
func eventsOf(w *world, stream interface {
	Recv() (*daemonv1.WatchResponse, error)
}, n int,
) []string {
	w.t.Helper()
	var words []string
	for range n {
		m, err := stream.Recv()
		w.Expect(err).NotTo(HaveOccurred())
		word := strings.TrimPrefix(m.GetEvent().String(), "WATCH_EVENT_")
		if m.GetWorkspace() != nil {
			word += " " + m.GetWorkspace().GetNamespace() + "/" + m.GetWorkspace().GetName()
		}
		words = append(words, word)
	}
	return words
}
