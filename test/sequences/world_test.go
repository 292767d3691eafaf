// Package sequences holds the orders of events that make other systems lose data, played by real daemons against a real API
// server and a real store. Each test has a store, nodes and a namespace of its own.
package sequences

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// patience is how long anything may take on a busy machine.
const patience = 40 * time.Second

// shared is the cluster that most tests use; binary is the daemon, built with fault points.
var (
	shared *cluster.Cluster
	binary string
	serial atomic.Int64
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ws-daemon-sequences-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ws-daemon")
	build := exec.CommandContext(context.Background(), "go", "build", "-tags", "faults", "-o", binary, "wsdaemon.dev/ws-daemon")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the daemon: %v\n%s", err, out))
	}
	if shared, err = startCluster(filepath.Join(dir, "cluster")); err != nil {
		panic(err)
	}
	defer shared.Stop()
	return m.Run()
}

func startCluster(dir string) (*cluster.Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir, ControllerManager: true, Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	return c, c.InstallCRDs(ctx, "../../config/crd/bases")
}

// world is what one test plays in.
type world struct {
	*testing.T
	*WithT
	client.Client

	dir       string
	cluster   *cluster.Cluster
	namespace string
	storeDir  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, shared)
}

func newWorldOn(t *testing.T, c *cluster.Cluster) *world {
	t.Helper()
	w := &world{T: t, WithT: NewWithT(t), dir: t.TempDir(), cluster: c}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	w.Client = newClient(w.WithT, c)
	w.namespace = fmt.Sprintf("seq-%d", serial.Add(1))
	w.Expect(w.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
	w.storeDir = w.newStore("store")
	t.Cleanup(w.dump)
	return w
}

func newClient(g *WithT, c *cluster.Cluster) client.Client {
	scheme := runtime.NewScheme()
	g.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	g.Expect(eventsv1.AddToScheme(scheme)).To(Succeed())
	g.Expect(v1.AddToScheme(scheme)).To(Succeed())
	cfg := c.Config()
	cfg.QPS = -1
	cl, err := client.New(cfg, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	return cl
}

// newStore makes an initialized store.
func (w *world) newStore(name string) string {
	dir := filepath.Join(w.dir, name)
	w.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	s, err := store.NewFilesystem(dir)
	w.Expect(err).NotTo(HaveOccurred())
	_, err = store.Init(w.Context(), s)
	w.Expect(err).NotTo(HaveOccurred())
	return dir
}

func (w *world) dump() {
	if !w.Failed() {
		return
	}
	var list v1.WorkspaceList
	if err := w.List(context.Background(), &list, client.InNamespace(w.namespace)); err == nil {
		for i := range list.Items {
			list.Items[i].ManagedFields = nil
			text, _ := yaml.Marshal(list.Items[i])
			w.Logf("%s", text)
		}
	}
	for _, e := range w.events(context.Background()) {
		w.Log("event: " + e)
	}
}

// node is a daemon with its disk and its own, cuttable, way to the API server.
type node struct {
	w      *world
	name   string
	area   string
	store  string
	link   *link
	cmd    *exec.Cmd
	ended  chan struct{}
	env    []string
	adjust func(*config.Config)
	log    *logs
}

// logs keeps what a daemon printed; it is read while the daemon writes.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// node makes a node and starts its daemon. Names are unique, since the cluster is shared.
func (w *world) node(name string, adjust ...func(*config.Config)) *node {
	w.Helper()
	n := w.newNode(name, adjust...)
	n.start()
	return n
}

func (w *world) newNode(name string, adjust ...func(*config.Config)) *node {
	w.Helper()
	n := &node{w: w, name: w.namespace + "-" + name, area: filepath.Join(w.dir, name), store: w.storeDir, log: &logs{}}
	w.Expect(os.Mkdir(n.area, 0o755)).To(Succeed())
	n.adjust = func(c *config.Config) {
		for _, a := range adjust {
			a(c)
		}
	}
	n.link = newLink(w, strings.TrimPrefix(w.cluster.Config().Host, "https://"))
	w.Cleanup(func() {
		n.kill()
		if w.Failed() {
			w.Logf("log of %s:\n%s", n.name, tail(n.log.String(), 6000))
		}
	})
	return n
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// start writes the configuration and starts the daemon.
func (n *node) start() {
	n.w.Helper()
	c := config.Example()
	c.Content.WorkingArea = n.area
	c.Content.Timeouts.RetryMax.Duration = 2 * time.Second
	c.Content.Timeouts.Store.Duration = 10 * time.Second
	c.Storage.Filesystem.Path = n.store
	c.Volumes.Classes = map[string]config.Class{"default": {Driver: "directory", AllowUnlimited: true}}
	c.Health.Address, c.Metrics.Address = "", ""
	c.Log.Format = "console"
	n.adjust(&c)
	data, err := json.Marshal(c)
	n.w.Expect(err).NotTo(HaveOccurred())
	file := n.area + ".json"
	n.w.Expect(os.WriteFile(file, data, 0o600)).To(Succeed())
	n.cmd = exec.Command(binary, "run", "--config", file, "--node", n.name, "--kubeconfig", n.link.kubeconfig(n.w, n.area+".kubeconfig")) //nolint:noctx // it ends with the test
	n.cmd.Env = append(os.Environ(), n.env...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.w.Expect(n.cmd.Start()).To(Succeed())
	n.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // it is killed in most tests
		close(ended)
	}(n.cmd, n.ended)
}

// respawn starts the daemon again whenever it ends with these words in its log, as the kubelet would.
func (n *node) respawn(words string) {
	ended := n.ended
	go func() {
		<-ended
		if strings.Contains(n.log.String(), words) {
			n.start()
		}
	}()
}

// kill ends the daemon at once, as a power cut would.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.ended
	n.cmd = nil
}

func (n *node) signal(s os.Signal) {
	n.w.Helper()
	n.w.Expect(n.cmd.Process.Signal(s)).To(Succeed())
}

// volumes lists what lies on the node's disk for workspaces, removed or not.
func (n *node) volumes() []string {
	var all []string
	for _, pattern := range []string{"volumes/default/*", "volumes/default/.trash/*", "journal/*"} {
		found, _ := filepath.Glob(filepath.Join(n.area, pattern))
		for _, f := range found {
			if name := filepath.Base(f); name != ".trash" && name != ".owner" {
				all = append(all, strings.TrimPrefix(f, n.area+"/"))
			}
		}
	}
	return all
}

// clean waits until nothing of any workspace is left on the node.
func (n *node) clean() {
	n.w.Helper()
	n.w.Eventually(n.volumes).Should(BeEmpty(), "what is left on "+n.name)
}

// link is a node's way to the API server.
type link struct {
	target   string
	listener net.Listener
	mu       sync.Mutex
	cutOff   bool
	conns    map[net.Conn]bool
}

func newLink(w *world, target string) *link {
	listener, err := (&net.ListenConfig{}).Listen(w.Context(), "tcp", "127.0.0.1:0")
	w.Expect(err).NotTo(HaveOccurred())
	l := &link{target: target, listener: listener, conns: map[net.Conn]bool{}}
	go l.serve()
	w.Cleanup(func() {
		_ = listener.Close() // the test is over
		l.cut()
	})
	return l
}

func (l *link) serve() {
	for {
		in, err := l.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", l.target) //nolint:noctx // closed by cut
		if err != nil || !l.add(in, out) {
			_ = in.Close() // refused
			if err == nil {
				_ = out.Close() // refused
			}
			continue
		}
		go pipe(in, out)
		go pipe(out, in)
	}
}

func pipe(from, to net.Conn) {
	_, _ = io.Copy(to, from) // ends when either side does
	_ = from.Close()         // so does the other direction
	_ = to.Close()           // so does the other direction
}

func (l *link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cutOff {
		return false
	}
	for _, c := range conns {
		l.conns[c] = true
	}
	return true
}

// cut ends all connections and refuses new ones until mend.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutOff = true
	for c := range l.conns {
		_ = c.Close() // cut
	}
	clear(l.conns)
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutOff = false
}

func (l *link) kubeconfig(w *world, file string) string {
	cfg, err := clientcmd.LoadFromFile(w.cluster.Kubeconfig())
	w.Expect(err).NotTo(HaveOccurred())
	for _, c := range cfg.Clusters {
		c.Server = "https://" + l.listener.Addr().String()
	}
	w.Expect(clientcmd.WriteToFile(*cfg, file)).To(Succeed())
	return file
}

// workspace creates a workspace that runs on a node; adjust changes the object first.
func (w *world) workspace(name string, n *node, adjust ...func(*v1.Workspace)) *v1.Workspace {
	w.Helper()
	ws := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	w.Expect(yaml.Unmarshal([]byte("volume: {size: 1Gi}\nbackup: {interval: 1h}"), &ws.Spec)).To(Succeed())
	ws.Spec.NodeName = n.name
	for _, a := range adjust {
		a(ws)
	}
	w.Expect(w.Create(w.Context(), ws)).To(Succeed())
	return ws
}

func (w *world) get(name string) *v1.Workspace {
	ws := &v1.Workspace{}
	w.Expect(w.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, ws)).To(Succeed())
	return ws
}

