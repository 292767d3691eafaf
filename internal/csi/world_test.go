package csi

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr/testr"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ktypes "k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/csi/csitest"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

func TestMain(m *testing.M) {
	initializer.Enter()
	os.Exit(csitest.Main(m.Run))
}

// objects stand for an API server, or a cache of it.
type objects struct {
	client.Reader

	mu      sync.Mutex
	all     map[string]client.Object
	err     error // of every read
	changed func(client.Object)
}

func keyOf(o client.Object, name ktypes.NamespacedName) string {
	kind := "workspace/"
	if _, pod := o.(*corev1.Pod); pod {
		kind = "pod/"
	}
	return kind + name.String()
}

func (o *objects) Get(_ context.Context, name ktypes.NamespacedName, into client.Object, _ ...client.GetOption) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	switch found := o.all[keyOf(into, name)].(type) {
	case *v1.Workspace:
		found.DeepCopyInto(into.(*v1.Workspace))
	case *corev1.Pod:
		found.DeepCopyInto(into.(*corev1.Pod))
	default:
		return apierrors.NewNotFound(schema.GroupResource{Resource: "things"}, name.Name)
	}
	return nil
}

// put takes a copy: the test may go on changing its own.
func (o *objects) put(object client.Object) {
	object = object.DeepCopyObject().(client.Object)
	o.mu.Lock()
	if o.all == nil {
		o.all = map[string]client.Object{}
	}
	o.all[keyOf(object, client.ObjectKeyFromObject(object))] = object
	changed := o.changed
	o.mu.Unlock()
	if changed != nil {
		changed(object)
	}
}

func (o *objects) watch(ctx context.Context, changed func(client.Object)) error {
	o.mu.Lock()
	o.changed = changed
	o.mu.Unlock()
	<-ctx.Done()
	return nil
}

// world is a node with one volume of workspace team/web, whose content is published, and a kubelet's directory.
type world struct {
	*WithT
	t *testing.T

	dir, store    string
	kubelet       string
	keeper        *content.Keeper
	node          *Node
	cache, server *objects
	ws            *v1.Workspace
	pod           *corev1.Pod
	target        string
}

const (
	wsUID  = "11111111-1111-1111-1111-111111111111"
	podUID = "22222222-2222-2222-2222-222222222222"
	here   = "node-a"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, filepath.Join(t.TempDir(), "area"))
}

// newWorldIn has its working area in a directory, and its volumes in one called volumes below.
func newWorldIn(t *testing.T, dir string) *world {
	t.Helper()
	NewWithT(t).Expect(os.MkdirAll(filepath.Join(dir, "volumes"), 0o711)).To(Succeed())
	w := openWorld(t, dir, t.TempDir(), csitest.KubeletDir(t))
	csitest.Target(t, w.kubelet, podUID)
	w.fill()
	w.node = w.start()
	return w
}

// openWorld is the world of a daemon that was started: what lies on the node's disk is there.
func openWorld(t *testing.T, dir, files, kubelet string) *world {
	t.Helper()
	w := &world{WithT: NewWithT(t), t: t, dir: dir, store: files, kubelet: kubelet, cache: &objects{}, server: &objects{}}
	w.SetDefaultEventuallyTimeout(20 * time.Second)
	w.openKeeper()
	w.ws = &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web", UID: wsUID, Generation: 2},
		Spec:       v1.WorkspaceSpec{NodeName: here, State: v1.StateRunning, Volume: v1.VolumeSpec{Class: "default"}},
		Status:     v1.WorkspaceStatus{NodeName: here, Claim: 7, Conditions: []metav1.Condition{condition(v1.ConditionReady, "True", v1.ReasonRunning, "")}},
	}
	w.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "shell", UID: podUID}, Spec: corev1.PodSpec{NodeName: here}}
	w.cache.put(w.ws)
	w.cache.put(w.pod)
	w.target = filepath.Join(kubelet, "pods", podUID, "volumes", "kubernetes.io~csi", "work", "mount")
	return w
}

func condition(kind string, is metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: is, Reason: reason, Message: message, ObservedGeneration: 2}
}

// start makes the driver of a daemon that has just begun, connected to the cluster.
func (w *world) start() *Node {
	w.t.Helper()
	n := &Node{Name: here, KubeletDir: w.kubelet, Keeper: w.keeper, Patience: 20 * time.Second, Log: testr.New(w.t)}
	w.Expect(n.Recover(w.t.Context())).To(Succeed())
	w.connect(n)
	return n
}

