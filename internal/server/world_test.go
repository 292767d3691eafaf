package server

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	node    = "node-a"
	cluster = "cluster"
)

var errBroken = errors.New("broken")

// world is a server with all that it needs, on a socket in a directory of its own.
type world struct {
	*WithT
	t testing.TB

	server *Server
	client client.WithWatch // the cache, as the server sees it
	events *informer
	engine *fakeEngine
	store  store.Store
	// unreachable says that the address cannot be served when the server starts.
	unreachable bool
	told        lines
	log         lines
	stop        func()
}

// informer tells of what a test changes.
type informer struct {
	cache.Informer

	mu       sync.Mutex
	handlers []toolscache.ResourceEventHandler
}

// AddEventHandler has somebody told.
func (i *informer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handlers = append(i.handlers, h)
	return nil, nil
}

// RemoveEventHandler has nobody told.
func (i *informer) RemoveEventHandler(toolscache.ResourceEventHandlerRegistration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handlers = nil
	return nil
}

func (i *informer) each(tell func(toolscache.ResourceEventHandler)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, h := range i.handlers {
		tell(h)
	}
}

// lines are texts that others write.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) add(a, b string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(a + " " + b + "\n")
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newWorld makes a server that is not started yet, with workspaces in its cache.
func newWorld(tb testing.TB, there ...client.Object) *world {
	tb.Helper()
	w := &world{WithT: NewWithT(tb), t: tb, events: &informer{}}
	w.SetDefaultEventuallyTimeout(30 * time.Second)
	w.SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	scheme := runtime.NewScheme()
	w.Expect(v1.AddToScheme(scheme)).To(Succeed())
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1.Snapshot{}).WithObjects(there...).Build()
	w.store = storetest.Filesystem(tb)
	w.engine = &fakeEngine{keeper: newKeeper(w, tb.TempDir()), entries: map[string]state.Entry{}}
	c := config.Default().Service
	c.Socket = w.socket()
	c.RequestsPerSecond = 1000
	w.server = New(Options{
		Node: node, Config: c, Client: w.client, Reader: w.client,
		Informer: func(context.Context) (cache.Informer, error) { return w.events, nil },
		Engine:   w.engine, Metrics: metrics.New("test", func() metrics.Snapshot { return metrics.Snapshot{} }), Tell: w.told.add,
		Log: funcr.New(w.log.add, funcr.Options{Verbosity: 1}),
	})
	w.server.pauses.retry, w.server.pauses.progress, w.server.pauses.tls = 20*time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
	return w
}

// socket is a path that is short enough for one.
func (w *world) socket() string {
	dir, err := os.MkdirTemp("", "ws-service-")
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "service", "socket")
}

func newKeeper(w *world, dir string) *content.Keeper {
	area, err := state.Open(dir)
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(area.Close)
	w.Expect(area.Init(state.Identity{Cluster: cluster, Node: node})).To(Succeed())
	return &content.Keeper{Area: area, Store: w.store, Volumes: map[string]volume.Driver{}, Cluster: cluster, Node: node, Now: time.Now}
}

// start serves until the end of the test, or until stop is called.
func (w *world) start() *world {
	w.t.Helper()
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), w.server.Log))
	ended := make(chan error, 1)
	go func() { ended <- w.server.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		w.Eventually(ended).Should(Receive(BeNil()))
	})
	w.t.Cleanup(w.stop)
	if w.server.Config.Socket != "" {
		w.Eventually(func() error {
			_, err := w.local().List(context.Background(), &daemonv1.ListRequest{})
			return err
		}).Should(Succeed())
	}
	if w.server.Config.Address != "" && !w.unreachable {
		w.Eventually(w.log.String).Should(ContainSubstring(`"msg"="serving" "endpoint"="service.address"`))
	}
	return w
}

// local is root on the node.
func (w *world) local() daemonv1.WorkspaceServiceClient {
	w.t.Helper()
	return daemonv1.NewWorkspaceServiceClient(w.connect())
}

func (w *world) connect(options ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	c, err := grpc.NewClient("unix:"+w.server.Config.Socket, options...)
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// change puts a workspace into the cache, and tells of it.
func (w *world) change(ws *v1.Workspace) {
	w.t.Helper()
	var there v1.Workspace
	if w.client.Get(context.Background(), client.ObjectKeyFromObject(ws), &there) != nil {
		ws.ResourceVersion = ""
		w.Expect(w.client.Create(context.Background(), ws)).To(Succeed())
		w.events.each(func(h toolscache.ResourceEventHandler) { h.OnAdd(ws, false) })
		return
	}
	ws.ResourceVersion = there.ResourceVersion
	w.Expect(w.client.Update(context.Background(), ws)).To(Succeed())
	w.events.each(func(h toolscache.ResourceEventHandler) { h.OnUpdate(&there, ws) })
}

// remove takes it out of the cache.
func (w *world) remove(ws *v1.Workspace) {
	w.t.Helper()
	w.Expect(w.client.Delete(context.Background(), ws.DeepCopy())).To(Succeed())
	w.events.each(func(h toolscache.ResourceEventHandler) { h.OnDelete(ws) })
}

// workspace is one that is ready on this node.
func workspace(namespace, name string, changes ...func(*v1.Workspace)) *v1.Workspace {
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + "-" + name)},
		Spec:       v1.WorkspaceSpec{NodeName: node, State: v1.StateRunning, Volume: v1.VolumeSpec{Class: "default"}},
		Status: v1.WorkspaceStatus{
			NodeName: node, Claim: 3,
			Conditions: []metav1.Condition{{Type: v1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Running"}},
		},
	}
	for _, change := range changes {
		change(ws)
	}
	return ws
}