// patch merges YAML into a workspace.
func (w *world) patch(name, text string) {
	w.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	w.Expect(err).NotTo(HaveOccurred())
	ws := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	w.Expect(w.Client.Patch(w.Context(), ws, client.RawPatch("application/merge-patch+json", data))).To(Succeed())
}

// is waits for a condition, as "True/Reason" or "False/Reason".
func (w *world) is(name, condition, want string) {
	w.Helper()
	w.Eventually(func() string { return w.state(name, condition) }).Should(Equal(want), condition+" of "+name)
}

func (w *world) state(name, condition string) string {
	for _, c := range w.get(name).Status.Conditions {
		if c.Type == condition {
			return string(c.Status) + "/" + c.Reason
		}
	}
	return "absent"
}

func (w *world) running(name string, n *node) string {
	w.Helper()
	w.Eventually(func() string {
		ws := w.get(name)
		if ws.Status.NodeName != n.name || ws.Status.Volume == nil || w.state(name, v1.ConditionReady) != "True/Running" {
			return ""
		}
		return ws.Status.Volume.Path
	}).ShouldNot(BeEmpty(), name+" runs on "+n.name)
	return w.get(name).Status.Volume.Path
}

// stopped waits until no node holds the workspace.
func (w *world) stopped(name string) {
	w.Helper()
	w.is(name, v1.ConditionReady, "False/Stopped")
	w.Eventually(func() string { return w.get(name).Status.NodeName }).Should(BeEmpty())
}

