package cmd

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

// standIn answers in place of a daemon, as a test wants it.
type standIn struct {
	daemonv1.UnimplementedWorkspaceServiceServer

	list      func(*daemonv1.ListRequest) (*daemonv1.ListResponse, error)
	get       func(*daemonv1.GetRequest) (*daemonv1.GetResponse, error)
	watch     func(*daemonv1.WatchRequest, grpc.ServerStreamingServer[daemonv1.WatchResponse]) error
	waitReady func(context.Context) (*daemonv1.WaitReadyResponse, error)
	backup    func(grpc.ServerStreamingServer[daemonv1.BackupResponse]) error
	backups   func(*daemonv1.ListBackupsRequest) (*daemonv1.ListBackupsResponse, error)
	files     func(*daemonv1.ListFilesRequest, grpc.ServerStreamingServer[daemonv1.ListFilesResponse]) error
	snapshot  func(*daemonv1.SnapshotRequest) (*daemonv1.SnapshotResponse, error)
	usage     func(*daemonv1.UsageRequest) (*daemonv1.UsageResponse, error)
	export    func(*daemonv1.ExportRequest, grpc.ServerStreamingServer[daemonv1.ExportResponse]) error
}

func (s *standIn) List(_ context.Context, r *daemonv1.ListRequest) (*daemonv1.ListResponse, error) {
	return s.list(r)
}

func (s *standIn) Get(_ context.Context, r *daemonv1.GetRequest) (*daemonv1.GetResponse, error) {
	return s.get(r)
}

func (s *standIn) Watch(r *daemonv1.WatchRequest, to grpc.ServerStreamingServer[daemonv1.WatchResponse]) error {
	return s.watch(r, to)
}

func (s *standIn) WaitReady(ctx context.Context, _ *daemonv1.WaitReadyRequest) (*daemonv1.WaitReadyResponse, error) {
	return s.waitReady(ctx)
}

func (s *standIn) Backup(_ *daemonv1.BackupRequest, to grpc.ServerStreamingServer[daemonv1.BackupResponse]) error {
	return s.backup(to)
}

func (s *standIn) ListBackups(_ context.Context, r *daemonv1.ListBackupsRequest) (*daemonv1.ListBackupsResponse, error) {
	return s.backups(r)
}

func (s *standIn) ListFiles(r *daemonv1.ListFilesRequest, to grpc.ServerStreamingServer[daemonv1.ListFilesResponse]) error {
	return s.files(r, to)
}

func (s *standIn) Snapshot(_ context.Context, r *daemonv1.SnapshotRequest) (*daemonv1.SnapshotResponse, error) {
	return s.snapshot(r)
}

func (s *standIn) Usage(_ context.Context, r *daemonv1.UsageRequest) (*daemonv1.UsageResponse, error) {
	return s.usage(r)
}

func (s *standIn) Export(r *daemonv1.ExportRequest, to grpc.ServerStreamingServer[daemonv1.ExportResponse]) error {
	return s.export(r, to)
}

// asks returns a function that makes a command line for a client of the stand-in.
func (s *standIn) asks(t *testing.T) func(args ...string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	s.serve(t, path)
	return func(args ...string) []string { return append([]string{"client", "--address=unix://" + path}, args...) }
}

// serve serves at a path until the test ends, or the returned function is called.
func (s *standIn) serve(t *testing.T, path string) (stop func()) {
	t.Helper()
	g := NewWithT(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	g.Expect(err).NotTo(HaveOccurred())
	server := grpc.NewServer()
	daemonv1.RegisterWorkspaceServiceServer(server, s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			server.Stop()
			g.Expect(<-ended).To(Succeed())
		}
	}
	t.Cleanup(stop)
	return stop
}

