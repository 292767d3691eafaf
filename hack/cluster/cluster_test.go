package cluster_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"wsdaemon.dev/ws-daemon/hack/cluster"
)

const (
	soon = 30 * time.Second
	tick = 100 * time.Millisecond
)

func start(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	g := NewWithT(t)
	// Building the tools may take minutes; what is measured is the start itself.
	names := []string{cluster.Etcd, cluster.APIServer, cluster.ControllerManager}
	_, err := cluster.FindTools(t.Context(), t.Output(), names...)
	g.Expect(err).NotTo(HaveOccurred())
	o.Dir, o.Log = t.TempDir(), t.Output()
	begin := time.Now()
	c, err := cluster.Start(t.Context(), o)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(c.Stop)
	t.Logf("ready after %s", time.Since(begin))
	return c
}

func connect(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return client
}

func createNamespace(ctx context.Context, client *kubernetes.Clientset, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	return err
}

func getNamespace(ctx context.Context, client *kubernetes.Clientset, name string) error {
	_, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	return err
}

func TestAPIStopsAndComesBackWithItsData(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	c := start(t, cluster.Options{})
	client := connect(t, c.Config())
	g.Expect(createNamespace(ctx, client, "kept")).To(Succeed())

	c.StopAPI()
	address := strings.TrimPrefix(c.Config().Host, "https://")
	_, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	g.Expect(err).To(MatchError(ContainSubstring("connection refused")))

	g.Expect(c.StartAPI(ctx)).To(Succeed())
	g.Expect(getNamespace(ctx, client, "kept")).To(Succeed())
	g.Expect(c.StartAPI(ctx)).To(Succeed(), "starting a running one changes nothing")
	g.Expect(c.Alive()).To(Succeed())
}

func TestRestoreEtcdGoesBackInTime(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	c := start(t, cluster.Options{ControllerManager: true})
	client := connect(t, c.Config())
	g.Expect(createNamespace(ctx, client, "before")).To(Succeed())
	saved := filepath.Join(t.TempDir(), "saved")
	g.Expect(c.SaveEtcd(ctx, saved)).To(Succeed())
	g.Expect(createNamespace(ctx, client, "after")).To(Succeed())
	g.Expect(c.SaveEtcd(ctx, saved)).To(MatchError(os.ErrExist), "a copy is never overwritten")
	g.Expect(getNamespace(ctx, client, "after")).To(Succeed(), "a failed save changes nothing")

	g.Expect(c.RestoreEtcd(ctx, saved)).To(Succeed())

	g.Expect(getNamespace(ctx, client, "before")).To(Succeed())
	g.Expect(getNamespace(ctx, client, "after")).To(Satisfy(apierrors.IsNotFound))
	g.Expect(client.CoreV1().Namespaces().Delete(ctx, "before", metav1.DeleteOptions{})).To(Succeed())
	g.Eventually(func() error { return getNamespace(ctx, client, "before") }, soon, tick).
		Should(Satisfy(apierrors.IsNotFound), "the controller manager empties and removes namespaces")
}

func TestCRDsAnswerOnceInstalled(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	c := start(t, cluster.Options{})

	g.Expect(c.InstallCRDs(ctx, "../../config/crd/bases")).To(Succeed())
	g.Expect(c.InstallCRDs(ctx, "../../config/crd/bases")).To(Succeed(), "a second time changes nothing")

	resources, err := connect(t, c.Config()).Discovery().ServerResourcesForGroupVersion("workspace.wsdaemon.dev/v1")
	g.Expect(err).NotTo(HaveOccurred())
	names := make([]string, 0, len(resources.APIResources))
	for _, resource := range resources.APIResources {
		names = append(names, resource.Name)
	}
	g.Expect(names).To(ConsistOf("workspaces", "workspaces/status", "snapshots", "snapshots/status",
		"workspacenodes", "workspacenodes/status"))
	g.Expect(c.InstallCRDs(ctx, t.TempDir())).To(MatchError(ContainSubstring("make manifests")))
}

func TestUsersAreSubjectToRBAC(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	c := start(t, cluster.Options{})
	path, config, err := c.AddUser("nobody-special", "some-group")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(path).To(BeARegularFile())

	err = createNamespace(ctx, connect(t, config), "refused")

	g.Expect(err).To(Satisfy(apierrors.IsForbidden))
	g.Expect(err).To(MatchError(ContainSubstring(`User "nobody-special"`)))
}

func TestOneClusterInADirectory(t *testing.T) {
	g := NewWithT(t)
	c := start(t, cluster.Options{})

	_, err := cluster.Start(t.Context(), cluster.Options{Dir: c.Dir()})

	g.Expect(err).To(MatchError(ContainSubstring("another one runs in " + c.Dir())))
	g.Expect(c.Alive()).To(Succeed())
}

func TestStartSaysWhyItFailed(t *testing.T) {
	g := NewWithT(t)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = listener.Close() })
	port := listener.Addr().(*net.TCPAddr).Port

	_, err = cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir(), APIPort: port})

	g.Expect(err).To(MatchError(And(ContainSubstring("kube-apiserver has ended"), ContainSubstring("address already in use"))))
	_, err = cluster.Start(t.Context(), cluster.Options{})
	g.Expect(err).To(MatchError(ContainSubstring(`bad directory ""`)))
}
