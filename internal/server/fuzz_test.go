package server

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// bytesCodec sends and takes messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = b; return nil }
func (bytesCodec) Name() string                    { return "proto" }

// seed is a request, and the code of the answer to it.
type seed struct {
	request proto.Message
	want    codes.Code
}

// seeds are requests of each method that is served on the socket: what is answered, and what is refused.
func seeds() map[string][]seed {
	const up, workspace, health = "../../etc", "/wsdaemon.daemon.v1.WorkspaceService/", "/grpc.health.v1.Health/"
	services := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}
	file := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileByFilename{FileByFilename: up}}
	return map[string][]seed{
		workspace + "List": {
			{&daemonv1.ListRequest{}, codes.OK}, {&daemonv1.ListRequest{Namespace: "team-a", PageSize: 1, PageToken: "team-a/web"}, codes.OK},
			{&daemonv1.ListRequest{PageSize: -1}, codes.InvalidArgument}, {&daemonv1.ListRequest{PageToken: up}, codes.InvalidArgument},
		},
		workspace + "Get": {
			{&daemonv1.GetRequest{Namespace: "team-a", Name: "web"}, codes.OK}, {&daemonv1.GetRequest{Namespace: "team-a", Name: "none"}, codes.NotFound},
			{&daemonv1.GetRequest{Namespace: up, Name: "\x00"}, codes.InvalidArgument},
		},
		workspace + "Watch": {
			{&daemonv1.WatchRequest{}, codes.OK}, {&daemonv1.WatchRequest{Namespace: "team-a", Name: "web"}, codes.OK},
			{&daemonv1.WatchRequest{Name: up}, codes.InvalidArgument}, {&daemonv1.WatchRequest{Namespace: "*"}, codes.InvalidArgument},
		},
		workspace + "WaitReady": {
			{&daemonv1.WaitReadyRequest{Namespace: "team-a", Name: "web"}, codes.OK}, {&daemonv1.WaitReadyRequest{}, codes.InvalidArgument},
			{&daemonv1.WaitReadyRequest{Namespace: "team-a", Name: "slow"}, codes.DeadlineExceeded},
		},
		workspace + "Backup": {
			{&daemonv1.BackupRequest{Namespace: "team-a", Name: "web"}, codes.OK}, {&daemonv1.BackupRequest{Namespace: "team-a", Name: "slow"}, codes.FailedPrecondition},
			{&daemonv1.BackupRequest{Namespace: "team-a", Name: up}, codes.InvalidArgument},
		},
		workspace + "ListBackups": {
			{&daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web", PageToken: "9.9"}, codes.OK},
			{&daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web", PageToken: "9223372036854775808.1"}, codes.InvalidArgument},
		},
		workspace + "ListFiles": {
			{&daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Path: []byte("d/b"), Recursive: true}, codes.OK},
			{&daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Backup: "1.1"}, codes.OK},
			{&daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Path: []byte("a\x00/..")}, codes.InvalidArgument},
			{&daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", SnapshotId: up}, codes.InvalidArgument},
		},
		workspace + "Snapshot": {
			{&daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web"}, codes.OK},
			{&daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web", SnapshotName: "kept", DeletionPolicy: daemonv1.DeletionPolicy_DELETION_POLICY_DELETE}, codes.OK},
			{&daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web", SnapshotName: up, DeletionPolicy: 99}, codes.InvalidArgument},
		},
		workspace + "Usage": {
			{&daemonv1.UsageRequest{Namespace: "team-a", Name: "web"}, codes.OK}, {&daemonv1.UsageRequest{Namespace: "team-a"}, codes.InvalidArgument},
		},
		workspace + "Export": {
			{&daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "1.1"}, codes.OK},
			{&daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "1.7"}, codes.NotFound},
			{&daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "1." + strings.Repeat("9", 40)}, codes.InvalidArgument},
		},
		health + "Check": {{&healthv1.HealthCheckRequest{}, codes.OK}, {&healthv1.HealthCheckRequest{Service: up}, codes.NotFound}},
		health + "List":  {{&healthv1.HealthListRequest{}, codes.OK}},
		health + "Watch": {{&healthv1.HealthCheckRequest{}, codes.OK}, {&healthv1.HealthCheckRequest{Service: up}, codes.OK}},
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {{services, codes.OK}, {file, codes.OK}, {&reflectionv1.ServerReflectionRequest{}, codes.InvalidArgument}},
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {{services, codes.OK}, {file, codes.OK}, {&reflectionv1.ServerReflectionRequest{}, codes.InvalidArgument}},
	}
}

