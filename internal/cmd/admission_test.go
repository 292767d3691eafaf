package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// node is one node's disk and configuration.
type node struct {
	*WithT
	client.Client
	area, config string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{WithT: NewWithT(t), area: t.TempDir()}
	scheme, err := newScheme()
	n.Expect(err).NotTo(HaveOccurred())
	n.Client, err = client.New(apiServer.Config(), client.Options{Scheme: scheme})
	n.Expect(err).NotTo(HaveOccurred())
	store := t.TempDir()
	must(t, "archive", "init", "--store=file://"+store)
	c := config.Example()
	c.Content.WorkingArea = n.area
	c.Storage.Filesystem.Path = store
	c.Volumes.Classes = map[string]config.Class{"default": {Driver: "directory", AllowUnlimited: true}}
	c.Health.Address, c.Metrics.Address = "", ""
	data, err := json.Marshal(c)
	n.Expect(err).NotTo(HaveOccurred())
	n.config = filepath.Join(t.TempDir(), "config.json")
	n.Expect(os.WriteFile(n.config, data, 0o600)).To(Succeed())
	return n
}

// args are a command line on the node.
func (n *node) args(name string, command ...string) []string {
	return append(command, "--config="+n.config, "--node="+name, "--kubeconfig="+apiServer.Kubeconfig())
}

func (n *node) clusterUID(t *testing.T) string {
	t.Helper()
	uid, err := clusterUID(t.Context(), n.Client)
	n.Expect(err).NotTo(HaveOccurred())
	return uid
}

// identity of the area as it lies on the disk.
func (n *node) identity() (state.Identity, error) {
	area, err := state.Open(n.area)
	if err != nil {
		return state.Identity{}, err
	}
	defer area.Close()
	return area.Identity()
}

func (n *node) initialize(id state.Identity) {
	area, err := state.Open(n.area)
	n.Expect(err).NotTo(HaveOccurred())
	defer area.Close()
	n.Expect(area.Init(id)).To(Succeed())
}

func TestAreaInitGivesAnIdentityOnce(t *testing.T) {
	n := newNode(t)
	n.Expect(must(t, n.args("node-a", "area", "init")...)).To(Equal(n.area + " is now the working area of node node-a\n"))
	id, err := n.identity()
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect([]string{id.Cluster, id.Node, id.Store}).To(Equal([]string{n.clusterUID(t), "node-a", ""}))
	n.Expect(refused(t, n.args("node-a", "area", "init")...)).To(ContainSubstring("the working area is initialized already"))
}

func TestAreaInitNeedsTheClusterAndAName(t *testing.T) {
	n := newNode(t)
	n.Expect(refused(t, "area", "init", "--config="+n.config, "--node=")).To(Equal("the node has no name: set NODE_NAME or --node"))
	n.Expect(refused(t, "area", "init", "--config="+n.config, "--node=a", "--kubeconfig=/nowhere")).To(HavePrefix("find the API server: "))
	_, err := n.identity()
	n.Expect(err).To(MatchError(state.ErrNoIdentity))
}

func TestS10_RunRefusesTheAreaOfAnotherClusterOrNode(t *testing.T) {
	noLeaks(t)
	tests := map[string]struct {
		id   func(cluster string) state.Identity
		want string
	}{
		"cluster": {func(string) state.Identity { return state.Identity{Cluster: "other", Node: "node-a"} }, " belongs to cluster other, but the API server is of cluster "},
		"node":    {func(uid string) state.Identity { return state.Identity{Cluster: uid, Node: "node-b"} }, " belongs to node node-b, not to node-a: start the daemon under the name of the node"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.initialize(tt.id(n.clusterUID(t)))
			n.Expect(refused(t, n.args("node-a", "run")...)).To(ContainSubstring("the working area " + n.area + tt.want))
		})
	}
}