// web is a workspace in use, and broken one that needs a person.
func web() *daemonv1.Workspace {
	return &daemonv1.Workspace{
		Namespace: "team", Name: "web", Uid: "uid-1", State: daemonv1.WorkspaceState_WORKSPACE_STATE_RUNNING, Ready: true, Reason: "Running",
		Message: "in use", Holder: "node-a", Claim: 7, CreateTime: ago(77 * time.Hour),
		Volume: &daemonv1.Volume{
			Class: "default", Driver: "quota", Path: "/v/uid-1/content", SizeBytes: 20 << 30, UsedBytes: 3435973837, SizeInodes: 1000, UsedInodes: 250,
		},
		Backups: &daemonv1.BackupState{Latest: &daemonv1.Backup{Name: "7.2", Time: ago(5 * time.Minute), Complete: true}, Count: 12},
	}
}

func broken() *daemonv1.Workspace {
	return &daemonv1.Workspace{
		Namespace: "team-b", Name: "broken", Uid: "uid-2", Reason: "NoBackup", Message: "the store has none\x1b[2J", CreateTime: ago(90 * time.Second),
	}
}

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(-d)) }

func TestClientList(t *testing.T) {
	some := &standIn{list: func(r *daemonv1.ListRequest) (*daemonv1.ListResponse, error) {
		switch {
		case r.GetNamespace() == "empty":
			return &daemonv1.ListResponse{}, nil
		case r.GetNamespace() == "default":
			return &daemonv1.ListResponse{Workspaces: []*daemonv1.Workspace{{Namespace: "default", Name: "new"}}}, nil
		case r.GetPageToken() == "":
			return &daemonv1.ListResponse{Workspaces: []*daemonv1.Workspace{web()}, NextPageToken: "more"}, nil
		default:
			return &daemonv1.ListResponse{Workspaces: []*daemonv1.Workspace{broken()}}, nil
		}
	}}
	asks := some.asks(t)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a namespace": {[]string{"list"}, "NAME   READY   STATUS   NODE   SIZE   USED   LAST BACKUP   AGE\nnew    -       -        -      -      -      -             -\n"},
		"all": {[]string{"list", "-A"}, "" +
			"NAMESPACE   NAME     READY   STATUS     NODE     SIZE   USED    LAST BACKUP   AGE\n" +
			"team        web      True    Running    node-a   20Gi   3.2Gi   5m            3d5h\n" +
			"team-b      broken   False   NoBackup   -        -      -       -             90s\n"},
		"wide": {[]string{"list", "-A", "-o", "wide"}, "" +
			"NAMESPACE   NAME     READY   STATUS     NODE     SIZE   USED    LAST BACKUP   AGE    MESSAGE\n" +
			"team        web      True    Running    node-a   20Gi   3.2Gi   5m            3d5h   in use\n" +
			"team-b      broken   False   NoBackup   -        -      -       -             90s    the store has none\\x1b[2J\n"},
		"names":         {[]string{"ls", "-A", "-o", "name"}, "workspace/web\nworkspace/broken\n"},
		"none":          {[]string{"list", "-n", "empty"}, "There are no workspaces of this node in namespace empty.\n"},
		"none, as JSON": {[]string{"list", "-n", "empty", "-o", "json"}, "{\n  \"items\": []\n}\n"},
		"none, as YAML": {[]string{"list", "-n", "empty", "-o", "yaml"}, "items: []\n"},
		"none, by name": {[]string{"list", "-n", "empty", "-o", "name"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(must(t, asks(tt.args...)...)).To(Equal(tt.want))
		})
	}
}

