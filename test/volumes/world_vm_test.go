//go:build vm

package volumes

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

// What hack/vm puts into the machine.
const (
	kubeconfig = "/vm/kubeconfig"
	program    = "/vm/bin/ws-daemon"
	repository = "/vm/src"
)

// patience is how long anything may take where every instruction is emulated.
const patience = 3 * time.Minute

// world is what one test plays in: nodes whose volumes lie on the disk that TMPDIR is on, and a namespace.
type world struct {
	*WithT
	t         *testing.T
	client    client.Client
	dir       string
	namespace string
	access    string // kubeconfig of the daemons
	metadata  string // size of the pools' metadata
	began     time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		WithT: NewWithT(t), t: t, dir: t.TempDir(), namespace: "v" + strings.ToLower(rand.Text()[:8]), began: time.Now(),
		metadata: "4m",
	}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	w.Expect(os.Chmod(filepath.Dir(w.dir), 0o755)).To(Succeed(), "users get to their content")
	scheme := runtime.NewScheme()
	w.Expect(errors.Join(corev1.AddToScheme(scheme), eventsv1.AddToScheme(scheme), rbacv1.AddToScheme(scheme), v1.AddToScheme(scheme))).To(Succeed())
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	w.Expect(err).NotTo(HaveOccurred())
	ctrl.SetLogger(logr.Discard())
	w.client, err = client.New(rest, client.Options{Scheme: scheme})
	w.Expect(err).NotTo(HaveOccurred())
	w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})
	w.grant()
	w.Expect(os.Mkdir(w.path("store"), 0o700)).To(Succeed())
	w.run(program, "archive", "init", "--store", "file://"+w.path("store"))
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// say prints what has happened, and when.
func (w *world) say(format string, args ...any) {
	w.t.Logf("[%5.1f s] %s", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

func (w *world) run(name string, args ...string) {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), name, args...).CombinedOutput()
	w.Expect(err).NotTo(HaveOccurred(), "%s %q: %s", name, args, out)
}

func (w *world) create(o client.Object) {
	w.t.Helper()
	w.Expect(w.client.Create(w.t.Context(), o)).To(Succeed())
}

// grant gives the daemons the role that they are deployed with, and nothing more.
func (w *world) grant() {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "config", "rbac", "role.yaml"))
	w.Expect(err).NotTo(HaveOccurred())
	var role rbacv1.ClusterRole
	w.Expect(yaml.UnmarshalStrict(text, &role)).To(Succeed())
	role.Name = w.namespace
	w.create(&role)
	w.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: w.namespace}},
	})
	access, err := clientcmd.LoadFromFile(kubeconfig)
	w.Expect(err).NotTo(HaveOccurred())
	for _, user := range access.AuthInfos {
		user.Impersonate = w.namespace
	}
	w.access = w.path("kubeconfig")
	w.Expect(clientcmd.WriteToFile(*access, w.access)).To(Succeed())
}

// node is a working area with a volume class of its own, and the daemon that runs with it.
type node struct {
	w    *world
	name string
	dir  string
	proc *process.Process
	thin int // volumes in its pool that LVM does not know
}

// node starts a node's daemon, whose configuration a test may change.
func (w *world) node(name string, changes ...func(*config.Config)) *node {
	w.t.Helper()
	n := &node{w: w, name: w.namespace + "-" + name, dir: w.path(name)}
	w.Expect(os.Mkdir(n.dir, 0o711)).To(Succeed())
	w.Expect(os.Mkdir(filepath.Join(n.dir, "area"), 0o711)).To(Succeed())
	w.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	c := config.Default()
	c.Content.WorkingArea = filepath.Join(n.dir, "area")
	c.Content.Timeouts.RetryMax.Duration = 2 * time.Second
	c.Storage = config.Storage{Kind: "filesystem", Filesystem: &config.Filesystem{Path: w.path("store")}}
	c.Volumes.Classes = map[string]config.Class{"default": n.class()}
	c.Health.Address, c.Metrics.Address, c.Service.Socket = "", "", ""
	c.Log = config.Log{Level: "debug", Format: "console"}
	for _, change := range changes {
		change(&c)
	}
	text, err := json.Marshal(c)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(os.WriteFile(filepath.Join(n.dir, "config.json"), text, 0o600)).To(Succeed())
	n.start()
	w.t.Cleanup(n.stop)
	return n
}

