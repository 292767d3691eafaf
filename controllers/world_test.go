package controllers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

var (
	shared *cluster.Cluster
	serial atomic.Int64
	// logged is what all daemons of these tests have logged.
	logged lines
)

func TestMain(m *testing.M) {
	initializer.Enter()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ws-daemon-controllers-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	ctrl.SetLogger(funcr.New(logged.add, funcr.Options{Verbosity: 1}))
	if shared, err = cluster.Start(ctx, cluster.Options{Dir: dir, Log: os.Stderr}); err != nil {
		panic(err)
	}
	defer shared.Stop()
	if err := shared.InstallCRDs(ctx, "../config/crd/bases"); err != nil {
		panic(err)
	}
	return m.Run()
}

// lines is a log in memory.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) add(prefix, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(prefix + " " + args + "\n")
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// world is a namespace, a store and a node with its daemon. Its client is the user's, and not counted.
type world struct {
	testing.TB
	*WithT
	client.Client

	namespace, node string
	area, store     string
	traffic         traffic
	workspaces      *WorkspaceReconciler
	snapshots       *SnapshotReconciler
	nodes           *NodeReconciler
	mgr             ctrl.Manager
	qps             float32 // of the daemon's requests, if it is not the usual one
	begin           int     // of what the daemon logs
	// driver wraps the node's volumes, if it is set before the start.
	driver func(volume.Driver) volume.Driver
	// classDriver wraps those of a class besides.
	classDriver map[string]func(volume.Driver) volume.Driver
	// patience is how long a disk may take to answer; as usual if it is zero.
	patience time.Duration
	// classes of the node's configuration.
	classes map[string]config.Class
	// clock is the daemon's.
	clock clock.PassiveClock
	// reader wraps the daemon's uncached reads, if it is set before the start.
	reader func(client.Reader) client.Reader
	// guarded says how the node is treated.
	guarded config.Node
	// limits of the daemon's jobs, one of each class by default.
	limits map[jobs.Class]int
	// hold is asked before each write to the store, if it is set before the start.
	hold func(ctx context.Context, key string) error
	// socket is that of the service, once it is served.
	socket string
}

// held is a store whose writes may have to wait.
type held struct {
	store.Store
	ask func(ctx context.Context, key string) error
}

func (h held) Put(ctx context.Context, key string, data []byte) error {
	if err := h.ask(ctx, key); err != nil {
		return err
	}
	return h.Store.Put(ctx, key, data)
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{
		TB: tb, WithT: NewWithT(tb), begin: len(logged.String()), node: fmt.Sprintf("node-%d", serial.Add(1)), area: tb.TempDir(),
		driver:  func(d volume.Driver) volume.Driver { return d },
		classes: map[string]config.Class{"default": {Driver: "directory", AllowUnlimited: true}},
		hold:    func(context.Context, string) error { return nil },
		guarded: unguarded(), clock: clock.RealClock{},
		reader: func(r client.Reader) client.Reader { return r },
	}
	w.Expect(os.Chmod(filepath.Dir(w.area), 0o711)).To(Succeed()) // git runs as the workspace's owner
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	access := shared.Config()
	access.QPS = -1
	var err error
	w.Client, err = client.New(access, client.Options{Scheme: w.scheme()})
	w.Expect(err).NotTo(HaveOccurred())
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "team-"}}
	w.Expect(w.Create(tb.Context(), namespace)).To(Succeed())
	w.namespace = namespace.Name
	tb.Cleanup(w.dump)
	return w
}

// unguarded is how a node is treated whose disks are those of a busy machine: only what is full has no room.
func unguarded() config.Node {
	n, full := config.Default().Node, config.Threshold{Set: 100, Clear: 99}
	n.Pressure = config.Pressure{Bytes: full, Inodes: full, ThinData: full, ThinMetadata: full}
	return n
}

func (w *world) scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	w.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	w.Expect(eventsv1.AddToScheme(scheme)).To(Succeed())
	w.Expect(v1.AddToScheme(scheme)).To(Succeed())
	return scheme
}

