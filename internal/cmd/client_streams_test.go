package cmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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

// saved sends how a backup gets on, and its end.
func saved(end *daemonv1.BackupResponse) func(grpc.ServerStreamingServer[daemonv1.BackupResponse]) error {
	end.Phase = daemonv1.BackupPhase_BACKUP_PHASE_DONE
	return func(to grpc.ServerStreamingServer[daemonv1.BackupResponse]) error {
		for _, r := range []*daemonv1.BackupResponse{
			{Phase: daemonv1.BackupPhase_BACKUP_PHASE_QUEUED, FilesExpected: 4, BytesExpected: 400},
			{Phase: daemonv1.BackupPhase_BACKUP_PHASE_RUNNING, FilesDone: 1, FilesExpected: 4, BytesDone: 100, BytesExpected: 400},
			{Phase: daemonv1.BackupPhase_BACKUP_PHASE_RUNNING, FilesDone: 3, FilesExpected: 4, BytesDone: 300, BytesExpected: 400},
			end,
		} {
			if err := to.Send(r); err != nil {
				return err
			}
		}
		return nil
	}
}

func whole() *daemonv1.Backup {
	return &daemonv1.Backup{Name: "7.3", Files: 12345, Bytes: 400 << 20, StoredBytes: 12 << 20, Complete: true, Duration: durationpb.New(2123 * time.Millisecond)}
}

// Where there is no terminal, each step has a line; the report is on standard output.
func TestClientBackup(t *testing.T) {
	lacking := whole()
	lacking.Complete, lacking.Unreadable = false, 2
	const steps = "waiting for other work\nbacking up\n"
	for name, tt := range map[string]struct {
		end            *daemonv1.BackupResponse
		args           []string
		out, complaint string
		code           int
	}{
		"made":      {&daemonv1.BackupResponse{Backup: whole()}, nil, "workspace/web saved as backup 7.3: 12,345 files, 400Mi, 12Mi stored, in 2.12s\n", "", 0},
		"unchanged": {&daemonv1.BackupResponse{Backup: whole(), Unchanged: true}, nil, "workspace/web equals backup 7.3: 12,345 files, 400Mi\n", "", 0},
		"by name":   {&daemonv1.BackupResponse{Backup: whole()}, []string{"-o", "name"}, "7.3\n", "", 0},
		"incomplete": {
			&daemonv1.BackupResponse{Backup: lacking, Problem: "cannot read a and b"}, []string{"-o", "name"}, "7.3\n",
			"backup 7.3 is incomplete: 2 files could not be read: cannot read a and b", 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			asks := (&standIn{backup: saved(tt.end)}).asks(t)
			var out, errOut bytes.Buffer
			root := newRoot()
			root.SetArgs(asks(append([]string{"backup", "web"}, tt.args...)...))
			root.SetOut(&out)
			root.SetErr(&errOut)
			err := root.ExecuteContext(t.Context())
			g.Expect(out.String()).To(Equal(tt.out))
			g.Expect(errOut.String()).To(Equal(steps))
			if tt.code == 0 {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(tt.complaint))
			g.Expect(exitCode(err)).To(Equal(tt.code))
		})
	}
}

// On a terminal there is a bar, and the line is empty afterwards.
func TestClientBackupShowsABarOnATerminal(t *testing.T) {
	g := NewWithT(t)
	asks := (&standIn{backup: saved(&daemonv1.BackupResponse{Backup: whole()})}).asks(t)
	tty, _, shown := terminal(t)
	root := newRoot()
	var out bytes.Buffer
	root.SetArgs(asks("backup", "web"))
	root.SetOut(&out)
	root.SetErr(tty)
	g.Expect(root.ExecuteContext(t.Context())).To(Succeed())
	g.Expect(out.String()).To(HavePrefix("workspace/web saved as backup 7.3: "))
	g.Expect(shown()).To(MatchRegexp(`^\rwaiting for other work  \[-{20}\]   0%  0 of 4 files  0 of 400\x1b\[K` +
		`(\rbacking up  \[#+-+\]  \d\d%  \d of 4 files  \d00 of 400\x1b\[K)*\r\x1b\[K$`))
}