func (n *node) log() string { return filepath.Join(n.dir, "log") }

func (n *node) start() {
	n.w.t.Helper()
	args := []string{program, "run", "--config", filepath.Join(n.dir, "config.json"), "--kubeconfig", n.w.access, "--node", n.name}
	if !onLVM() {
		args = slices.Concat([]string{"/usr/bin/setpriv", "--bounding-set=-all" + rights(), "--inh-caps=-all"}, args)
	}
	var err error
	n.proc, err = process.Start(n.log(), nil, args[0], args[1:]...)
	n.w.Expect(err).NotTo(HaveOccurred())
}

// kill ends the daemon as a power cut would.
func (n *node) kill() {
	n.proc.Signal(syscall.SIGKILL)
	<-n.proc.Done()
}

// rights are the capabilities that the daemon uses with volumes of project quota, as setpriv takes them. In a pod it has all of them;
// docs/security.md says which it uses, and what for.
func rights() string {
	return ",+sys_admin,+chown,+dac_override,+fowner,+fsetid,+setuid,+setgid,+kill,+mknod,+setfcap,+lease,+linux_immutable"
}

func (n *node) stop() {
	n.w.Expect(n.proc.Stop(time.Minute)).To(Succeed())
	if n.w.t.Failed() {
		n.w.t.Logf("%s said:\n%s", n.name, n.proc.Tail(60))
	}
}

// onLVM says whether the disk at hand is LVM's.
func onLVM() bool {
	disk := os.Getenv("WS_DAEMON_VM_LVM")
	return disk != "" && strings.HasPrefix(os.TempDir(), disk+"/")
}

// class is one with limits, on the disk at hand.
func (n *node) class() config.Class {
	if !onLVM() {
		path := filepath.Join(n.dir, "volumes")
		n.w.Expect(os.Mkdir(path, 0o711)).To(Succeed())
		return config.Class{Driver: config.DriverQuota, Path: path}
	}
	// As on two machines, each has a volume group of its own.
	group, pool := n.name, "pool"
	disk := volumetest.NewPowerCut(n.w.t, 640<<20)
	n.w.run("vgcreate", "--quiet", group, disk.Path())
	n.w.t.Cleanup(func() { volumetest.Program(n.w.t, "vgremove", "--force", "--yes", "--quiet", group) })
	n.w.run("lvcreate", "--yes", "--quiet", "--type", "thin-pool", "--size", "520m", "--poolmetadatasize", n.w.metadata, "--zero", "y", "--name", pool, group)
	return config.Class{Driver: config.DriverLVM, Overcommit: new(true), LVM: config.LVM{
		VolumeGroup: group, ThinPool: pool, Filesystem: "xfs", Templates: 2,
	}}
}

// volumes lists what a node has on its disk, whatever it is: directories of volumes, or logical volumes.
func (n *node) volumes() []string {
	pattern := filepath.Join(n.dir, "volumes", "[^.]*")
	if onLVM() {
		out, err := exec.CommandContext(n.w.t.Context(), "lvs", "--noheadings", "--options", "lv_name", "--select", "pool_lv=pool && tags!=wsdaemon.template", n.name).Output()
		n.w.Expect(err).NotTo(HaveOccurred())
		return strings.Fields(string(out))
	}
	paths, err := filepath.Glob(pattern)
	n.w.Expect(err).NotTo(HaveOccurred())
	return paths
}

// get reads an object of the namespace; reading has a deadline of its own.
func (w *world) get(o client.Object, name string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return w.client.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, o)
}

// await waits until a workspace's Ready has a reason, and returns the workspace.
func (w *world) await(name, reason string) *v1.Workspace {
	w.t.Helper()
	var ws v1.Workspace
	w.Eventually(func() (string, error) {
		err := w.get(&ws, name)
		if c := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionReady); c != nil {
			return c.Reason + ": " + c.Message, err
		}
		return "", err
	}).Should(HavePrefix(reason+":"), func() string { return status(&ws) })
	w.say("%s is %s", name, reason)
	return &ws
}

// status prints what is known of a workspace.
func status(ws *v1.Workspace) string {
	text, _ := yaml.Marshal(ws.Status)
	return string(text)
}

// patch changes a workspace.
func (w *world) patch(name, patch string) {
	w.t.Helper()
	ws := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	w.Expect(w.client.Patch(w.t.Context(), ws, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}