func TestRunRefusesWhatItCannotUse(t *testing.T) {
	n := newNode(t)
	n.Expect(refused(t, "run", "--config=/nowhere")).To(HavePrefix("read configuration: "))
	n.Expect(os.Remove(n.area)).To(Succeed())
	n.Expect(refused(t, n.args("node-a", "run")...)).To(HavePrefix("open working area: "))
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) logger() logr.Logger {
	return funcr.New(func(_, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.text.WriteString(args + "\n")
	}, funcr.Options{})
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestAdmissionInitializesANewNode(t *testing.T) {
	n := newNode(t)
	area, err := state.Open(n.area)
	n.Expect(err).NotTo(HaveOccurred())
	defer area.Close()
	cluster, err := admission{logger: logr.Discard(), reader: n.Client, area: area, node: "node-new"}.wait(t.Context())
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(cluster).To(Equal(n.clusterUID(t)))
	id, err := area.Identity()
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect([]string{id.Cluster, id.Node}).To(Equal([]string{cluster, "node-new"}))
	n.Expect(id.Created).To(BeTemporally("~", time.Now(), time.Minute))
}

// A disk that is not mounted looks like a new one. The objects know better.
func TestS10_AMissingDiskIsNotANewNode(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "cmd-"}}
	n.Expect(n.Create(ctx, namespace)).To(Succeed())
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "web"},
		Spec: v1.WorkspaceSpec{
			NodeName: "node-held", Volume: v1.VolumeSpec{Size: resource.MustParse("1Gi")},
			Owner: v1.Owner{UID: 33333, GID: 33333}, Initializer: v1.Initializer{Empty: &v1.EmptyInitializer{}},
		},
	}
	n.Expect(n.Create(ctx, ws)).To(Succeed())
	ws.Status.NodeName, ws.Status.Claim = "node-held", 1
	n.Expect(n.Status().Update(ctx, ws)).To(Succeed())
	area, err := state.Open(n.area)
	n.Expect(err).NotTo(HaveOccurred())
	defer area.Close()
	var log lines
	cluster, err := admission{logger: log.logger(), reader: n.Client, area: area, node: "node-held"}.wait(ctx)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(cluster).To(Equal(n.clusterUID(t)))
	_, err = area.Identity()
	n.Expect(err).To(MatchError(state.ErrNoIdentity))
	n.Expect(log.String()).To(And(
		ContainSubstring("the working area has no identity, but this node holds workspaces: mount its disk"),
		ContainSubstring(namespace.Name+"/web"), ContainSubstring(n.area)))

	other := admission{logger: logr.Discard(), reader: n.Client, area: area, node: "node-other"}
	n.Expect(other.admit(ctx, cluster)).To(Succeed())
	_, err = area.Identity()
	n.Expect(err).NotTo(HaveOccurred(), "workspaces of other nodes say nothing about this one")
}

// silent is an API server that does not answer.
type silent struct{ client.Reader }

var errSilent = errors.New("connection refused")

func (silent) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errSilent
}

func TestS10_NoAnswerIsNotAnAnswer(t *testing.T) {
	n := newNode(t)
	area, err := state.Open(n.area)
	n.Expect(err).NotTo(HaveOccurred())
	defer area.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log lines
	done := make(chan error, 1)
	go func() {
		_, err := admission{logger: log.logger(), reader: silent{}, area: area, node: "node-a"}.wait(ctx)
		done <- err
	}()
	n.Eventually(log.String).Should(ContainSubstring("waiting for the API server"))
	n.Consistently(done, "100ms").ShouldNot(Receive())
	cancel()
	n.Eventually(done).Should(Receive(MatchError(context.Canceled)))
	_, err = area.Identity()
	n.Expect(err).To(MatchError(state.ErrNoIdentity))
}

func TestRunServesUntilItIsToldToStop(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := call(ctx, "", n.args("node-run", "run")...)
		done <- err
	}()
	var report v1.WorkspaceNode
	n.Eventually(func() error { return n.Get(t.Context(), client.ObjectKey{Name: "node-run"}, &report) }, "30s").Should(Succeed())
	n.Expect(refused(t, n.args("node-run", "area", "init")...)).To(ContainSubstring(state.ErrLocked.Error()))
	cancel()
	n.Eventually(done, "30s").Should(Receive(BeNil()))
	_, err := n.identity()
	n.Expect(err).NotTo(HaveOccurred(), "the lock of the area is free again")
}

func TestStripPodKeepsWhatIsLookedAt(t *testing.T) {
	g := NewWithT(t)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "a", Name: "b", UID: "c", ResourceVersion: "7", Labels: map[string]string{v1.LabelWorkspace: "web"},
			Annotations: map[string]string{"k": "v"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
		Spec:   corev1.PodSpec{NodeName: "node-a", Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "SECRET", Value: "s"}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
	got, err := stripPod(pod)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got).To(Equal(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", UID: "c", ResourceVersion: "7", Labels: map[string]string{v1.LabelWorkspace: "web"}},
		Spec:       corev1.PodSpec{NodeName: "node-a"}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}))
	other := "not a pod"
	g.Expect(stripPod(other)).To(Equal(other))
}