func TestClientExport(t *testing.T) {
	g := NewWithT(t)
	breaks := false
	asks := (&standIn{export: func(r *daemonv1.ExportRequest, to grpc.ServerStreamingServer[daemonv1.ExportResponse]) error {
		g.Expect(r.GetBackup()).To(Equal("7.3"))
		for _, m := range []*daemonv1.ExportResponse{{Backup: whole()}, {Data: []byte("ta")}, {Data: []byte("r")}} {
			if err := to.Send(m); err != nil {
				return err
			}
		}
		if breaks {
			return status.Error(codes.DataLoss, "pack x is damaged")
		}
		return nil
	}}).asks(t)
	file := filepath.Join(t.TempDir(), "web.tar")
	g.Expect(must(t, asks("export", "web", "--backup=7.3")...)).To(Equal("exporting backup 7.3\ntar"))
	must(t, asks("export", "web", "--backup=7.3", "-f", file)...)
	g.Expect(os.ReadFile(file)).To(BeEquivalentTo("tar"))

	breaks = true
	other := filepath.Join(t.TempDir(), "other.tar")
	_, err := call(t.Context(), "", asks("export", "web", "--backup=7.3", "-f", other)...)
	g.Expect(err).To(MatchError("pack x is damaged"))
	g.Expect(exitCode(err)).To(Equal(1))
	g.Expect(os.ReadDir(filepath.Dir(other))).To(BeEmpty(), "half a tar is no tar")
}

func TestClientFiles(t *testing.T) {
	g := NewWithT(t)
	asks := (&standIn{files: func(r *daemonv1.ListFilesRequest, to grpc.ServerStreamingServer[daemonv1.ListFilesResponse]) error {
		at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))
		g.Expect(string(r.GetPath())).To(Equal("src"))
		g.Expect(r.GetRecursive()).To(BeTrue())
		files := []*daemonv1.File{
			{Path: []byte("src"), Type: daemonv1.FileType_FILE_TYPE_DIRECTORY, Mode: 0o755, Uid: 33333, Gid: 33333, ModifyTime: at},
			{Path: []byte("src/a\xff"), Type: daemonv1.FileType_FILE_TYPE_REGULAR, Mode: 0o4644, Size: 12, ModifyTime: at},
			{Path: []byte("src/l"), Type: daemonv1.FileType_FILE_TYPE_SYMLINK, Mode: 0o777, Target: []byte("a"), ModifyTime: at},
			{Path: []byte("src/gone"), Type: daemonv1.FileType_FILE_TYPE_REGULAR, Unreadable: true},
		}
		if err := to.Send(&daemonv1.ListFilesResponse{Backup: whole(), Files: files[:3]}); err != nil {
			return err
		}
		return to.Send(&daemonv1.ListFilesResponse{Files: files[3:]})
	}}).asks(t)
	files := func(args ...string) string {
		return must(t, asks(append([]string{"files", "web", "src", "-r"}, args...)...)...)
	}
	g.Expect(files()).To(Equal(`drwxr-xr-x 33333 33333          0 2026-01-02 03:04:05 src
-rw-r--r-- 0 0         12 2026-01-02 03:04:05 "src/a\xff"
Lrwxrwxrwx 0 0          0 2026-01-02 03:04:05 src/l -> "a"
?---------  could not be read when the backup was made: src/gone
`))
	g.Expect(files("-o", "name")).To(Equal("src\nsrc/a\xff\nsrc/l\nsrc/gone\n"))
	lines := strings.Split(files("-o", "json"), "\n")
	g.Expect(lines).To(HaveLen(5))
	g.Expect(lines[1]).To(Equal(`{"path":"src/a�","pathBase64":"c3JjL2H/","type":"file","mode":"4644","uid":0,"gid":0,"size":12,"time":"2026-01-02T03:04:05.000000006Z"}`))
}