// not makes it one that is not ready, for a reason.
func not(reason, message string) func(*v1.Workspace) {
	return func(ws *v1.Workspace) {
		ws.Status.Conditions = []metav1.Condition{{Type: v1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: message}}
	}
}

// saved makes a backup of files in the store, by path.
func (w *world) saved(namespace, name string, files map[string]string) history.Commit {
	w.t.Helper()
	dir := w.t.TempDir()
	for path, text := range files {
		w.Expect(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755)).To(Succeed())
		w.Expect(os.WriteFile(filepath.Join(dir, path), []byte(text), 0o640)).To(Succeed())
	}
	domain, err := history.OpenDomain(context.Background(), w.store, namespace, cluster, false)
	w.Expect(err).NotTo(HaveOccurred())
	made, err := content.Standalone{Domain: domain, Namespace: namespace, Workspace: name, Cluster: cluster}.Create(context.Background(), dir, "", "")
	w.Expect(err).NotTo(HaveOccurred())
	return made.Commit
}

// fakeEngine has a real store, and backups that the test makes.
type fakeEngine struct {
	keeper *content.Keeper

	mu       sync.Mutex
	entries  map[string]state.Entry
	requests []*fakeRequest
	panics   bool
	quick    bool // backups end as soon as they are asked for
	measured error
}

type fakeRequest struct {
	uid  string
	done chan struct{}

	mu        sync.Mutex
	running   bool
	progress  jobs.Progress
	newest    state.Backup
	unchanged bool
	err       error
	left      int
}

func (e *fakeEngine) RequestBackup(_ context.Context, ws *v1.Workspace) (BackupRequest, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.panics {
		panic("at the engine")
	}
	r := &fakeRequest{uid: string(ws.UID), done: make(chan struct{})}
	if e.quick {
		r.end(state.Backup{Name: "3.2", Complete: true}, false, nil)
		return r, nil
	}
	e.requests = append(e.requests, r)
	return r, nil
}

// request waits for the n-th backup that was asked for.
func (w *world) request(n int) *fakeRequest {
	w.t.Helper()
	var found *fakeRequest
	w.Eventually(func() bool {
		w.engine.mu.Lock()
		defer w.engine.mu.Unlock()
		if len(w.engine.requests) > n {
			found = w.engine.requests[n]
		}
		return found != nil
	}).Should(BeTrue())
	return found
}

func (e *fakeEngine) Stored(ctx context.Context, s content.Subject) (*content.Stored, error) {
	return e.keeper.Stored(ctx, s)
}

func (e *fakeEngine) Entry(uid string) (state.Entry, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	entry, ok := e.entries[uid]
	return entry, ok
}

func (e *fakeEngine) Measure(_ context.Context, s content.Subject) (state.Entry, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	entry := e.entries[s.UID]
	entry.Usage.Bytes *= 2
	return entry, e.measured
}

func (r *fakeRequest) Done() <-chan struct{} { return r.done }

func (r *fakeRequest) Progress() (jobs.Progress, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress, r.running
}

func (r *fakeRequest) Result() (state.Backup, bool, error) { return r.newest, r.unchanged, r.err }

func (r *fakeRequest) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left++
}

func (r *fakeRequest) run(p jobs.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.progress = true, p
}

func (r *fakeRequest) end(newest state.Backup, unchanged bool, err error) {
	r.newest, r.unchanged, r.err = newest, unchanged, err
	close(r.done)
}

func (r *fakeRequest) leavers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

// outcome is what became of a call, in words.
func outcome(err error) string {
	s := status.Convert(err)
	if s.Message() == "" {
		return s.Code().String()
	}
	return s.Code().String() + ": " + s.Message()
}

// noLeaks expects that a test ends everything it started.
func noLeaks(t *testing.T) {
	t.Helper()
	ignored := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignored) })
}

// asUser is the effective user of this process for the time of a function, on this thread alone.
func asUser(uid int, f func()) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), 0); e != 0 {
		return e
	}
	f()
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, 0); e != 0 {
		return e
	}
	return nil
}
