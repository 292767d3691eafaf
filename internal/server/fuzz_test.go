package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

// bytesCodec sends and takes messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = b; return nil }
func (bytesCodec) Name() string                    { return "proto" }

// seeds are requests of each method, good and bad.
func seeds() map[string][]proto.Message {
	const up = "../../etc"
	return map[string][]proto.Message{
		"List":        {&daemonv1.ListRequest{}, &daemonv1.ListRequest{Namespace: "team-a", PageSize: 1, PageToken: "team-a/web"}, &daemonv1.ListRequest{PageSize: -1}},
		"Get":         {&daemonv1.GetRequest{Namespace: "team-a", Name: "web"}, &daemonv1.GetRequest{Namespace: up, Name: "\x00"}},
		"Watch":       {&daemonv1.WatchRequest{}, &daemonv1.WatchRequest{Namespace: "team-a", Name: "web"}, &daemonv1.WatchRequest{Name: up}},
		"WaitReady":   {&daemonv1.WaitReadyRequest{Namespace: "team-a", Name: "web"}, &daemonv1.WaitReadyRequest{}},
		"Backup":      {&daemonv1.BackupRequest{Namespace: "team-a", Name: "slow"}, &daemonv1.BackupRequest{Namespace: "team-a", Name: "none"}},
		"ListBackups": {&daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web", PageToken: "9.9"}, &daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web", PageToken: "9223372036854775808.1"}},
		"ListFiles": {
			&daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Path: []byte("d/b"), Recursive: true},
			&daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Path: []byte("a\x00/..")}, &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", SnapshotId: up},
		},
		"Snapshot": {&daemonv1.SnapshotRequest{Namespace: "team-a", Name: "none"}, &daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web", SnapshotName: up, DeletionPolicy: 99}},
		"Usage":    {&daemonv1.UsageRequest{Namespace: "team-a", Name: "web"}},
		"Export":   {&daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "1.1"}, &daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "1." + strings.Repeat("9", 40)}},
	}
}

// Whatever bytes are sent for the request of whatever method, there is an answer or an error that names what is wrong; no call panics,
// and the next one is served.
func FuzzCalls(f *testing.F) {
	w := newWorld(f, workspace("team-a", "web"), workspace("team-a", "slow", not("Restoring", "")))
	w.saved("team-a", "web", map[string]string{"a": "1", "d/b": "2"})
	c := w.server.Configured()
	c.RequestsPerSecond = 1 << 30
	w.server.Configure(c)
	w.start()
	methods := methodsOf(daemonv1.WorkspaceService_ServiceDesc)
	slices.Sort(methods)
	for method, requests := range seeds() {
		for _, r := range requests {
			data, err := proto.Marshal(r)
			if err != nil { // what protobuf itself does not send can be sent all the same
				data = []byte{0xff, 0xff, 0xff, 0x01}
			}
			f.Add(uint8(slices.Index(methods, method)), data)
		}
	}
	conn := w.connect(grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	f.Fuzz(func(t *testing.T, method uint8, request []byte) {
		name := methods[int(method)%len(methods)]
		err := exchange(conn, name, request)
		code, text := status.Code(err), status.Convert(err).Message()
		if !slices.Contains([]codes.Code{
			codes.OK, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.DeadlineExceeded, codes.ResourceExhausted,
		}, code) && (code != codes.Internal || !strings.Contains(text, "unmarshal")) {
			t.Fatalf("%s(%q): %v", name, request, err)
		}
		if code == codes.InvalidArgument && !strings.Contains(text, ": ") {
			t.Fatalf("%s(%q): no field is named: %v", name, request, err)
		}
	})
	if n := counted(w, "ws_daemon_service_panics_total"); n > 0 {
		f.Fatalf("%v calls have panicked", n)
	}
}

// exchange makes a call and reads what comes, for a moment.
func exchange(conn *grpc.ClientConn, method string, request []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/wsdaemon.daemon.v1.WorkspaceService/"+method)
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
		if err := stream.RecvMsg(&answer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
