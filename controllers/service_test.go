package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	asking "wsdaemon.dev/ws-daemon/internal/client"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/server"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// engine is what the daemon's command gives the service.
type engine struct{ *WorkspaceReconciler }

func (e engine) RequestBackup(ctx context.Context, ws *v1.Workspace) (server.BackupRequest, error) {
	return e.WorkspaceReconciler.RequestBackup(ctx, ws)
}

func (e engine) Stored(ctx context.Context, s content.Subject) (*content.Stored, error) {
	return e.Keeper.Stored(ctx, s)
}
func (e engine) Entry(uid string) (state.Entry, bool) { return e.Keeper.Area.Journal().Get(uid) }
func (e engine) Measure(ctx context.Context, s content.Subject) (state.Entry, error) {
	return e.Keeper.Measure(ctx, s)
}

// serve starts the service of the world's daemon, and returns how to connect to it.
func (w *world) serve() func() daemonv1.WorkspaceServiceClient {
	w.Helper()
	dir, err := os.MkdirTemp("", "ws-service-")
	w.Expect(err).NotTo(HaveOccurred())
	w.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := config.Default().Service
	w.socket = filepath.Join(dir, "service", "socket")
	c.Socket, c.RequestsPerSecond = w.socket, 1000
	s := server.New(server.Options{
		Node: w.node, Config: c, Client: w.mgr.GetClient(), Reader: w.mgr.GetAPIReader(),
		Informer: func(ctx context.Context) (cache.Informer, error) {
			return w.mgr.GetCache().GetInformer(ctx, &v1.Workspace{})
		},
		Engine: engine{w.workspaces}, Metrics: metrics.New("test", nil), Log: logr.Discard(), Tell: func(string, string) {},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		w.Expect(<-ended).To(Succeed())
	})
	w.Eventually(func() error { _, err := os.Stat(c.Socket); return err }).Should(Succeed())
	return func() daemonv1.WorkspaceServiceClient {
		conn, err := grpc.NewClient("unix:"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		w.Expect(err).NotTo(HaveOccurred())
		w.Cleanup(func() { _ = conn.Close() })
		return daemonv1.NewWorkspaceServiceClient(conn)
	}
}

// saved makes a backup by the service, and returns what the last message says, or the error.
func (w *world) saved(c daemonv1.WorkspaceServiceClient, ws *v1.Workspace) string {
	w.Helper()
	stream, err := c.Backup(w.Context(), &daemonv1.BackupRequest{Namespace: ws.Namespace, Name: ws.Name})
	w.Expect(err).NotTo(HaveOccurred())
	last := ""
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last
		}
		if err != nil {
			return status.Code(err).String() + ": " + status.Convert(err).Message()
		}
		last = fmt.Sprintf("%s %s unchanged %t", m.GetPhase(), m.GetBackup().GetName(), m.GetUnchanged())
	}
}

// 200 workspaces are listed, and watched by 100 clients, without one request to the API server.
func TestListsAndWatchesCostNoRequest(t *testing.T) {
	noLeaks(t)
	const workspaces, clients = 200, 100
	w := newWorld(t)
	w.qps = -1
	var group sync.WaitGroup
	for worker := range 10 {
		group.Go(func() {
			for i := worker; i < workspaces; i += 10 {
				ws := w.workspace(fmt.Sprintf("ws-%d", i), func(ws *v1.Workspace) { ws.Annotations = map[string]string{v1.AnnotationPaused: ""} })
				if err := w.Create(w.Context(), ws); err != nil {
					w.Errorf("create %s: %v", ws.Name, err)
				}
			}
		})
	}
	group.Wait()
	stop := w.start()
	dial := w.serve()
	w.Eventually(func() int {
		page, err := dial().List(t.Context(), &daemonv1.ListRequest{})
		if err != nil {
			return -1
		}
		paused := 0
		for _, ws := range page.GetWorkspaces() {
			if ws.GetReason() == v1.ReasonPaused {
				paused++
			}
		}
		return paused
	}).Should(Equal(workspaces))
	w.quiet()

	before := w.traffic.count()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range clients {
		stream, err := dial().Watch(ctx, &daemonv1.WatchRequest{})
		w.Expect(err).NotTo(HaveOccurred())
		for seen := 0; ; seen++ {
			m, err := stream.Recv()
			w.Expect(err).NotTo(HaveOccurred())
			if m.GetEvent() == daemonv1.WatchEvent_WATCH_EVENT_SYNCED {
				w.Expect(seen).To(Equal(workspaces))
				break
			}
		}
	}
	c := dial()
	command, err := asking.Dial(asking.Options{Address: "unix://" + w.socket}) // what `ws-daemon client list` does
	w.Expect(err).NotTo(HaveOccurred())
	defer command.Close()
	for i := range 50 {
		all, err := command.List(ctx, "")
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(all).To(HaveLen(workspaces))
		_, err = c.Get(ctx, &daemonv1.GetRequest{Namespace: w.namespace, Name: fmt.Sprintf("ws-%d", i)})
		w.Expect(err).NotTo(HaveOccurred())
		_, err = c.Usage(ctx, &daemonv1.UsageRequest{Namespace: w.namespace, Name: fmt.Sprintf("ws-%d", i)})
		w.Expect(err).NotTo(HaveOccurred())
	}
	w.Expect(describeAll(w.traffic.all(func(*request) bool { return true })[before:])).To(BeEmpty())
	cancel()
	stop()
}