// recorder is where a command writes while a test reads.
type recorder struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *recorder) Write(data []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(data)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// A watch outlasts a daemon that restarts, says nothing twice, and notices what has gone meanwhile. An interrupt is its usual end.
func TestClientWatch(t *testing.T) {
	g := NewWithT(t)
	updated, synced := daemonv1.WatchEvent_WATCH_EVENT_UPDATED, &daemonv1.WatchResponse{Event: daemonv1.WatchEvent_WATCH_EVENT_SYNCED}
	moved := web()
	moved.Reason, moved.Ready, moved.Backups = "Stopping", false, nil
	watches := [][]*daemonv1.WatchResponse{
		{{Event: updated, Workspace: web()}, {Event: updated, Workspace: broken()}, synced},
		{{Event: updated, Workspace: moved}, synced, {Event: daemonv1.WatchEvent_WATCH_EVENT_DELETED, Workspace: moved}},
		{synced},
	}
	for _, events := range watches { // times are those of the first
		for _, e := range events {
			if e.GetWorkspace() != nil {
				e.Workspace.CreateTime = ago(77 * time.Hour)
			}
		}
	}
	var calls atomic.Int32
	s := &standIn{watch: func(r *daemonv1.WatchRequest, to grpc.ServerStreamingServer[daemonv1.WatchResponse]) error {
		n := int(calls.Add(1))
		g.Expect(r.GetNamespace()).To(BeEmpty())
		for _, e := range watches[min(n, len(watches))-1] {
			if err := to.Send(e); err != nil {
				return err
			}
		}
		switch n {
		case 1:
			return status.Error(codes.Unavailable, "the daemon of this node stops")
		case 2:
			return status.Error(codes.DeadlineExceeded, "watch again")
		}
		<-to.Context().Done()
		return to.Context().Err()
	}}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errOut recorder
	root := newRoot()
	root.SetArgs(s.asks(t)("watch", "-A"))
	root.SetOut(&out)
	root.SetErr(&errOut)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	g.Eventually(calls.Load, "30s").Should(BeEquivalentTo(3))
	interrupt()
	g.Eventually(ended, "10s").Should(Receive(BeNil()))
	g.Expect(out.String()).To(Equal("" +
		"EVENT     NAMESPACE   NAME     READY   STATUS     NODE     SIZE   USED    LAST BACKUP   AGE\n" +
		"Updated   team        web      True    Running    node-a   20Gi   3.2Gi   5m            3d5h\n" +
		"Updated   team-b      broken   False   NoBackup   -        -      -       -             3d5h\n" +
		"Updated   team        web      False   Stopping   node-a   20Gi   3.2Gi   -             3d5h\n" +
		"Deleted   team-b      broken   False   NoBackup   -        -      -       -             3d5h\n" +
		"Deleted   team        web      False   Stopping   node-a   20Gi   3.2Gi   -             3d5h\n"))
	g.Expect(errOut.String()).To(Equal("the daemon of this node stops\n"))
}

// What is heard of a workspace is told while it is waited for, however many calls that takes.
func TestClientWait(t *testing.T) {
	g := NewWithT(t)
	var calls atomic.Int32
	var out recorder
	s := &standIn{
		watch: func(_ *daemonv1.WatchRequest, to grpc.ServerStreamingServer[daemonv1.WatchResponse]) error {
			for _, ws := range []*daemonv1.Workspace{{Uid: "u", Reason: "Provisioning", Message: "the volume is being made"}, {Uid: "u", Reason: "Restoring", Message: "backup 7.2"}} {
				if err := to.Send(&daemonv1.WatchResponse{Event: daemonv1.WatchEvent_WATCH_EVENT_UPDATED, Workspace: ws}); err != nil {
					return err
				}
			}
			if err := to.Send(&daemonv1.WatchResponse{Event: daemonv1.WatchEvent_WATCH_EVENT_SYNCED}); err != nil {
				return err
			}
			<-to.Context().Done()
			return to.Context().Err()
		},
		waitReady: func(context.Context) (*daemonv1.WaitReadyResponse, error) {
			if calls.Add(1) == 1 {
				g.Eventually(out.String, "10s").Should(ContainSubstring("Restoring"))
				return nil, status.Error(codes.DeadlineExceeded, "call again")
			}
			return &daemonv1.WaitReadyResponse{Workspace: web()}, nil
		},
	}
	root := newRoot()
	root.SetArgs(s.asks(t)("wait", "web"))
	root.SetOut(&out)
	root.SetErr(&out)
	g.Expect(root.ExecuteContext(t.Context())).To(Succeed())
	g.Expect(out.String()).To(Equal(
		"Provisioning: the volume is being made\nRestoring: backup 7.2\nworkspace/web is ready on node-a: /v/uid-1/content\n"))
}
