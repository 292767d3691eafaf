package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// full is a workspace with everything in its status.
func full(ws *v1.Workspace) {
	at, inodes := metav1.NewTime(time.Unix(1_700_000_000, 0)), int64(1000)
	size, used := resource.MustParse("2Gi"), resource.MustParse("1Gi")
	ws.CreationTimestamp = at
	ws.Spec.Volume.Inodes = &inodes
	ws.Status.Conditions = []metav1.Condition{
		{Type: "VolumeReady", Status: metav1.ConditionUnknown, Reason: "Provisioning"},
		{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Restoring", Message: "on its way", LastTransitionTime: at},
	}
	ws.Status.Volume = &v1.VolumeStatus{Path: "/v/content", Driver: "lvm", Size: &size, Used: &used, InodesUsed: 7}
	ws.Status.Content = &v1.ContentStatus{Source: v1.SourceBackup, Backup: "2.4", Files: 3, Bytes: 9, Duration: &metav1.Duration{Duration: time.Second}}
	ws.Status.Backup = &v1.BackupStatus{
		Latest:    &v1.BackupRecord{Name: "3.1", Time: at, Files: 3, Bytes: 9, UploadedBytes: 5, Duration: &metav1.Duration{Duration: 2 * time.Second}},
		CheckedAt: &at, Oldest: "1.1", Count: 12, Attempts: 2, FailingSince: &at, NextAttempt: &at,
	}
	ws.Status.Operation = &v1.OperationStatus{Type: v1.OperationRestore, StartedAt: &at, FilesDone: 1, FilesTotal: 3, BytesDone: 2, BytesTotal: 9, Attempts: 1, LastFailure: "x", NextAttempt: &at}
	ws.Status.Git = &v1.GitStatus{Branch: "main", Commit: "abc", TotalUncommittedFiles: 1, TotalUntrackedFiles: 2, TotalUnpushedCommits: 3}
}

const fullText = `
namespace: "team-a" name: "full" uid: "team-a-full" state: WORKSPACE_STATE_RUNNING
reason: "Restoring" message: "on its way" holder: "node-a" claim: 3
create_time: {seconds: 1700000000}
conditions: {type: "Ready" status: CONDITION_STATUS_FALSE reason: "Restoring" message: "on its way" transition_time: {seconds: 1700000000}}
conditions: {type: "VolumeReady" status: CONDITION_STATUS_UNKNOWN reason: "Provisioning"}
volume: {class: "default" driver: "lvm" path: "/v/content" size_bytes: 2147483648 used_bytes: 1073741824 size_inodes: 1000 used_inodes: 7}
content: {source: "Backup" backup: "2.4" files: 3 bytes: 9 duration: {seconds: 1}}
backups: {
  latest: {name: "3.1" time: {seconds: 1700000000} files: 3 bytes: 9 stored_bytes: 5 duration: {seconds: 2} complete: true}
  check_time: {seconds: 1700000000} oldest: "1.1" count: 12 attempts: 2 failing_since: {seconds: 1700000000} retry_time: {seconds: 1700000000}
}
operation: {
  type: "Restore" start_time: {seconds: 1700000000} files_done: 1 files_total: 3 bytes_done: 2 bytes_total: 9 attempts: 1 failure: "x"
  retry_time: {seconds: 1700000000}
}
git: {branch: "main" commit: "abc" uncommitted: 1 untracked: 2 unpushed: 3}`

func TestGetSaysWhatTheObjectSays(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "full", full), workspace("team-a", "new", func(ws *v1.Workspace) {
		ws.Spec.State, ws.Status = v1.StateStopped, v1.WorkspaceStatus{}
	})).start()
	got, err := w.local().Get(t.Context(), &daemonv1.GetRequest{Namespace: "team-a", Name: "full"})
	w.Expect(err).NotTo(HaveOccurred())
	var want daemonv1.Workspace
	w.Expect(prototext.Unmarshal([]byte(fullText), &want)).To(Succeed())
	w.Expect(proto.Equal(got.GetWorkspace(), &want)).To(BeTrue(), prototext.Format(got))

	got, err = w.local().Get(t.Context(), &daemonv1.GetRequest{Namespace: "team-a", Name: "new"})
	w.Expect(err).NotTo(HaveOccurred())
	want = daemonv1.Workspace{}
	w.Expect(prototext.Unmarshal([]byte(`namespace: "team-a" name: "new" uid: "team-a-new" state: WORKSPACE_STATE_STOPPED volume: {class: "default"}`), &want)).To(Succeed())
	w.Expect(proto.Equal(got.GetWorkspace(), &want)).To(BeTrue(), prototext.Format(got))
}

