package sequences

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// The CRDs are uninstalled while workspaces are in use: their content is saved before the objects go, and comes back.
func TestS1_CRDUninstalled(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t, harness.OnOwnCluster())
	a := w.Node("a").Start()
	web := begin(w, a, "one")
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "workspaces.workspace.wsdaemon.dev"}}
	g.Expect(w.Client.Delete(t.Context(), crd)).To(Succeed())
	g.Eventually(func() error { return w.Client.Get(t.Context(), client.ObjectKeyFromObject(crd), crd) }, harness.Patience).
		Should(Satisfy(apierrors.IsNotFound))
	a.Leftovers()
	g.Expect(web.Saved("file")).To(Equal("one"))

	a.Kill()
	w.InstallCRDs()
	a.Start()
	web = w.Workspace("web", a)
	web.Ready()
	g.Expect(web.Read("file")).To(Equal("one"))
}

// CRDs that are gone together with all objects, as after a cluster was rebuilt in place, make every read fail. That is no
// evidence that the workspaces were deleted.
func TestS10_WrongClusterInTheKubeconfig(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t)
	a := w.Node("a", shortGrace).Start()
	web := begin(w, a, "unsaved")
	a.Kill()

	right := a.Kubeconfig
	a.Kubeconfig = env.World(t, harness.OnOwnCluster()).Cluster.Kubeconfig()
	g.Expect(a.Start().Wait()).To(MatchError("exit status 1"), "the daemon refuses to start")
	g.Expect(a.Log()).To(ContainSubstring("belongs to cluster"))
	g.Expect(web.Read("file")).To(Equal("unsaved"))

	a.Kubeconfig = right
	a.Start()
	stops(t, web, "unsaved")
}

// The API server is restored from an old copy: the object says that node a holds the workspace, which node b has held and
// backed up since. Nothing is lost, and a person brings the newest backup back.
func TestS1_APIRestoredFromAnOldCopy(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t, harness.OnOwnCluster())
	a, b := w.Node("a").Start(), w.Node("b").Supervise()
	web := begin(w, a, "old", harness.WithInterval(time.Second))
	web.Backup("first")
	copied := filepath.Join(w.Dir, "etcd-copy")
	g.Expect(w.Cluster.SaveEtcd(t.Context(), copied)).To(Succeed())

	web.Ready()
	web.Stop().Stopped()
	web.StartOn(b).Ready()
	web.Write("file", "new")
	g.Expect(string(web.Backup("second").Name)).To(HavePrefix("2."))

	w.Patience *= 2
	g.Expect(w.Cluster.RestoreEtcd(t.Context(), copied)).To(Succeed())
	a.Kill() // it holds nothing by which it could notice; Kubernetes asks for a restart of everything after a restore
	a.Start()
	b.Leftovers() // another node holds it, by the object, and the store has all of it
	endsOnlyToGoBack(t, b)
	web.Node = a
	web.AwaitCondition(v1.ConditionStalled, metav1.ConditionTrue, v1.ReasonContentLost)
	web.Annotate(v1.AnnotationAcceptLost, "1")
	g.Expect(web.Ready().Status.Claim).To(BeEquivalentTo(3))
	g.Expect(web.Read("file")).To(Equal("new"))
}

// endsOnlyToGoBack expects that a daemon has ended only if it has found out that the API server is an old copy.
func endsOnlyToGoBack(t *testing.T, n *harness.Node) {
	t.Helper()
	if n.Deaths() > 0 {
		NewWithT(t).Expect(n.Log()).To(ContainSubstring("gone back in time"))
	}
}

// The API server is restored from a copy that is older than the node's claim: the node, which the store knows as the newest
// owner, goes on.
func TestS1_APIRestoredFromACopyOlderThanTheClaim(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t, harness.OnOwnCluster())
	a := w.Node("a").Supervise()
	web := begin(w, a, "one", harness.WithInterval(time.Second))
	copied := filepath.Join(w.Dir, "etcd-copy")
	web.Backup("first")
	g.Expect(w.Cluster.SaveEtcd(t.Context(), copied)).To(Succeed())
	web.Stop().Stopped()
	web.StartOn(a).Ready()
	web.Write("file", "two, unsaved")

	w.Patience *= 2
	g.Expect(w.Cluster.RestoreEtcd(t.Context(), copied)).To(Succeed())
	web.Await("has its newest claim again", func(o *v1.Workspace) error {
		if o.Status.Claim != 2 {
			return fmt.Errorf("it has claim %d", o.Status.Claim)
		}
		return nil
	})
	endsOnlyToGoBack(t, a)
	web.Ready()
	g.Expect(web.Read("file")).To(Equal("two, unsaved"))
	web.Write("file", "three")
	g.Expect(string(web.Backup("second").Name)).To(HavePrefix("2."))
}

// The API server goes away for a while, in every phase of a life; the work goes on when it is back, and backups never stop.
func TestS5_APIServerGoesAwayInEveryPhase(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t, harness.OnOwnCluster())
	a := w.Node("a").Start()
	away := func() {
		w.Cluster.StopAPI()
		time.AfterFunc(3*time.Second, func() {
			if err := w.Cluster.StartAPI(t.Context()); err != nil {
				t.Logf("start the API server again: %v", err) // what follows fails
			}
		})
	}
	answers := func() {
		w.Eventually("the API server answers", func() error {
			return w.Client.List(t.Context(), &v1.WorkspaceList{}, client.InNamespace(w.Namespace))
		})
	}
	web := w.Workspace("web", a, harness.WithInterval(time.Second))
	away() // while it is claimed and made
	answers()
	web.Ready()
	web.Write("file", "one")
	away() // while it is in use
	web.AwaitBackup("1.1")
	answers()
	web.Stop()
	away() // while it is saved and released
	answers()
	web.Stopped()
	a.Leftovers()
	web.StartOn(a).Ready()
	g.Expect(web.Read("file")).To(Equal("one"))
	web.Delete()
	away() // while it is deleted
	answers()
	web.Gone()
	a.Leftovers()
	g.Expect(web.Saved("file")).To(Equal("one"))
}