// backup asks for a backup and waits for it; it returns its name.
func (w *world) backup(name, trigger string) string {
	w.Helper()
	w.patch(name, "spec: {backup: {trigger: "+trigger+"}}")
	w.Eventually(func() string {
		if b := w.get(name).Status.Backup; b != nil {
			return b.Trigger
		}
		return ""
	}).Should(Equal(trigger))
	return string(w.get(name).Status.Backup.Latest.Name)
}

func (w *world) write(path, name, text string) {
	w.Helper()
	w.Expect(os.WriteFile(filepath.Join(path, name), []byte(text), 0o644)).To(Succeed())
}

func (w *world) read(path, name string) string {
	w.Helper()
	data, err := os.ReadFile(filepath.Join(path, name))
	w.Expect(err).NotTo(HaveOccurred())
	return string(data)
}

// domain opens what the store has of this test's namespace.
func (w *world) domain() *history.Domain {
	s, err := store.NewFilesystem(w.storeDir)
	w.Expect(err).NotTo(HaveOccurred())
	d, err := history.OpenDomain(w.Context(), s, w.namespace, "", true)
	if err != nil {
		d, err = history.OpenDomain(w.Context(), s, w.namespace, "test", true)
	}
	w.Expect(err).NotTo(HaveOccurred())
	return d
}