// A backup that is asked for goes the way of the periodic ones: it is made by the reconciler's job, is in the object's status, and costs
// the object nothing.
func TestABackupByTheServiceIsOneOfTheReconciler(t *testing.T) {
	noLeaks(t)
	w := newWorld(t)
	stop := w.start()
	c := w.serve()()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.Backup.Interval = nil })
	w.running(ws)
	w.write(ws, "file", "one")
	w.Expect(w.saved(c, ws)).To(Equal("BACKUP_PHASE_DONE 1.1 unchanged false"))
	w.Eventually(func() string {
		b := w.now(ws).Status.Backup
		if b == nil || b.Latest == nil {
			return ""
		}
		return string(b.Latest.Name)
	}).Should(Equal("1.1"))
	w.Expect(w.now(ws).Generation).To(Equal(ws.Generation), "the spec is the user's")
	w.Expect(w.saved(c, ws)).To(Equal("BACKUP_PHASE_DONE 1.1 unchanged true"))
	w.write(ws, "file", "two")
	var group sync.WaitGroup
	for range 5 { // those who ask at the same time are served by few
		group.Go(func() {
			if got := w.saved(c, ws); got != "BACKUP_PHASE_DONE 1.2 unchanged false" && got != "BACKUP_PHASE_DONE 1.2 unchanged true" {
				w.Errorf("got %s", got)
			}
		})
	}
	group.Wait()
	page, err := c.ListBackups(t.Context(), &daemonv1.ListBackupsRequest{Namespace: w.namespace, Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(page.GetBackups()).To(HaveLen(2))

	snapshot, err := c.Snapshot(t.Context(), &daemonv1.SnapshotRequest{Namespace: w.namespace, Name: "web", SnapshotName: "kept"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(snapshot.GetSnapshot().GetBackup()).To(Equal("1.2"))
	w.Expect(snapshot.GetSnapshot().GetId()).To(HavePrefix("kept."))
	w.gone(ws)
	stop()
}

// Whoever leaves while his backup runs ends nothing: it is made as if he had stayed.
func TestABackupGoesOnWithoutItsCaller(t *testing.T) {
	noLeaks(t)
	w := newWorld(t)
	var armed atomic.Bool
	var begin sync.Once
	begun, release := make(chan struct{}), make(chan struct{})
	w.hold = func(ctx context.Context, _ string) error {
		if !armed.Load() {
			return nil
		}
		begin.Do(func() { close(begun) })
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	stop := w.start()
	c := w.serve()()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.Backup.Interval = nil })
	w.running(ws)
	w.write(ws, "file", "one")
	armed.Store(true)
	ctx, leave := context.WithCancel(t.Context())
	stream, err := c.Backup(ctx, &daemonv1.BackupRequest{Namespace: ws.Namespace, Name: ws.Name})
	w.Expect(err).NotTo(HaveOccurred())
	w.Eventually(begun).Should(BeClosed())
	leave()
	for err == nil {
		_, err = stream.Recv()
	}
	w.Expect(status.Code(err)).To(Equal(codes.Canceled))
	close(release)
	w.Eventually(func() *v1.BackupStatus { return w.now(ws).Status.Backup }).Should(HaveField("Latest", HaveField("Name", BeEquivalentTo("1.1"))))
	w.Expect(w.saved(c, ws)).To(Equal("BACKUP_PHASE_DONE 1.1 unchanged true"))
	stop()
}

// What the objects' way would refuse, the service's way refuses, too: nothing is saved of what a person paused, of what was taken over
// by another node, or of what is stopped.
func TestS4_TheServiceIsNoWayRound(t *testing.T) {
	noLeaks(t)
	w := newWorld(t)
	stop := w.start()
	c := w.serve()()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "one")
	w.Expect(w.saved(c, ws)).To(Equal("BACKUP_PHASE_DONE 1.1 unchanged false"))

	w.patch(ws, "metadata: {annotations: {"+v1.AnnotationPaused+": ''}}")
	w.becomes(ws, "Ready", "False/Paused")
	w.Expect(w.saved(c, ws)).To(HavePrefix("FailedPrecondition: "))
	w.patch(ws, "metadata: {annotations: {"+v1.AnnotationPaused+": null}}")
	w.running(ws)

	files, err := store.NewFilesystem(w.store)
	w.Expect(err).NotTo(HaveOccurred())
	domain, err := history.OpenDomain(t.Context(), files, w.namespace, "unknown", true)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(domain.Workspace("web").PublishClaim(t.Context(), 2, history.Owner{UID: "another", Node: "elsewhere", Area: "x"}, nil)).To(Succeed())
	w.write(ws, "file", "two")
	w.Expect(w.saved(c, ws)).To(And(HavePrefix("FailedPrecondition: "), ContainSubstring("fenced"), ContainSubstring("kept as snapshot stray.")))
	page, err := c.ListBackups(t.Context(), &daemonv1.ListBackupsRequest{Namespace: w.namespace, Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(page.GetBackups()).To(HaveLen(1), "nothing was committed over the new owner")
	stop()
}