// Whatever the daemon says of a workspace is there, as a script can use it.
func TestClientGet(t *testing.T) {
	g := NewWithT(t)
	created := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	asks := (&standIn{get: func(r *daemonv1.GetRequest) (*daemonv1.GetResponse, error) {
		if r.GetNamespace() != "team" || r.GetName() != "web" {
			return nil, status.Error(codes.NotFound, "node node-a has no workspace "+r.GetNamespace()+"/"+r.GetName())
		}
		return &daemonv1.GetResponse{Workspace: &daemonv1.Workspace{
			Namespace: "team", Name: "web", State: daemonv1.WorkspaceState_WORKSPACE_STATE_STOPPED, CreateTime: timestamppb.New(created),
			Conditions: []*daemonv1.Condition{{Type: "Ready", Status: daemonv1.ConditionStatus_CONDITION_STATUS_FALSE, Reason: "Stopped"}},
			Content:    &daemonv1.Content{Source: "Git", Files: 3, Bytes: 1 << 40, Duration: durationpb.New(2100 * time.Millisecond)},
		}}, nil
	}}).asks(t)
	want := `claim: 0
conditions:
- message: ""
  reason: Stopped
  status: "False"
  type: Ready
content:
  backup: ""
  bytes: 1099511627776
  duration: 2.1
  files: 3
  snapshotId: ""
  source: Git
createTime: "2026-03-04T05:06:07.000008Z"
holder: ""
message: ""
name: web
namespace: team
ready: false
reason: ""
state: Stopped
uid: ""
`
	for _, name := range []string{"web", "workspace/web", "ws/web", "workspace.workspace.wsdaemon.dev/web"} {
		g.Expect(must(t, asks("get", "-n", "team", name, "-o", "yaml")...)).To(Equal(want))
	}
	_, err := call(t.Context(), "", asks("get", "web")...)
	g.Expect(err).To(MatchError("node node-a has no workspace default/web"))
	g.Expect(exitCode(err)).To(Equal(4))
}

func TestClientUsage(t *testing.T) {
	g := NewWithT(t)
	asks := (&standIn{usage: func(r *daemonv1.UsageRequest) (*daemonv1.UsageResponse, error) {
		if r.GetName() == "free" {
			return &daemonv1.UsageResponse{UsedBytes: 5 << 20, UsedInodes: 17}, nil
		}
		return &daemonv1.UsageResponse{
			UsedBytes: 3435973837, UsedInodes: 250, SizeBytes: 20 << 30, SizeInodes: 1000, Limited: true, Backups: 12,
			UnsavedSince: ago(4 * time.Minute), MeasureTime: ago(10 * time.Second), Escaped: map[string]string{"loose": "x has another project id"}[r.GetName()],
		}, nil
	}}).asks(t)
	g.Expect(must(t, asks("usage", "web")...)).To(Equal("" +
		"NAME   SIZE   USED    USE%   INODES   IUSED   IUSE%   LIMITED   BACKUPS   UNSAVED\n" +
		"web    20Gi   3.2Gi   17%    1000     250     25%     True      12        4m\n"))
	g.Expect(must(t, asks("usage", "free")...)).To(Equal("" +
		"NAME   SIZE   USED   USE%   INODES   IUSED   IUSE%   LIMITED   BACKUPS   UNSAVED\n" +
		"free   -      5Mi    -      -        17      -       False     0         -\n"))
	g.Expect(must(t, asks("usage", "loose", "-o", "wide")...)).To(Equal("" +
		"NAME    SIZE   USED    USE%   INODES   IUSED   IUSE%   LIMITED   BACKUPS   UNSAVED   MEASURED   ESCAPED\n" +
		"loose   20Gi   3.2Gi   17%    1000     250     25%     Escaped   12        4m        10s        x has another project id\n"))
}

func TestClientBackups(t *testing.T) {
	g := NewWithT(t)
	asks := (&standIn{backups: func(r *daemonv1.ListBackupsRequest) (*daemonv1.ListBackupsResponse, error) {
		if r.GetPageToken() != "" {
			return &daemonv1.ListBackupsResponse{Backups: []*daemonv1.Backup{{Name: "6.41", Damage: "flipped", Time: ago(30 * time.Hour)}}}, nil
		}
		return &daemonv1.ListBackupsResponse{NextPageToken: "more", Backups: []*daemonv1.Backup{
			{Name: "7.2", Files: 12345, Bytes: 400 << 20, StoredBytes: 12 << 20, Node: "node-a", Complete: true, Time: ago(5 * time.Minute)},
			{Name: "7.1", Files: 12344, Bytes: 400 << 20, Node: "node-a", Unreadable: 2, Time: timestamppb.New(time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC))},
		}}, nil
	}}).asks(t)
	g.Expect(must(t, asks("backups", "web", "--limit", "1")...)).To(Equal("" +
		"NAME   STATUS     FILES   SIZE    STORED   NODE     AGE\n" +
		"7.2    Complete   12345   400Mi   12Mi     node-a   5m\n"))
	g.Expect(must(t, asks("backups", "web", "-o", "name")...)).To(Equal("7.2\n7.1\n6.41\n"))
	g.Expect(must(t, asks("backups", "web", "-o", "wide")...)).To(MatchRegexp("^" +
		"NAME   STATUS       FILES   SIZE    STORED   NODE     AGE\\w*   +UNREADABLE   TIME                   DAMAGE\n" +
		"7.2    Complete     12345   400Mi   12Mi     node-a   5m       +0            \\S{20}   -\n" +
		"7.1    Incomplete   12344   400Mi   0        node-a   \\w+ +2            2020-01-02T03:04:05Z   -\n" +
		"6.41   Damaged      -       -       -        -        30h     +-            \\S{20}   flipped\n$"))
}