// bytes are the request as it is sent.
func (s seed) bytes() []byte {
	data, err := proto.Marshal(s.request)
	if err != nil { // what protobuf itself does not send can be sent all the same
		return []byte{0x0a, 0x04, 0xff, 0xff, 0xff, 0xff}
	}
	return data
}

// answering is a server that is quick to answer whatever it can, how to send it bytes, and whether a call has panicked.
func answering(tb testing.TB) (*world, *grpc.ClientConn, *atomic.Bool) {
	tb.Helper()
	w := newWorld(tb, workspace("team-a", "web"), workspace("team-a", "slow", not("Restoring", "")))
	w.saved("team-a", "web", map[string]string{"a": "1", "d/b": "2"})
	w.engine.quick = true
	w.server.Client = interceptor.NewClient(w.client, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return nil },
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			s, ok := o.(*v1.Snapshot)
			if !ok {
				return c.Get(ctx, key, o, options...)
			}
			s.Namespace, s.Name = key.Namespace, key.Name
			s.Status.Conditions = []metav1.Condition{{Type: v1.ConditionReady, Status: metav1.ConditionTrue}}
			return nil
		},
	})
	c := w.server.Configured()
	c.RequestsPerSecond = 1 << 30
	w.server.Configure(c)
	panicked := &atomic.Bool{}
	w.server.Log = funcr.New(func(_, args string) {
		if strings.Contains(args, "a call has panicked") {
			panicked.Store(true)
		}
	}, funcr.Options{})
	w.start()
	return w, w.connect(grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}))), panicked
}

// served are the methods that the socket has, as they are called.
func served() []string {
	g := grpc.NewServer()
	daemonv1.RegisterWorkspaceServiceServer(g, daemonv1.UnimplementedWorkspaceServiceServer{})
	registerPlain(g)
	var names []string
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			names = append(names, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Every method is fuzzed from requests that it answers, and others that it refuses; whatever is no message is refused by each.
func TestSeedsReachEveryCall(t *testing.T) {
	noLeaks(t)
	_, conn, panicked := answering(t)
	all := seeds()
	NewWithT(t).Expect(slices.Sorted(maps.Keys(all))).To(Equal(served()))
	for method, requests := range all {
		for _, s := range requests {
			err := exchange(conn, method, s.bytes(), time.Second)
			NewWithT(t).Expect(status.Code(err)).To(Equal(s.want), "%s(%v): %v", method, s.request, err)
		}
		err := exchange(conn, method, []byte{0xff, 0xff, 0xff, 0x01}, time.Minute)
		NewWithT(t).Expect(outcome(err)).To(MatchRegexp("^Internal: grpc: (error unmarshalling request|failed to unmarshal the received message): "), method)
	}
	NewWithT(t).Expect(panicked.Load()).To(BeFalse())
}

// Whatever bytes are sent for the request of whatever method, there is an answer or an error that names what is wrong; no call panics,
// and the next one is served.
func FuzzCalls(f *testing.F) {
	_, conn, panicked := answering(f)
	methods := served()
	for method, requests := range seeds() {
		for _, s := range requests {
			f.Add(uint8(slices.Index(methods, method)), s.bytes())
		}
	}
	expected := []codes.Code{
		codes.OK, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.DeadlineExceeded, codes.ResourceExhausted,
	}
	f.Fuzz(func(t *testing.T, method uint8, request []byte) {
		name := methods[int(method)%len(methods)]
		err := exchange(conn, name, request, 30*time.Millisecond)
		code, text := status.Code(err), status.Convert(err).Message()
		if panicked.Load() {
			t.Fatalf("%s(%q) panics", name, request)
		}
		if !slices.Contains(expected, code) && (code != codes.Internal || !strings.Contains(text, "unmarshal")) {
			t.Fatalf("%s(%q): %v", name, request, err)
		}
		if code == codes.InvalidArgument && !strings.Contains(text, ": ") {
			t.Fatalf("%s(%q): no field is named: %v", name, request, err)
		}
	})
}

// exchange makes a call and reads what comes, for a while; of what never ends, the first message.
func exchange(conn *grpc.ClientConn, method string, request []byte, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		var answer []byte
		err := stream.RecvMsg(&answer)
		if errors.Is(err, io.EOF) || err == nil && strings.HasSuffix(method, "/Watch") {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