func TestBadRequestsAreRefusedByField(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	c := w.local()
	long := strings.Repeat("x", 64)
	for name, c := range map[string]struct {
		call func(context.Context) error
		want string
	}{
		"no namespace": {func(ctx context.Context) error { return second(c.Get(ctx, &daemonv1.GetRequest{Name: "web"})) },
			"InvalidArgument: namespace: must be the name of a namespace, 1 to 63 small letters, digits and inner hyphens, not \"\""},
		"a path for a namespace": {func(ctx context.Context) error {
			return second(c.Usage(ctx, &daemonv1.UsageRequest{Namespace: "../x", Name: "web"}))
		},
			"InvalidArgument: namespace: must be the name of a namespace, 1 to 63 small letters, digits and inner hyphens, not \"../x\""},
		"no name": {func(ctx context.Context) error { return second(c.Get(ctx, &daemonv1.GetRequest{Namespace: "team-a"})) },
			"InvalidArgument: name: must have 1 to 63 small letters, digits, inner hyphens and dots, not \"\""},
		"a long name": {func(ctx context.Context) error {
			return second(c.WaitReady(ctx, &daemonv1.WaitReadyRequest{Namespace: "team-a", Name: long}))
		},
			"InvalidArgument: name: must have 1 to 63 small letters, digits, inner hyphens and dots, not \"" + long + "\""},
		"a name without its namespace": {drained(c.Watch, &daemonv1.WatchRequest{Name: "web"}),
			"InvalidArgument: namespace: must be the name of a namespace, 1 to 63 small letters, digits and inner hyphens, not \"\""},
		"a large page": {func(ctx context.Context) error { return second(c.List(ctx, &daemonv1.ListRequest{PageSize: 501})) },
			"InvalidArgument: page_size: must be from 0 to 500, not 501"},
		"a page of less than nothing": {func(ctx context.Context) error {
			return second(c.ListBackups(ctx, &daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web", PageSize: -1}))
		}, "InvalidArgument: page_size: must be from 0 to 100, not -1"},
		"a token of nobody": {func(ctx context.Context) error { return second(c.List(ctx, &daemonv1.ListRequest{PageToken: "x"})) },
			"InvalidArgument: page_token: must be the next_page_token of the answer before, not \"x\""},
		"a backup's token of nobody": {func(ctx context.Context) error {
			return second(c.ListBackups(ctx, &daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web", PageToken: "7"}))
		}, "InvalidArgument: page_token: must be the name of a backup, 7.2 for example, not \"7\""},
		"a backup of another form": {drained(c.Export, &daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "../7.2"}),
			"InvalidArgument: backup: must be the name of a backup, 7.2 for example, not \"../7.2\""},
		"a claim for a backup": {drained(c.Export, &daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "7.0"}),
			"InvalidArgument: backup: must be the name of a backup, 7.2 for example, not \"7.0\""},
		"a backup and a snapshot": {drained(c.ListFiles, &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Backup: "7.2", SnapshotId: "x"}),
			"InvalidArgument: backup and snapshot_id: name one of them, or none for the newest complete backup"},
		"a path for a snapshot": {drained(c.ListFiles, &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", SnapshotId: "../x"}),
			"InvalidArgument: snapshot_id: must be the id of a snapshot, status.snapshotID of its object, not \"../x\""},
		"a path out of the backup": {drained(c.ListFiles, &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Path: []byte("a/../../etc")}),
			"InvalidArgument: path: must be one from the workspace's root, without \".\" and \"..\", not \"a/../../etc\""},
		"a path with a zero": {drained(c.ListFiles, &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Path: []byte("a\x00b")}),
			"InvalidArgument: path: must be one from the workspace's root, without \".\" and \"..\", not \"a\\x00b\""},
		"a path without end": {drained(c.ListFiles, &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web", Path: []byte(strings.Repeat("a/", 1<<13+1))}),
			"InvalidArgument: path: must have at most 16384 bytes, not 16385"},
		"a snapshot's name": {func(ctx context.Context) error {
			return second(c.Snapshot(ctx, &daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web", SnapshotName: "A"}))
		}, "InvalidArgument: snapshot_name: must have 1 to 63 small letters, digits, inner hyphens and dots, not \"A\""},
		"a policy of nobody": {func(ctx context.Context) error {
			return second(c.Snapshot(ctx, &daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web", DeletionPolicy: 7}))
		}, "InvalidArgument: deletion_policy: must be RETAIN or DELETE, not 7"},
		"a workspace of another node": {func(ctx context.Context) error {
			return second(c.Get(ctx, &daemonv1.GetRequest{Namespace: "team-a", Name: "else"}))
		},
			"NotFound: node node-a has no workspace team-a/else: its object may name another node in spec.nodeName, ask there"},
		"too large a request": {func(ctx context.Context) error {
			return second(c.Get(ctx, &daemonv1.GetRequest{Namespace: strings.Repeat("x", maxRequest)}))
		}, fmt.Sprintf("ResourceExhausted: grpc: received message larger than max (%d vs. %d)", maxRequest+4, maxRequest)},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(outcome(c.call(t.Context()))).To(Equal(c.want))
		})
	}
}

func TestListIsInOrderAndInPages(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-b", "a"), workspace("team-a", "c"), workspace("team-a", "b"), workspace("team-c", "d")).start()
	names := func(request *daemonv1.ListRequest) (all []string) {
		for {
			page, err := w.local().List(t.Context(), request)
			w.Expect(err).NotTo(HaveOccurred())
			var names []string
			for _, ws := range page.GetWorkspaces() {
				names = append(names, token(ws))
			}
			all = append(all, strings.Join(names, " "))
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return all
			}
		}
	}
	w.Expect(names(&daemonv1.ListRequest{})).To(Equal([]string{"team-a/b team-a/c team-b/a team-c/d"}))
	w.Expect(names(&daemonv1.ListRequest{PageSize: 3})).To(Equal([]string{"team-a/b team-a/c team-b/a", "team-c/d"}))
	w.Expect(names(&daemonv1.ListRequest{PageSize: 2})).To(Equal([]string{"team-a/b team-a/c", "team-b/a team-c/d"}))
	w.Expect(names(&daemonv1.ListRequest{Namespace: "team-a", PageSize: 1})).To(Equal([]string{"team-a/b", "team-a/c"}))
	w.Expect(names(&daemonv1.ListRequest{Namespace: "team-x"})).To(Equal([]string{""}))
}

// A page has less than what a client takes, however much each workspace says.
func TestAPageIsNotTooLarge(t *testing.T) {
	noLeaks(t)
	w := newWorld(t)
	for i := range 20 {
		w.change(workspace("team-a", fmt.Sprintf("large-%d", i), not("Restoring", strings.Repeat("x", 120_000))))
	}
	w.start()
	request, seen, pages := &daemonv1.ListRequest{}, 0, 0
	for again := true; again; again = request.PageToken != "" {
		page, err := w.local().List(t.Context(), request)
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(proto.Size(page)).To(BeNumerically("<", fullPage+4096))
		seen, pages, request.PageToken = seen+len(page.GetWorkspaces()), pages+1, page.GetNextPageToken()
	}
	w.Expect([]int{seen, pages}).To(Equal([]int{20, 5}))
}

// Whoever may look into some namespaces sees those, and what changes in them, when he asks for all.
func TestAllNamespacesAreThoseOfTheCaller(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"), workspace("team-b", "web"))
	ours := w.serveNetwork(1000)
	reader := w.remote(mutual(ours, ours.issue("reader")))
	page, err := reader.List(t.Context(), &daemonv1.ListRequest{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(page.GetWorkspaces()).To(HaveLen(1))
	w.Expect(token(page.GetWorkspaces()[0])).To(Equal("team-a/web"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reader.Watch(ctx, &daemonv1.WatchRequest{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(eventsOf(w, stream, 2)).To(Equal([]string{"UPDATED team-a/web", "SYNCED"}))
	w.change(workspace("team-b", "new"))
	w.change(workspace("team-a", "new"))
	w.Expect(eventsOf(w, stream, 1)).To(Equal([]string{"UPDATED team-a/new"}))
	_, err = w.remote(mutual(ours, ours.issue("stranger"))).List(t.Context(), &daemonv1.ListRequest{})
	w.Expect(outcome(err)).To(Equal("PermissionDenied: CN=stranger may not List in any namespace: service.rights of the daemon's configuration would have to allow it"))
}

func TestWatchSendsWhatChanges(t *testing.T) {
	noLeaks(t)
	web := workspace("team-a", "web")
	w := newWorld(t, web.DeepCopy(), workspace("team-b", "web")).start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := func(r *daemonv1.WatchRequest) interface {
		Recv() (*daemonv1.WatchResponse, error)
	} {
		stream, err := w.local().Watch(ctx, r)
		w.Expect(err).NotTo(HaveOccurred())
		return stream
	}
	all, team, one := watch(&daemonv1.WatchRequest{}), watch(&daemonv1.WatchRequest{Namespace: "team-a"}), watch(&daemonv1.WatchRequest{Namespace: "team-a", Name: "web"})
	w.Expect(eventsOf(w, all, 3)).To(Equal([]string{"UPDATED team-a/web", "UPDATED team-b/web", "SYNCED"}))
	w.Expect(eventsOf(w, team, 2)).To(Equal([]string{"UPDATED team-a/web", "SYNCED"}))
	w.Expect(eventsOf(w, one, 2)).To(Equal([]string{"UPDATED team-a/web", "SYNCED"}))

	w.change(workspace("team-a", "api"))
	w.Expect(eventsOf(w, all, 1)).To(Equal([]string{"UPDATED team-a/api"}))
	w.Expect(eventsOf(w, team, 1)).To(Equal([]string{"UPDATED team-a/api"}))
	w.remove(web)
	for _, stream := range []interface {
		Recv() (*daemonv1.WatchResponse, error)
	}{all, team, one} {
		w.Expect(eventsOf(w, stream, 1)).To(Equal([]string{"DELETED team-a/web"}))
	}
	w.Eventually(func() int { return len(w.server.hub.watchers) }).Should(Equal(3))
	cancel()
	w.Eventually(func() int {
		w.server.hub.mu.Lock()
		defer w.server.hub.mu.Unlock()
		return len(w.server.hub.watchers)
	}).Should(BeZero(), "nothing is collected for those who went")
}

// A reader who is slow gets the newest state of each, and what waits for him does not grow.
func TestChangesThatNobodyReadsDoNotPileUp(t *testing.T) {
	g := NewWithT(t)
	var h hub
	slow := h.watch("", "")
	for i := range 1000 {
		ws := workspace("team-a", fmt.Sprintf("ws-%d", i%3))
		ws.Status.Claim = int64(i)
		h.OnUpdate(nil, ws)
	}
	h.OnDelete(workspace("team-a", "ws-1"))
	var got []string
	for _, c := range slow.take() {
		got = append(got, fmt.Sprintf("%s %d %t", c.ws.Name, c.ws.Status.Claim, c.gone))
	}
	g.Expect(got).To(Equal([]string{"ws-0 999 false", "ws-1 3 true", "ws-2 998 false"}))
	g.Expect(slow.take()).To(BeEmpty())
	h.leave(slow)
	h.OnAdd(workspace("team-a", "late"), false)
	g.Expect(slow.take()).To(BeEmpty())
}

func TestWaitReady(t *testing.T) {
	noLeaks(t)
	stalled := func(ws *v1.Workspace) {
		ws.Generation = 2
		ws.Status.Conditions = append(ws.Status.Conditions, metav1.Condition{
			Type: v1.ConditionStalled, Status: metav1.ConditionTrue, Reason: "NoBackup", Message: "bring it back", ObservedGeneration: 2,
		})
	}
	w := newWorld(t, workspace("team-a", "ready"),
		workspace("team-a", "stopped", not("Stopped", ""), func(ws *v1.Workspace) { ws.Spec.State = v1.StateStopped }),
		workspace("team-a", "stalled", not("NoBackup", "x"), stalled),
		workspace("team-a", "edited", not("NoBackup", "x"), stalled, func(ws *v1.Workspace) { ws.Generation = 3 }),
		workspace("team-a", "slow", not("Restoring", "half of it")),
	).start()
	wait := func(name string, d time.Duration) string {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		got, err := w.local().WaitReady(ctx, &daemonv1.WaitReadyRequest{Namespace: "team-a", Name: name})
		if err == nil {
			return fmt.Sprint(got.GetWorkspace().GetReady())
		}
		return outcome(err)
	}
	w.Expect(wait("ready", time.Minute)).To(Equal("true"))
	w.Expect(wait("stopped", time.Minute)).To(Equal("FailedPrecondition: workspace team-a/stopped shall be stopped: set spec.state to Running"))
	w.Expect(wait("stalled", time.Minute)).To(Equal("FailedPrecondition: workspace team-a/stalled is stalled: NoBackup: bring it back"))
	for _, name := range []string{"slow", "edited", "later"} {
		waited := make(chan string, 1)
		go func() { waited <- wait(name, time.Minute) }()
		w.Eventually(func() int {
			w.server.hub.mu.Lock()
			defer w.server.hub.mu.Unlock()
			return len(w.server.hub.watchers)
		}).Should(Equal(1))
		w.Expect(waited).NotTo(Receive())
		w.change(workspace("team-a", name, not("Running", "nearly")))
		w.Expect(waited).NotTo(Receive())
		w.change(workspace("team-a", name))
		w.Eventually(waited).Should(Receive(Equal("true")))
	}
}

// What was waited for in vain is said, by the daemon if the deadline is its own.
func TestWaitReadyIsTooLate(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithDeadlineCause(t.Context(), time.Now(), errTooLong)
	defer cancel()
	<-ctx.Done()
	slow := workspace("team-a", "slow", not("Restoring", "half of it"))
	g.Expect(outcome(tooLate(ctx, slow, nil))).To(Equal("DeadlineExceeded: workspace team-a/slow is not ready yet: Restoring: half of it"))
	g.Expect(outcome(tooLate(ctx, nil, refuse("there is none")))).To(Equal("DeadlineExceeded: there is none"))
	gone, end := context.WithCancelCause(t.Context())
	end(errStopping)
	g.Expect(tooLate(gone, slow, nil)).To(Equal(errStopping))
}