// dump shows what a failed test left.
func (w *world) dump() {
	if !w.Failed() {
		return
	}
	var list v1.WorkspaceList
	if err := w.List(context.Background(), &list, client.InNamespace(w.namespace)); err == nil {
		for i := range min(3, len(list.Items)) {
			list.Items[i].ManagedFields = nil
			text, _ := yaml.Marshal(list.Items[i])
			w.Logf("%s", text)
		}
	}
	if w.workspaces != nil {
		w.Logf("journal: %+v", w.workspaces.Keeper.Area.Journal().List())
	}
	w.Logf("log:\n%s", logged.String()[w.begin:])
}

// keeper opens the node's disk and store.
func (w *world) keeper() *content.Keeper {
	ctx := w.Context()
	if w.store == "" {
		w.store = w.TempDir()
	}
	files, err := store.NewFilesystem(w.store)
	w.Expect(err).NotTo(HaveOccurred())
	_, err = store.Init(ctx, files)
	w.Expect(err).NotTo(HaveOccurred())
	var system corev1.Namespace
	w.Expect(w.Get(ctx, client.ObjectKey{Name: "kube-system"}, &system)).To(Succeed())
	area, err := state.Open(w.area)
	w.Expect(err).NotTo(HaveOccurred())
	w.Cleanup(area.Close)
	if !state.HasIdentity(w.area) {
		w.Expect(area.Init(state.Identity{Cluster: string(system.UID), Node: w.node, Created: time.Now()})).To(Succeed())
	}
	volumes := filepath.Join(w.area, "volumes")
	w.Expect(os.MkdirAll(volumes, 0o711)).To(Succeed())
	drivers := map[string]volume.Driver{}
	for class := range w.classes {
		directory, err := volume.NewDirectory(volumes)
		w.Expect(err).NotTo(HaveOccurred())
		drivers[class] = w.driver(directory)
		if wrap := w.classDriver[class]; wrap != nil {
			drivers[class] = wrap(drivers[class])
		}
	}
	box, err := sandbox.New(w.Context(), sandbox.Options{})
	w.Expect(err).NotTo(HaveOccurred())
	return &content.Keeper{
		Area: area, Store: held{files, w.hold}, Volumes: drivers, Cluster: string(system.UID), Node: w.node,
		StrayRetention: time.Hour, RetryMax: 10 * time.Second, Patience: w.patience, Now: time.Now,
		Git: initializer.Git{Sandbox: box, Program: "git", AllowedSchemes: []string{"http"}},
	}
}

// manager is built as the daemon's command does it.
func (w *world) manager() ctrl.Manager {
	access := shared.Config()
	access.Wrap(w.traffic.wrap)
	access.QPS = w.qps
	mine := cache.ByObject{Field: fields.OneTermEqualSelector("spec.nodeName", w.node)}
	sameNames, grace := true, 10*time.Second
	mgr, err := ctrl.NewManager(access, ctrl.Options{
		Scheme: w.scheme(),
		Cache: cache.Options{
			ByObject: map[client.Object]cache.ByObject{
				&v1.Workspace{}: mine, &v1.Snapshot{}: mine, &corev1.Pod{}: mine,
				&corev1.Node{}: {Field: fields.OneTermEqualSelector("metadata.name", w.node)},
			},
			DefaultTransform: cache.TransformStripManagedFields(),
		},
		Metrics: server.Options{BindAddress: "0"}, Controller: crconfig.Controller{SkipNameValidation: &sameNames},
		GracefulShutdownTimeout: &grace,
	})
	w.Expect(err).NotTo(HaveOccurred())
	return mgr
}

