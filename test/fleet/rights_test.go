package fleet

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// A node dies with a workspace that is deleted then, and with snapshots: the controller needs each of its rights, and no other.
func TestEveryRightOfTheControllerIsUsed(t *testing.T) {
	g, w := NewWithT(t), env.World(t, harness.OnOwnCluster())
	bystander(w).Start()
	address := w.FreeAddress()
	w.Controller("c", harness.NodeGrace, func(c *config.Config) { c.Metrics.Address = address }).Start().Leads()
	a := w.Node("a").Join().Start()
	web := begin(w, a, "one")
	web.Backup("first")
	snapshot := func(name, node string) *v1.Snapshot {
		return &v1.Snapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
			Spec:       v1.SnapshotSpec{WorkspaceName: web.Name, NodeName: node},
		}
	}
	g.Expect(w.Client.Create(t.Context(), snapshot("unassigned", ""))).To(Succeed())
	a.Kill()
	a.Leave()
	g.Expect(w.Client.Create(t.Context(), snapshot("late", a.Name))).To(Succeed())
	web.Delete().Gone()
	w.Scrape(address)
	w.AwaitRightsUsed(harness.ControllerAccount, harness.ControllerRoles)
}
