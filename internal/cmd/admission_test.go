package cmd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
	c.Health.Address, c.Metrics.Address, c.Service = "", "", config.Default().Service
	c.Service.Socket = ""
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
	n.Expect(refused(t, "run", "--config=/nowhere")).To(HavePrefix("configuration /nowhere does not exist"))
	n.Expect(os.Remove(n.area)).To(Succeed())
	n.Expect(refused(t, n.args("node-a", "run")...)).To(MatchRegexp(
		`^open working area: open \S+: (no such file or|not a) directory: make the directory, or mount its disk, or name another one \(content.workingArea\)$`))
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

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
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

// held makes a workspace whose content is on a node, and where spec has it next.
func (n *node) held(t *testing.T, holder, spec string) string {
	t.Helper()
	ctx := t.Context()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "cmd-"}}
	n.Expect(n.Create(ctx, namespace)).To(Succeed())
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "web"},
		Spec: v1.WorkspaceSpec{
			NodeName: holder, Volume: v1.VolumeSpec{Size: resource.MustParse("1Gi")},
			Owner: v1.Owner{UID: 33333, GID: 33333}, Initializer: v1.Initializer{Empty: &v1.EmptyInitializer{}},
		},
	}
	n.Expect(n.Create(ctx, ws)).To(Succeed())
	ws.Status.NodeName, ws.Status.Claim = holder, 1
	n.Expect(n.Status().Update(ctx, ws)).To(Succeed())
	if spec != holder {
		ws.Spec.FencedNode, ws.Spec.NodeName = holder, spec
		n.Expect(n.Update(ctx, ws)).To(Succeed())
	}
	return namespace.Name + "/web"
}

// reported makes the report of a node that had a working area, owned by the Node of that UID.
func (n *node) reported(t *testing.T, name string, owner types.UID) {
	t.Helper()
	report := &v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if owner != "" {
		report.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: owner}}
	}
	n.Expect(n.Create(t.Context(), report)).To(Succeed())
	report.Status.AreaID = "area-before"
	n.Expect(n.Status().Update(t.Context(), report)).To(Succeed())
}

// unique returns the name of a node that the API server has never heard of.
func unique(name string) string { return name + "-" + strings.ToLower(rand.Text()) }

// registered makes a Node.
func (n *node) registered(t *testing.T, name string) types.UID {
	t.Helper()
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Expect(n.Create(t.Context(), object)).To(Succeed())
	return object.UID
}

// A disk that is not mounted looks like a new one. The objects know better.
func TestS10_AMissingDiskIsNotANewNode(t *testing.T) {
	for name, tt := range map[string]struct {
		given func(t *testing.T, n *node, name string) (why string)
		fresh bool
	}{
		"workspaces of other nodes": {fresh: true, given: func(t *testing.T, n *node, name string) string {
			t.Helper()
			return n.held(t, "another-than-"+name, "another-than-"+name)
		}},
		"it holds a workspace": {given: func(t *testing.T, n *node, name string) string {
			t.Helper()
			return "this node holds workspaces: " + n.held(t, name, name)
		}},
		"its workspace is fenced away": {given: func(t *testing.T, n *node, name string) string {
			t.Helper()
			return "this node holds workspaces: " + n.held(t, name, "another-than-"+name)
		}},
		"it had an area": {given: func(t *testing.T, n *node, name string) string {
			t.Helper()
			n.reported(t, name, "")
			return "it had the working area area-before before"
		}},
		"the same Node had an area": {given: func(t *testing.T, n *node, name string) string {
			t.Helper()
			n.reported(t, name, n.registered(t, name))
			return "it had the working area area-before before"
		}},
		"an earlier Node of that name had one": {fresh: true, given: func(t *testing.T, n *node, name string) string {
			t.Helper()
			n.registered(t, name)
			n.reported(t, name, "uid-of-the-earlier-one")
			return ""
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			ours := unique("disk")
			why := tt.given(t, n, ours)
			area, err := state.Open(n.area)
			n.Expect(err).NotTo(HaveOccurred())
			defer area.Close()
			var log lines
			cluster, err := admission{logger: log.logger(), reader: n.Client, area: area, node: ours}.wait(t.Context())
			n.Expect(err).NotTo(HaveOccurred())
			n.Expect(cluster).To(Equal(n.clusterUID(t)))
			_, err = area.Identity()
			if tt.fresh {
				n.Expect(err).NotTo(HaveOccurred())
				return
			}
			n.Expect(err).To(MatchError(state.ErrNoIdentity))
			n.Expect(log.String()).To(And(ContainSubstring(why), ContainSubstring(n.area),
				ContainSubstring("mount the disk of the working area; if the disk is really a new one, run `ws-daemon area init`")))
			must(t, n.args(ours, "area", "init")...) // beside the daemon that waits for its disk
			n.Expect(state.HasIdentity(n.area)).To(BeTrue())
		})
	}
}

// Without every answer nothing is made.
func TestS10_AdmissionNeedsAllAnswers(t *testing.T) {
	n := newNode(t)
	name := unique("answers")
	n.reported(t, name, n.registered(t, name))
	area, err := state.Open(n.area)
	n.Expect(err).NotTo(HaveOccurred())
	defer area.Close()
	for _, kind := range []client.Object{&v1.WorkspaceNode{}, &corev1.Node{}} {
		reader := partly{Reader: n.Client, silent: fmt.Sprintf("%T", kind)}
		err := admission{logger: logr.Discard(), reader: reader, area: area, node: name}.admit(t.Context(), "cluster")
		n.Expect(err).To(MatchError(errSilent), reader.silent)
		n.Expect(state.HasIdentity(n.area)).To(BeFalse())
	}
}

// partly is an API server that does not answer for one kind.
type partly struct {
	client.Reader
	silent string
}

func (p partly) Get(ctx context.Context, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
	if fmt.Sprintf("%T", into) == p.silent {
		return errSilent
	}
	return p.Reader.Get(ctx, key, into, opts...)
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
	name := unique("run")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := call(ctx, "", n.args(name, "run")...)
		done <- err
	}()
	var report v1.WorkspaceNode
	n.Eventually(func() error { return n.Get(t.Context(), client.ObjectKey{Name: name}, &report) }, "30s").Should(Succeed())
	n.Expect(refused(t, n.args(name, "area", "init")...)).To(ContainSubstring(state.ErrInitialized.Error()))
	cancel()
	n.Eventually(done, "30s").Should(Receive(BeNil()))
	_, err := n.identity()
	n.Expect(err).NotTo(HaveOccurred(), "the lock of the area is free again")
}

func TestStripPodKeepsWhatIsLookedAt(t *testing.T) {
	g := NewWithT(t)
	work := corev1.Volume{Name: "work", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: v1.CSIDriver}}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "a", Name: "b", UID: "c", ResourceVersion: "7", Labels: map[string]string{v1.LabelWorkspace: "web"},
			Annotations: map[string]string{"k": "v"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
		Spec: corev1.PodSpec{
			NodeName: "node-a", Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "SECRET", Value: "s"}}}},
			Volumes: []corev1.Volume{{Name: "tmp"}, work},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
	got, err := stripPod(pod)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got).To(Equal(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", UID: "c", ResourceVersion: "7", Labels: map[string]string{v1.LabelWorkspace: "web"}},
		Spec:       corev1.PodSpec{NodeName: "node-a", Volumes: []corev1.Volume{work}}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}))
	other := "not a pod"
	g.Expect(stripPod(other)).To(Equal(other))
}