// start runs the daemon until the returned function is called, or the test ends.
func (w *world) start() (stop func()) {
	mgr, minute := w.manager(), config.Duration{Duration: time.Minute}
	w.workspaces = &WorkspaceReconciler{
		Client: mgr.GetClient(), Reader: w.reader(mgr.GetAPIReader()), Recorder: mgr.GetEventRecorder("ws-daemon"),
		Keeper: w.keeper(), Clock: w.clock, Node: w.node,
		Wake:     make(chan event.TypedGenericEvent[types.NamespacedName], 1024),
		Changed:  make(chan event.TypedGenericEvent[types.NamespacedName], 1),
		WentBack: make(chan struct{}, 1),
		Settings: Settings{
			Timeouts: config.Timeouts{Store: minute, Initialize: minute, Backup: minute, Remove: minute, Pods: minute},
			RetryMax: 10 * time.Second, OrphanGrace: time.Hour,
			Classes: w.classes, Node: w.guarded,
		},
	}
	w.snapshots = &SnapshotReconciler{Workspaces: w.workspaces, Wake: make(chan event.TypedGenericEvent[types.NamespacedName], 1024)}
	w.workspaces.Jobs = jobs.New(w.limits, nil, func(key jobs.Key) {
		w.snapshots.JobEnded(key)
		w.workspaces.JobEnded(key)
	})
	w.workspaces.Jobs.OnEnd(w.workspaces.JobDone)
	w.mgr = mgr
	w.Expect(w.workspaces.SetupWithManager(mgr)).To(Succeed())
	w.Expect(w.snapshots.SetupWithManager(mgr)).To(Succeed())
	w.nodes = &NodeReconciler{Workspaces: w.workspaces, pause: 200 * time.Millisecond}
	w.Expect(w.nodes.SetupWithManager(mgr)).To(Succeed())
	w.Expect(mgr.Add(manager.RunnableFunc(w.workspaces.Jobs.Runnable(10 * time.Second)))).To(Succeed())
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		w.Expect(<-ended).To(Succeed())
	})
	w.Cleanup(stop)
	return stop
}

// noLeaks expects that a daemon ends everything it started. Idle connections are the transport's own.
func noLeaks(t *testing.T) {
	t.Helper()
	ignored := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		goleak.VerifyNone(t, ignored,
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
	})
}

// workspace returns a small, empty one on this node, changed as the test wants it.
func (w *world) workspace(name string, changes ...func(*v1.Workspace)) *v1.Workspace {
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1.WorkspaceSpec{
			NodeName: w.node, Volume: v1.VolumeSpec{Size: resource.MustParse("64Mi")},
			Owner: v1.Owner{UID: 33333, GID: 33333}, Initializer: v1.Initializer{Empty: &v1.EmptyInitializer{}},
			Backup: v1.BackupSpec{Interval: &metav1.Duration{Duration: time.Hour}},
		},
	}
	for _, change := range changes {
		change(ws)
	}
	return ws
}

func (w *world) create(name string, changes ...func(*v1.Workspace)) *v1.Workspace {
	w.Helper()
	ws := w.workspace(name, changes...)
	w.Expect(w.Create(w.Context(), ws)).To(Succeed())
	return ws
}

// patch applies a merge patch, given as YAML.
func (w *world) patch(o client.Object, text string) {
	w.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	w.Expect(err).NotTo(HaveOccurred())
	copied, _ := o.DeepCopyObject().(client.Object)
	w.Expect(w.Patch(w.Context(), copied, client.RawPatch(types.MergePatchType, data))).To(Succeed())
}

// now reads a workspace.
func (w *world) now(ws *v1.Workspace) *v1.Workspace {
	w.Helper()
	var got v1.Workspace
	w.Expect(w.Get(w.Context(), client.ObjectKeyFromObject(ws), &got)).To(Succeed())
	return &got
}

// condition returns "Status/Reason" of a condition, and its message.
func condition(all []metav1.Condition, kind string) (summary, message string) {
	c := apimeta.FindStatusCondition(all, kind)
	if c == nil {
		return "absent", ""
	}
	return string(c.Status) + "/" + c.Reason, c.Message
}