// names lists the backups in the store, newest first, claims included.
func (w *world) names(workspace string) []string {
	entries, err := w.domain().Workspace(workspace).Entries(w.Context())
	w.Expect(err).NotTo(HaveOccurred())
	var names []string
	for _, e := range entries {
		names = append(names, e.Name.String())
	}
	return names
}

// pins lists the ids of pins that begin with prefix.
func (w *world) pins(prefix string) []string {
	pins, err := w.domain().Pins(w.Context(), prefix)
	w.Expect(err).NotTo(HaveOccurred())
	var ids []string
	for _, p := range pins {
		ids = append(ids, p.ID)
	}
	return ids
}

// packs reads packs for a restore by hand.
type packs struct{ d *history.Domain }

func (p packs) GetPack(ctx context.Context, pack archive.Pack) ([]byte, error) {
	return p.d.GetPack(ctx, history.Pack(pack))
}

// restore brings a commit's tree back by hand and returns its directory.
func (w *world) restore(c history.Commit) string {
	w.Helper()
	dir, err := os.MkdirTemp(w.dir, "restored-")
	w.Expect(err).NotTo(HaveOccurred())
	var all []archive.Pack
	for _, p := range c.Packs {
		all = append(all, archive.Pack(p))
	}
	_, err = archive.Restore(w.Context(), all, packs{w.domain()}, dir, nil)
	w.Expect(err).NotTo(HaveOccurred())
	return dir
}

// pinned restores a pin by hand and returns its directory.
func (w *world) pinned(id string) string {
	w.Helper()
	p, err := w.domain().Pinned(w.Context(), id)
	w.Expect(err).NotTo(HaveOccurred())
	return w.restore(p.Commit)
}

// newest restores the backup that the next start would restore, and returns its directory.
func (w *world) newest(workspace string) string {
	w.Helper()
	c, _, err := w.domain().Workspace(workspace).Current(w.Context())
	w.Expect(err).NotTo(HaveOccurred())
	return w.restore(c)
}

// events returns "Reason: note" of the events in the namespace.
func (w *world) events(ctx context.Context) []string {
	var list eventsv1.EventList
	if err := w.List(ctx, &list, client.InNamespace(w.namespace)); err != nil {
		return []string{err.Error()}
	}
	var notes []string
	for i := range list.Items {
		notes = append(notes, list.Items[i].Reason+": "+list.Items[i].Note)
	}
	return notes
}

func (w *world) delete(name string) {
	w.Helper()
	ws := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	w.Expect(client.IgnoreNotFound(w.Client.Delete(w.Context(), ws))).To(Succeed())
}

func (w *world) gone(name string) {
	w.Helper()
	w.Eventually(func() bool {
		err := w.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, &v1.Workspace{})
		return client.IgnoreNotFound(err) == nil && err != nil
	}).Should(BeTrue(), name+" is gone")
}

// pod makes a pod that uses a workspace on a node, as the kubelet would report it.
func (w *world) pod(name, workspace string, n *node) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Labels: map[string]string{v1.LabelWorkspace: workspace}},
		Spec:       corev1.PodSpec{NodeName: n.name, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	w.Expect(w.Create(w.Context(), pod)).To(Succeed())
	pod.Status.Phase = corev1.PodRunning
	w.Expect(w.Status().Update(w.Context(), pod)).To(Succeed())
	return pod
}

func (w *world) end(pod *corev1.Pod) {
	w.Helper()
	zero := int64(0)
	w.Expect(w.Client.Delete(w.Context(), pod, &client.DeleteOptions{GracePeriodSeconds: &zero})).To(Succeed())
}

func (w *world) seconds(n int) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), time.Duration(n)*time.Second)
	w.Cleanup(cancel)
	return ctx
}
