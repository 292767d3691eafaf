//go:build e2e && full

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// A snapshot of a workspace in whose pod somebody writes is the beginning of a second one, on the other node.
func TestSnapshotAndSecondPod(t *testing.T) {
	w := newWorld(t)
	w.pod("first", w.workspace("web", env.a, empty()), "umask 077; mkdir -p tree; "+log)
	w.exec("first", "cd tree; "+write)
	w.create(&v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "lunch"},
		Spec:       v1.SnapshotSpec{WorkspaceName: "web", NodeName: env.a.Name, DeletionPolicy: v1.DeletionDelete},
	})
	var snapshot v1.Snapshot
	w.Eventually(func() (bool, error) {
		err := w.get(&snapshot, "lunch")
		return apimeta.IsStatusConditionTrue(snapshot.Status.Conditions, v1.ConditionReady), err
	}).Should(BeTrue(), func() string { return text(&snapshot.Status) })
	w.pod("second", w.workspace("again", env.b, v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "lunch"}}), idle)
	w.Expect(w.exec("second", "cd tree; "+list)).To(Equal(w.exec("first", "cd tree; "+list)))
	w.uninterrupted(w.exec("second", "cat log"))
	w.uninterrupted(w.exec("first", "cat log"))
	w.podRuns("first", 0)
}

// A kubelet that restarts disturbs no pod, and goes on with new ones.
func TestKubeletRestarted(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", env.b, empty())
	w.pod("first", ws, log)
	w.exec("first", write)
	_, err := env.b.Run(t.Context(), "old=$(pgrep -x kubelet); kill -KILL $old; until new=$(pgrep -x kubelet) && [[ $new != $old ]]; do sleep 0.1; done")
	w.Expect(err).NotTo(HaveOccurred())
	w.pod("second", ws, idle)
	w.podRuns("first", 0)
	w.uninterrupted(w.exec("first", "cat log"))
	const others = " | grep -v ./log"
	w.Expect(w.exec("second", "("+list+")"+others)).To(Equal(w.exec("first", "("+list+")"+others)))
}

// A workspace whose store cannot be reached while it stops keeps its content, and goes when the store is back.
func TestStoreDownDuringStop(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", env.b, empty())
	w.pod("first", ws, idle)
	w.exec("first", write)
	before := w.exec("first", list)
	dir := w.directory(ws)
	mend := w.cutStore(env.b)
	w.removePod("first")
	w.patch("web", `{"spec":{"state":"Stopped"}}`)
	w.condition("web", v1.ConditionFinalBackup, v1.ReasonStoreUnavailable)
	files, err := env.b.Run(t.Context(), "find "+dir+" -name blob")
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(strings.Fields(files)).To(HaveLen(1), "the content stays")
	mend(t.Context())
	w.await("web", "Stopped", nil)
	w.patch("web", fmt.Sprintf(`{"spec":{"state":"Running","nodeName":%q}}`, env.a.Name))
	w.pod("second", w.await("web", "Running", env.a), idle)
	w.Expect(w.exec("second", list)).To(Equal(before))
}

// condition waits until a condition of a workspace has a reason, and returns its message.
func (w *world) condition(name, kind, reason string) (message string) {
	w.t.Helper()
	var ws v1.Workspace
	w.Eventually(func() (string, error) {
		err := w.get(&ws, name)
		if c := apimeta.FindStatusCondition(ws.Status.Conditions, kind); c != nil {
			message = c.Message
			return c.Reason, err
		}
		return "", err
	}).Should(Equal(reason), func() string { return text(&ws.Status) })
	w.say("%s of workspace %s is %s", kind, name, reason)
	return message
}

// Two pods share a workspace, one of them without the driver. It waits for both before it stops.
func TestTwoPodsOnOneWorkspace(t *testing.T) {
	w := newWorld(t)
	w.pod("first", w.workspace("web", env.a, empty()), idle)
	ws := w.await("web", "Running", env.a)
	w.create(w.hostPathPod("second", ws, idle))
	w.podRuns("second", 0)
	w.exec("first", write)
	w.exec("second", "echo hello >from-second")
	before := w.exec("first", list)
	w.Expect(w.exec("second", list)).To(Equal(before))
	w.patch("web", `{"spec":{"state":"Stopped"}}`)
	w.removePod("first")
	w.condition("web", v1.ConditionFinalBackup, v1.ReasonWaitingForPods)
	w.Expect(w.exec("second", list)).To(Equal(before), "its content is not taken away")
	w.removePod("second")
	w.await("web", "Stopped", nil)
	w.patch("web", fmt.Sprintf(`{"spec":{"state":"Running","nodeName":%q}}`, env.b.Name))
	w.pod("third", w.await("web", "Running", env.b), idle)
	w.Expect(w.exec("third", list)).To(Equal(before))
}

// hostPathPod has a workspace that runs without the driver: a label tells the daemon who uses it.
func (w *world) hostPathPod(name string, ws *v1.Workspace, script string) *corev1.Pod {
	directory := corev1.HostPathDirectory
	pod := w.newPod(name, ws.Spec.NodeName, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: ws.Status.Volume.Path, Type: &directory}}, script)
	pod.Labels = map[string]string{v1.LabelWorkspace: ws.Name}
	return pod
}