func TestClientSnapshot(t *testing.T) {
	g := NewWithT(t)
	var asked *daemonv1.SnapshotRequest
	asks := (&standIn{snapshot: func(r *daemonv1.SnapshotRequest) (*daemonv1.SnapshotResponse, error) {
		asked = r
		return &daemonv1.SnapshotResponse{Snapshot: &daemonv1.Snapshot{
			Name: "lunch", Id: "s-1", Workspace: "web", Backup: "7.3", Time: ago(2 * time.Second), Files: 3, Bytes: 1 << 20,
		}}, nil
	}}).asks(t)
	g.Expect(must(t, asks("snapshot", "web", "--name=lunch", "--deletion-policy=Delete")...)).To(Equal("" +
		"NAME    WORKSPACE   BACKUP   FILES   SIZE   AGE   ID\n" +
		"lunch   web         7.3      3       1Mi    2s    s-1\n"))
	g.Expect(asked.GetSnapshotName()).To(Equal("lunch"))
	g.Expect(asked.GetDeletionPolicy()).To(Equal(daemonv1.DeletionPolicy_DELETION_POLICY_DELETE))
	g.Expect(must(t, asks("snapshot", "web", "-o", "name")...)).To(Equal("snapshot/lunch\n"))
	g.Expect(asked.GetDeletionPolicy()).To(Equal(daemonv1.DeletionPolicy_DELETION_POLICY_RETAIN))
}

func TestClientCompletesWhatTheDaemonKnows(t *testing.T) {
	asks := (&standIn{
		list: func(r *daemonv1.ListRequest) (*daemonv1.ListResponse, error) {
			all := []*daemonv1.Workspace{{Namespace: "team", Name: "db"}, {Namespace: "team", Name: "web"}}
			if r.GetNamespace() == "" {
				all = append(all, &daemonv1.Workspace{Namespace: "team-b", Name: "broken"})
			}
			return &daemonv1.ListResponse{Workspaces: all}, nil
		},
		backups: func(r *daemonv1.ListBackupsRequest) (*daemonv1.ListBackupsResponse, error) {
			return &daemonv1.ListBackupsResponse{Backups: []*daemonv1.Backup{{Name: r.GetName() + ".2"}, {Name: r.GetName() + ".1"}}}, nil
		},
	}).asks(t)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"workspaces":        {[]string{"get", "-n", "team", ""}, "db\nweb\n:4\n"},
		"nothing more":      {[]string{"get", "web", ""}, ":4\n"},
		"namespaces":        {[]string{"get", "-n", ""}, "team\nteam-b\n:4\n"},
		"backups":           {[]string{"export", "7", "--backup", ""}, "7.2\n7.1\n:4\n"},
		"backups of nobody": {[]string{"export", "--backup", ""}, ":4\n"},
		"formats":           {[]string{"watch", "-o", ""}, "json\nwide\nname\n:4\n"},
		"no daemon":         {[]string{"--address=unix:///nowhere", "get", ""}, ":5\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out := must(t, append([]string{"__complete"}, asks(tt.args...)...)...)
			NewWithT(t).Expect(out).To(HavePrefix(tt.want + "Completion ended with directive: "))
		})
	}
}
