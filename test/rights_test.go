package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// A life in which the daemon needs each of its rights, with the service account, the role and the policies that it is deployed with:
// none is left over, and none is missing.
func TestEveryRightOfTheDaemonIsUsed(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t, harness.OnOwnCluster())
	address := w.FreeAddress()
	sockets, err := os.MkdirTemp("", "ws-service-") //nolint:usetesting // the path of a socket must be short
	g.Expect(err).NotTo(HaveOccurred())
	defer os.RemoveAll(sockets)
	socket := filepath.Join(sockets, "service", "socket")
	a := w.Node("a", func(c *config.Config) { c.Metrics.Address, c.Service.Socket = address, socket }).Start()
	early := w.Workspace("early", a)
	early.Ready() // the node's report is there, without a Node
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.Name}}
	g.Expect(w.Client.Create(t.Context(), node)).To(Succeed())
	w.Eventually("the node is protected from scale-down", func() error {
		if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(node), node); err != nil {
			return err
		}
		if node.Annotations[v1.AnnotationScaleDownOurs] == "" {
			return fmt.Errorf("it is not yet: %v", node.Annotations)
		}
		return nil
	})

	ws := w.Workspace("web", a, harness.WithGit(w.GitServer()))
	ws.Ready()
	pod := w.Pod("shell", ws, a)
	ws.Backup("one")
	ws.Write("file", "two")
	ws.Backup("two")
	w.Keep("kept", ws)
	g.Expect(w.Client.Create(t.Context(), &v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "for-a-while"},
		Spec:       v1.SnapshotSpec{WorkspaceName: ws.Name, NodeName: a.Name, DeletionPolicy: v1.DeletionDelete},
	})).To(Succeed())
	ask(t, socket, &daemonv1.SnapshotRequest{Namespace: w.Namespace, Name: "web"})
	again := w.Workspace("again", a, func(o *v1.Workspace) {
		o.Spec.Initializer = v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "kept"}}
	})
	g.Expect(again.Ready().Status.Content.Source).To(Equal(v1.SourceSnapshot))
	w.RemovePod(pod)
	ws.Stop().Stopped()
	again.Delete().Gone()
	early.Delete().Gone() // nothing is unsaved, so the node is open to scale-down: the same event of the Node once more
	w.Scrape(address)
	w.AwaitRightsUsed(harness.DaemonAccount, harness.DaemonRoles)
}

// ask has the daemon's service make a snapshot.
func ask(t *testing.T, socket string, request *daemonv1.SnapshotRequest) {
	t.Helper()
	g := NewWithT(t)
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	made, err := daemonv1.NewWorkspaceServiceClient(c).Snapshot(ctx, request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(made.GetSnapshot().GetId()).To(HavePrefix("web-"))
}