// becomes waits until a condition is as wanted, "True/Running" for example, and returns its message.
func (w *world) becomes(ws *v1.Workspace, kind, want string) string {
	w.Helper()
	var message string
	w.Eventually(func(g Gomega) {
		var got v1.Workspace
		g.Expect(w.Get(w.Context(), client.ObjectKeyFromObject(ws), &got)).To(Succeed())
		var summary string
		summary, message = condition(got.Status.Conditions, kind)
		g.Expect(summary).To(Equal(want), message)
		g.Expect(got.Status.ObservedGeneration).To(Equal(got.Generation))
	}).Should(Succeed())
	return message
}

func (w *world) running(ws *v1.Workspace) string {
	w.Helper()
	return w.becomes(ws, "Ready", "True/Running")
}

// path of a workspace's content.
func (w *world) path(ws *v1.Workspace, name string) string {
	w.Helper()
	return filepath.Join(w.now(ws).Status.Volume.Path, name)
}

func (w *world) write(ws *v1.Workspace, name, text string) {
	w.Helper()
	w.Expect(os.WriteFile(w.path(ws, name), []byte(text), 0o600)).To(Succeed())
}

func (w *world) read(ws *v1.Workspace, name string) string {
	w.Helper()
	data, err := os.ReadFile(w.path(ws, name))
	w.Expect(err).NotTo(HaveOccurred())
	return string(data)
}

// backup triggers one and waits for it.
func (w *world) backup(ws *v1.Workspace, trigger string) {
	w.Helper()
	w.patch(ws, "spec: {backup: {trigger: "+trigger+"}}")
	w.Eventually(func() string { return w.honoured(ws) }).Should(Equal(trigger))
}

// honoured returns the last trigger that the status echoes.
func (w *world) honoured(ws *v1.Workspace) string {
	w.Helper()
	if b := w.now(ws).Status.Backup; b != nil {
		return b.Trigger
	}
	return ""
}

func (w *world) stopped(ws *v1.Workspace) {
	w.Helper()
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "Ready", "False/Stopped")
	w.Eventually(w.volumes).Should(BeEmpty())
}

// wake has the daemon look at a workspace now: after failures of a busy API server the next look may be 15 s away.
func (w *world) wake(ws *v1.Workspace) {
	w.workspaces.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: client.ObjectKeyFromObject(ws)}
}

// gone deletes an object and waits until it is not there any more.
func (w *world) gone(o client.Object) {
	w.Helper()
	w.Expect(client.IgnoreNotFound(w.Delete(w.Context(), o))).To(Succeed())
	w.Eventually(func() bool {
		copied, _ := o.DeepCopyObject().(client.Object)
		return apierrors.IsNotFound(w.Get(w.Context(), client.ObjectKeyFromObject(o), copied))
	}).Should(BeTrue())
}

// volumes lists what lies on the node.
func (w *world) volumes() []string {
	found, err := filepath.Glob(filepath.Join(w.area, "volumes", "*-*-*"))
	w.Expect(err).NotTo(HaveOccurred())
	return found
}

// events returns the events of this test's namespace as text.
func (w *world) events() string {
	var list eventsv1.EventList
	w.Expect(w.List(w.Context(), &list, client.InNamespace(w.namespace))).To(Succeed())
	text, err := json.Marshal(list.Items)
	w.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// quiet waits until the daemon asks the API server for nothing any more.
func (w *world) quiet() {
	w.Helper()
	w.Eventually(func(g Gomega) {
		g.Consistently(w.traffic.count, "300ms").Should(Equal(w.traffic.count()))
	}).Should(Succeed())
}

// storeDir is where the store lies.
func (w *world) storeDir() string {
	return strings.TrimPrefix(w.workspaces.Keeper.Store.String(), "file://")
}

func decode(text string, into any) bool { return json.Unmarshal([]byte(text), into) == nil }

func describeAll(all []*request) string {
	var b strings.Builder
	for i, r := range all {
		fmt.Fprintf(&b, "%d. %s\n", i+1, r)
	}
	return b.String()
}