// connect lets a node know the objects until the test ends, or the returned function is called.
func (w *world) connect(n *Node) (disconnect func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- n.Connect(ctx, Cluster{Cache: w.cache, Server: w.server, Watch: w.cache.watch, Usable: func() error { return nil }})
	}()
	w.Eventually(n.ready).Should(BeTrue())
	disconnect = sync.OnceFunc(func() {
		cancel()
		w.Expect(<-ended).To(Succeed())
	})
	w.t.Cleanup(disconnect)
	return disconnect
}

func subject() content.Subject {
	return content.Subject{UID: wsUID, Namespace: "team", Name: "web", Class: "default", Claim: 7}
}

// fill makes the volume, with the file "file" in it.
func (w *world) fill() {
	w.t.Helper()
	w.Expect(w.keeper.Provision(w.t.Context(), subject(), 1<<30, 0)).To(Succeed())
	_, err := w.keeper.Fill(w.t.Context(), content.FillRequest{Subject: subject(), InUse: unused})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(os.WriteFile(filepath.Join(w.content(), "file"), []byte("one"), 0o600)).To(Succeed())
}

func unused(context.Context) error { return nil }

func (w *world) content() string {
	return w.keeper.Volumes["default"].Path(wsUID, volume.Published)
}

// ask is what the kubelet asks for, changed as the test wants it.
func (w *world) ask(changes ...func(*csi.NodePublishVolumeRequest)) *csi.NodePublishVolumeRequest {
	q := &csi.NodePublishVolumeRequest{
		VolumeId: "csi-1", TargetPath: w.target,
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
		VolumeContext: map[string]string{
			"workspace": "web", attributePod: "shell", attributeSpace: "team", attributeUID: podUID, attributeInline: "true",
			kubeletPrefix + "serviceAccount.name": "default",
		},
	}
	for _, change := range changes {
		change(q)
	}
	return q
}

func (w *world) publish(changes ...func(*csi.NodePublishVolumeRequest)) error {
	_, err := w.node.NodePublishVolume(w.t.Context(), w.ask(changes...))
	return err
}

func (w *world) unpublish() error {
	_, err := w.node.NodeUnpublishVolume(w.t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: w.target})
	return err
}

// mounted expects that the content, and nothing else, is mounted for the pod, and that this is known.
func (w *world) mounted() {
	w.t.Helper()
	w.Expect(os.ReadFile(filepath.Join(w.target, "file"))).To(BeEquivalentTo("one"))
	w.Expect(w.table()).To(Equal([]string{w.target}))
	w.Expect(w.keeper.Uses(wsUID)).To(ConsistOf(HaveField("Target", w.target)))
}

// clean expects that nothing is mounted, or written down, and that the target is gone.
func (w *world) clean() {
	w.t.Helper()
	w.Expect(w.table()).To(BeEmpty())
	w.Expect(w.keeper.Uses(wsUID)).To(BeEmpty())
	w.Expect(w.target).NotTo(BeADirectory())
	w.Expect(filepath.Join(w.content(), "file")).To(BeAnExistingFile())
}

func (w *world) table() []string {
	w.t.Helper()
	mounts, err := w.node.kubelet().mounts()
	w.Expect(err).NotTo(HaveOccurred())
	return mounts
}

// failWith matches an error with a code and a part of its message.
func failWith(code codes.Code, message string) types.GomegaMatcher {
	return And(
		WithTransform(status.Code, Equal(code)),
		MatchError(ContainSubstring(message)),
	)
}

func (w *world) openKeeper() {
	w.t.Helper()
	area, err := state.Open(w.dir)
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(area.Close)
	if !state.HasIdentity(w.dir) {
		w.Expect(area.Init(state.Identity{Cluster: "cluster", Node: here})).To(Succeed())
	}
	driver, err := volume.NewDirectory(filepath.Join(w.dir, "volumes"))
	w.Expect(err).NotTo(HaveOccurred())
	files, err := store.NewFilesystem(w.store)
	w.Expect(err).NotTo(HaveOccurred())
	_, err = store.Init(w.t.Context(), files)
	w.Expect(err).NotTo(HaveOccurred())
	w.keeper = &content.Keeper{
		Area: area, Store: files, Volumes: map[string]volume.Driver{"default": driver}, Cluster: "cluster", Node: here,
		StrayRetention: time.Hour, RetryMax: time.Minute, Now: time.Now,
	}
}
