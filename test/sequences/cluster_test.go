package sequences

import (
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/cluster"
)

// ownCluster starts a cluster that a test may ruin.
func ownCluster(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := startCluster(filepath.Join(t.TempDir(), "cluster"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(c.Stop)
	return c
}

// The CRDs are uninstalled while workspaces are in use: their content is saved before the objects go, and comes back.
func TestS1_CRDUninstalled(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, ownCluster(t))
	a := w.node("a")
	w.workspace("web", a)
	w.write(w.running("web", a), "file", "one")
	scheme := w.Scheme()
	w.Expect(apiextensionsv1.AddToScheme(scheme)).To(Succeed())
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "workspaces.workspace.wsdaemon.dev"}}
	w.Expect(w.Client.Delete(t.Context(), crd)).To(Succeed())
	w.Eventually(func() error { return w.Client.Get(t.Context(), client.ObjectKeyFromObject(crd), crd) }).Should(MatchError(ContainSubstring("not found")))
	a.clean()
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("one"))

	a.kill()
	w.Expect(w.cluster.InstallCRDs(w.seconds(60), "../../config/crd/bases")).To(Succeed())
	a.start()
	w.workspace("web", a)
	w.Expect(w.read(w.running("web", a), "file")).To(Equal("one"))
}

// CRDs that are gone together with all objects, as after a cluster was rebuilt in place, make every read fail. That is no
// evidence that the workspaces were deleted.
func TestS10_WrongClusterInTheKubeconfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newNode("a", shortGrace)
	a.start()
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", "unsaved")
	a.kill()

	other := newWorldOn(t, ownCluster(t))
	right := a.link
	a.link = newLink(other, hostOf(other.cluster))
	rightCluster := w.cluster
	w.cluster = other.cluster
	a.start()
	w.Eventually(a.ended).Should(BeClosed(), "the daemon refuses to start")
	w.Expect(a.log.String()).To(ContainSubstring("belongs to cluster"))
	w.Expect(w.read(path, "file")).To(Equal("unsaved"))

	a.cmd, a.link, w.cluster = nil, right, rightCluster
	a.start()
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("unsaved"))
}

// everySecond makes periodic backups, and so writes to the object, frequent.
func everySecond(ws *v1.Workspace) { ws.Spec.Backup.Interval.Duration = time.Second }

func hostOf(c *cluster.Cluster) string { return c.Config().Host[len("https://"):] }

// The API server is restored from an old copy: the object says that node a holds the workspace, which node b has held and
// backed up since. Nothing is lost, and a person brings the newest backup back.
func TestS1_APIRestoredFromAnOldCopy(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, ownCluster(t))
	a, b := w.node("a"), w.node("b")
	w.workspace("web", a, everySecond)
	w.write(w.running("web", a), "file", "old")
	w.backup("web", "first")
	copied := filepath.Join(w.dir, "etcd-copy")
	w.Expect(w.cluster.SaveEtcd(w.seconds(60), copied)).To(Succeed())

	w.running("web", a)
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	w.patch("web", "spec: {state: Running, nodeName: "+b.name+"}")
	onB := w.running("web", b)
	w.write(onB, "file", "new")
	w.Expect(w.backup("web", "second")).To(HavePrefix("2."))

	b.respawn("gone back in time")
	w.SetDefaultEventuallyTimeout(2 * patience)
	w.Expect(w.cluster.RestoreEtcd(w.seconds(60), copied)).To(Succeed())
	a.kill() // it holds nothing by which it could notice; Kubernetes asks for a restart of everything after a restore
	a.start()
	b.clean() // another node holds it, by the object, and the store has all of it
	w.is("web", v1.ConditionStalled, "True/ContentLost")
	w.patch("web", "metadata: {annotations: {workspace.wsdaemon.dev/accept-lost: '1'}}")
	w.Expect(w.read(w.running("web", a), "file")).To(Equal("new"))
	w.Expect(w.get("web").Status.Claim).To(Equal(int64(3)))
}

// The API server is restored from a copy that is older than the node's claim: the node, which the store knows as the newest
// owner, goes on.
func TestS1_APIRestoredFromACopyOlderThanTheClaim(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, ownCluster(t))
	a := w.node("a")
	w.workspace("web", a, everySecond)
	w.write(w.running("web", a), "file", "one")
	copied := filepath.Join(w.dir, "etcd-copy")
	w.backup("web", "first")
	w.Expect(w.cluster.SaveEtcd(w.seconds(60), copied)).To(Succeed())
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	w.patch("web", "spec: {state: Running}")
	path := w.running("web", a)
	w.write(path, "file", "two, unsaved")

	a.respawn("gone back in time")
	w.SetDefaultEventuallyTimeout(2 * patience)
	w.Expect(w.cluster.RestoreEtcd(w.seconds(60), copied)).To(Succeed())
	w.Eventually(func() int64 { return w.get("web").Status.Claim }).Should(Equal(int64(2)))
	w.Expect(w.read(w.running("web", a), "file")).To(Equal("two, unsaved"))
	w.write(path, "file", "three")
	w.Expect(w.backup("web", "second")).To(HavePrefix("2."))
}

// The API server goes away for a while, in every phase of a life; the work goes on when it is back, and backups never stop.
func TestS5_APIServerGoesAwayInEveryPhase(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, ownCluster(t))
	a := w.node("a")
	away := func() {
		w.cluster.StopAPI()
		time.AfterFunc(3*time.Second, func() { _ = w.cluster.StartAPI(w.Context()) }) // checked by what follows
	}
	answers := func() {
		w.Eventually(func() error {
			return w.List(t.Context(), &v1.WorkspaceList{}, client.InNamespace(w.namespace))
		}).Should(Succeed())
	}
	w.workspace("web", a, func(ws *v1.Workspace) { ws.Spec.Backup.Interval.Duration = time.Second })
	away() // while it is claimed and made
	answers()
	path := w.running("web", a)
	w.write(path, "file", "one")
	away() // while it is in use
	w.Eventually(func() []string { return w.names("web") }).Should(ContainElement("1.1"))
	answers()
	w.patch("web", "spec: {state: Stopped}")
	away() // while it is saved and released
	answers()
	w.stopped("web")
	a.clean()
	w.patch("web", "spec: {state: Running}")
	w.Expect(w.read(w.running("web", a), "file")).To(Equal("one"))
	w.delete("web")
	away() // while it is deleted
	answers()
	w.gone("web")
	a.clean()
	w.Expect(w.read(w.newest("web"), "file")).To(Equal("one"))
}