// A pod that is deleted by force is gone from the API server before its processes are from the node. All the same, nothing is lost that they
// write until their end.
func TestPodDeletedByForce(t *testing.T) {
	w := newWorld(t)
	for name, way := range map[string][2]*nodes.Node{"lvm": {env.a, env.b}, "xfs": {env.b, env.a}} {
		w.pod(name, w.workspace(name, way[0], empty()), "trap 'sleep 2; echo last >last; exit' TERM; "+asleep)
		w.exec(name, write)
		before := w.exec(name, list)
		_, err := env.kube(t.Context(), "", "delete", "pod", name, "--namespace="+w.namespace, "--force", "--grace-period=0")
		w.Expect(err).NotTo(HaveOccurred())
		w.patch(name, `{"spec":{"state":"Stopped"}}`)
		w.await(name, "Stopped", nil)
		w.patch(name, fmt.Sprintf(`{"spec":{"state":"Running","nodeName":%q}}`, way[1].Name))
		w.pod(name+"-again", w.await(name, "Running", way[1]), idle)
		w.Expect(w.exec(name+"-again", "cat last; rm last; "+list)).To(Equal("last\n" + before))
	}
}

// A node that is drained is safe to remove once all that its pods had written is in the store, however long that takes.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", env.b, empty())
	w.pod("first", ws, idle)
	w.exec("first", write)
	before, dir := w.exec("first", list), w.directory(ws)
	mend := w.cutStore(env.b)
	w.cleanup(func(ctx context.Context) { w.uncordon(ctx, env.b) })
	_, err := env.kube(t.Context(), "", "drain", env.b.Name, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout="+patience.String())
	w.Expect(err).NotTo(HaveOccurred())
	w.operation("web", v1.OperationBackup)
	w.safeToRemove(env.b, "false")
	mend(t.Context())
	w.safeToRemove(env.b, "true")
	w.patch("web", fmt.Sprintf(`{"spec":{"nodeName":%q,"fencedNode":%q}}`, env.a.Name, env.b.Name))
	w.pod("second", w.await("web", "Running", env.a), idle)
	w.Expect(w.exec("second", list)).To(Equal(before))
	w.uncordon(t.Context(), env.b)
	w.gone(env.b, dir)
}

// safeToRemove waits until a node says whether it may go.
func (w *world) safeToRemove(n *nodes.Node, is string) {
	w.t.Helper()
	_, err := env.kube(w.t.Context(), "", "wait", "workspacenode/"+n.Name, "--for=condition=SafeToRemove="+is, "--timeout="+patience.String())
	w.Expect(err).NotTo(HaveOccurred())
	w.say("%s is safe to remove: %s", n.Name, is)
}

func (w *world) uncordon(ctx context.Context, n *nodes.Node) {
	w.t.Helper()
	_, err := env.kube(ctx, "", "uncordon", n.Name)
	w.Expect(err).NotTo(HaveOccurred())
}

// A backup of a workspace in which a pod writes has all that does not change, and of what grows a beginning.
func TestBackupWhileAPodWrites(t *testing.T) {
	w := newWorld(t)
	for name, n := range map[string]*nodes.Node{"on-lvm": env.a, "on-xfs": env.b} {
		w.pod(name, w.workspace(name, n, empty()), "umask 077; mkdir -p tree; "+log)
		w.exec(name, "cd tree; "+write)
		w.backup(name, "while it writes")
		backup := w.restore(name)
		w.Expect(w.here(backup, "cd tree; "+list)).To(Equal(w.exec(name, "cd tree; "+list)))
		w.uninterrupted(w.here(backup, "cat log"))
		w.uninterrupted(w.exec(name, "cat log"))
	}
}

// The kubelet tells the bytes and inodes of a pod's workspace.
func TestUsageAtTheKubelet(t *testing.T) {
	w := newWorld(t)
	for name, n := range map[string]*nodes.Node{"on-lvm": env.a, "on-xfs": env.b} {
		w.pod(name, w.workspace(name, n, empty()), idle)
		w.exec(name, write)
		w.Eventually(func() (string, error) {
			out, err := env.kube(t.Context(), "", "get", "--raw", "/api/v1/nodes/"+n.Name+"/proxy/stats/summary")
			if err != nil {
				return "", err
			}
			return usage(out, w.namespace, name)
		}).Should(MatchRegexp(`^capacity of \d{9} bytes, \d{7} used, \d+ inodes, 4[78] used$`))
	}
}

// usage finds the usage of a pod's workspace in a kubelet's summary.
func usage(summary, namespace, pod string) (string, error) {
	var all struct {
		Pods []struct {
			PodRef  struct{ Namespace, Name string }
			Volumes []struct {
				Name                                         string
				CapacityBytes, UsedBytes, Inodes, InodesUsed int64
			} `json:"volume"`
		}
	}
	if err := json.Unmarshal([]byte(summary), &all); err != nil {
		return "", err
	}
	for _, p := range all.Pods {
		for _, v := range p.Volumes {
			if p.PodRef.Namespace == namespace && p.PodRef.Name == pod && v.Name == "workspace" {
				return fmt.Sprintf("capacity of %d bytes, %d used, %d inodes, %d used", v.CapacityBytes, v.UsedBytes, v.Inodes, v.InodesUsed), nil
			}
		}
	}
	return "", nil
}
