//go:build vm

package volumes

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

// The data of a thin pool fill up by what workspaces write, then its metadata: templates go, new workspaces are refused, the node is
// tainted, and those that are there go on. When there is room again, all of that ends.
func TestFullPool(t *testing.T) {
	if !onLVM() {
		return // no other disk has a pool
	}
	w := newWorld(t)
	w.metadata = "2m" // fewer are full sooner
	n := w.node("a", func(c *config.Config) { c.Node.TaintUnderPressure = true })
	w.workspace("web", n, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	web := w.await("web", "Running")
	w.write(web, "hello > greeting")
	w.snapshot("first", "web", n)
	w.workspace("one", n, v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "first"}})
	one := w.await("one", "Running")
	n.pressure("False/EnoughRoom", "")
	w.Expect(n.templates()).To(HaveLen(1))

	for n.pool("data_percent") < 87 {
		for _, ws := range []*v1.Workspace{web, one} {
			w.must(ws, "head -c 12M /dev/zero >> large && sync large")
		}
	}
	w.say("%.1f %% of the pool's data are in use", n.pool("data_percent"))
	n.pressure("True/ThinData", "class default takes no new workspaces: its disk has ")
	w.Eventually(n.templates).Should(BeEmpty())
	w.Eventually(n.events).Should(ContainElement("Evicted: volume class default: 1 caches went because their room was needed"))
	w.Eventually(n.tainted).Should(BeTrue())
	w.workspace("late", n, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	late := w.await("late", "InsufficientCapacity")
	w.Expect(apimeta.FindStatusCondition(late.Status.Conditions, v1.ConditionReady).Message).To(ContainSubstring("of its data blocks in use"))
	w.Expect(late.Status.NodeName).To(BeEmpty(), "it may go to another node")
	w.backup("web", "on-a-full-pool")

	for _, ws := range []*v1.Workspace{web, one} {
		w.must(ws, "rm large && sync .")
	}
	n.pressure("False/EnoughRoom", "")
	w.say("%.1f %% of the pool's data are in use", n.pool("data_percent"))
	w.Eventually(n.tainted).Should(BeFalse())
	w.await("late", "Running")

	n.fillMetadata(82)
	n.pressure("True/ThinMetadata", "of its metadata blocks in use (the limit is 80 %, and it holds until 70 %)")
	w.Eventually(n.tainted).Should(BeTrue())
	w.workspace("later", n, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	w.await("later", "InsufficientCapacity")
	w.backup("web", "on-full-metadata")
	n.emptyMetadata()
	n.pressure("False/EnoughRoom", "")
	w.await("later", "Running")
	for _, name := range []string{"web", "one", "late", "later"} {
		w.remove(name)
	}
	w.Eventually(n.volumes).Should(BeEmpty())
}

// pressure waits until the node's DiskPressure is as wanted and says so.
func (n *node) pressure(want, says string) {
	n.w.t.Helper()
	n.w.Eventually(func(g Gomega) {
		var report v1.WorkspaceNode
		g.Expect(n.w.client.Get(n.w.t.Context(), client.ObjectKey{Name: n.name}, &report)).To(Succeed())
		c := apimeta.FindStatusCondition(report.Status.Conditions, v1.ConditionDiskPressure)
		g.Expect(c).NotTo(BeNil())
		g.Expect(string(c.Status)+"/"+c.Reason).To(Equal(want), c.Message)
		g.Expect(c.Message).To(ContainSubstring(says))
	}).Should(Succeed())
	n.w.say("DiskPressure is %s", want)
}

// tainted says whether the Node keeps pods off.
func (n *node) tainted() (bool, error) {
	var node corev1.Node
	err := n.w.client.Get(n.w.t.Context(), client.ObjectKey{Name: n.name}, &node)
	for _, t := range node.Spec.Taints {
		if t.Key == v1.TaintDiskPressure && t.Effect == corev1.TaintEffectNoSchedule {
			return true, err
		}
	}
	return false, err
}

// events returns what was said of the node, as "Reason: message".
func (n *node) events() ([]string, error) {
	var list eventsv1.EventList
	err := n.w.client.List(n.w.t.Context(), &list, client.InNamespace("default"))
	var lines []string
	for i := range list.Items {
		if e := &list.Items[i]; e.Regarding.Name == n.name {
			lines = append(lines, e.Reason+": "+e.Note)
		}
	}
	return lines, err
}

// templates lists the node's templates.
func (n *node) templates() []string {
	out, err := exec.CommandContext(n.w.t.Context(), "lvs", "--noheadings", "--options", "lv_name", "--select", "tags=wsdaemon.template", n.name).Output()
	n.w.Expect(err).NotTo(HaveOccurred())
	return strings.Fields(string(out))
}

// pool returns a percentage of the node's pool.
func (n *node) pool(field string) float64 {
	out, err := exec.CommandContext(n.w.t.Context(), "lvs", "--noheadings", "--options", field, n.name+"/pool").Output()
	n.w.Expect(err).NotTo(HaveOccurred())
	percent, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	n.w.Expect(err).NotTo(HaveOccurred())
	return percent
}

// firstThin is far from the ids that LVM gives to thin volumes.
const firstThin = 1_000_000

// fillMetadata makes thin volumes that LVM does not know until so many percent of the pool's metadata are in use: each takes a block.
func (n *node) fillMetadata(percent float64) {
	for n.pool("metadata_percent") < percent {
		for range 25 {
			n.message("create_thin", firstThin+n.thin)
			n.thin++
		}
	}
	n.w.say("%.1f %% of the pool's metadata are in use", n.pool("metadata_percent"))
}

// emptyMetadata removes them.
func (n *node) emptyMetadata() {
	for n.thin > 0 {
		n.thin--
		n.message("delete", firstThin+n.thin)
	}
	n.w.say("%.1f %% of the pool's metadata are in use", n.pool("metadata_percent"))
}

func (n *node) message(what string, id int) {
	name := strings.ReplaceAll(n.name, "-", "--") + "-pool-tpool"
	volumetest.Program(n.w.t, "dmsetup", "message", name, "0", fmt.Sprintf("%s %d", what, id))
}

// must runs a command in a workspace as its owner.
func (w *world) must(ws *v1.Workspace, script string) {
	w.t.Helper()
	out, err := w.as(ws, script)
	w.Expect(err).NotTo(HaveOccurred(), out)
}

// backup waits until a backup that is asked for has been made.
func (w *world) backup(name, trigger string) {
	w.t.Helper()
	w.patch(name, fmt.Sprintf(`{"spec":{"backup":{"trigger":%q}}}`, trigger))
	var ws v1.Workspace
	w.Eventually(func() (*v1.BackupStatus, error) {
		err := w.get(&ws, name)
		return ws.Status.Backup, err
	}).Should(HaveValue(HaveField("Trigger", trigger)), func() string { return status(&ws) })
	w.say("backup %s of %s has %d files", ws.Status.Backup.Latest.Name, name, ws.Status.Backup.Latest.Files)
}

// snapshot makes one of a workspace.
func (w *world) snapshot(name, workspace string, n *node) {
	w.t.Helper()
	w.create(&v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: v1.SnapshotSpec{WorkspaceName: workspace, NodeName: n.name},
	})
	var snapshot v1.Snapshot
	w.Eventually(func() (bool, error) {
		err := w.get(&snapshot, name)
		return apimeta.IsStatusConditionTrue(snapshot.Status.Conditions, v1.ConditionReady), err
	}).Should(BeTrue())
	w.say("snapshot %s is ready", name)
}
