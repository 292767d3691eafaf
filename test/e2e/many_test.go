//go:build e2e && full

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// A pod with a new workspace runs little later than the same pod with an empty directory: at most 3 s. Where every instruction is emulated,
// a pod takes several seconds by itself; there, a workspace may take twice as long as that.
func TestStartBesideEmptyDir(t *testing.T) {
	const rounds = 10
	w := newWorld(t)
	w.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	for kind, n := range map[string]*nodes.Node{"lvm": env.a, "xfs": env.b} {
		var with, without []time.Duration
		for i := range rounds {
			with = append(with, w.start(fmt.Sprintf("%s-%d", kind, i), n, true))
			without = append(without, w.start(fmt.Sprintf("%s-empty-%d", kind, i), n, false))
		}
		slices.Sort(with)
		slices.Sort(without)
		more := with[rounds/2] - without[rounds/2]
		w.say("%s: with a workspace %s, with an empty directory %s: %s more (medians of %d)", kind, with[rounds/2], without[rounds/2], more, rounds)
		w.Expect(more).To(BeNumerically("<=", max(3*time.Second, 2*without[rounds/2])), kind)
	}
}

// start returns how long it takes from the first object to a running container. All of it is removed.
func (w *world) start(name string, n *nodes.Node, workspace bool) time.Duration {
	w.t.Helper()
	var ws *v1.Workspace
	source := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	began := time.Now()
	if workspace {
		ws = w.workspace(name, n, empty())
		source = volume(v1.CSIAttributeWorkspace, name)
	}
	w.create(w.newPod(name, n.Name, source, idle))
	w.podRuns(name, 0)
	took := time.Since(began)
	w.removePod(name)
	if workspace {
		w.remove(ws)
	}
	return took
}

// Thirty workspaces with pods run beside each other on a node, and nothing of them stays.
func TestThirtyWorkspaces(t *testing.T) {
	for _, n := range []*nodes.Node{env.a, env.b} {
		w := newWorld(t)
		w.SetDefaultEventuallyTimeout(3 * patience) // all of them begin at once
		w.settle()
		w.removeMany(w.runMany(n, 1)) // the first one of a node brings what stays for the others
		before := w.inventory(n)
		all := w.runMany(n, 30)
		w.say("%d pods run on %s", len(all), n.Name)
		w.Expect(w.inventory(n)).To(ContainElement(ContainSubstring(string(all[0].UID))), "else nothing would be found")
		w.removeMany(all)
		w.Eventually(func() []string {
			return slices.DeleteFunc(w.inventory(n), func(line string) bool { return slices.Contains(before, line) })
		}).Should(BeEmpty())
	}
}

// removeMany ends the pods, and removes their workspaces once they have stopped.
func (w *world) removeMany(all []*v1.Workspace) {
	w.t.Helper()
	w.Expect(env.client.DeleteAllOf(w.t.Context(), &corev1.Pod{}, client.InNamespace(w.namespace))).To(Succeed())
	for _, ws := range all {
		w.await(ws.Name, "Stopped", nil)
	}
	for _, ws := range all {
		w.remove(ws)
		w.removePod(ws.Name) // its name is free
	}
}

// runMany runs a pod in each of many new workspaces, and has them stop when their pods end.
func (w *world) runMany(n *nodes.Node, many int) []*v1.Workspace {
	w.t.Helper()
	all := make([]*v1.Workspace, 0, many)
	for i := range many {
		ws := w.workspace(fmt.Sprintf("web-%d", i), n, empty())
		w.create(w.newPod(ws.Name, n.Name, volume(v1.CSIAttributeWorkspace, ws.Name), "echo $HOSTNAME >who; "+idle))
		all = append(all, ws)
	}
	for _, ws := range all {
		w.podRuns(ws.Name, 0)
	}
	for _, ws := range all {
		w.Expect(w.exec(ws.Name, "cat who")).To(Equal(ws.Name))
		w.patch(ws.Name, `{"spec":{"state":"Stopped"}}`)
	}
	return all
}

// inventory lists what workspaces and pods leave on a node if they leave something.
const inventory = `
	findmnt --raw --noheadings --output TARGET | grep -E '^/var/lib/ws-daemon/|kubernetes.io~csi' | sort || true
	find /var/lib/ws-daemon -mindepth 1 -maxdepth 3 | sort
	! mountpoint --quiet /mnt/workspaces || find /mnt/workspaces -mindepth 1 -maxdepth 2 | sort
	ls -d /var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/* 2>/dev/null || true
	ls -A /var/lib/kubelet/plugins /var/lib/kubelet/plugins/workspace.wsdaemon.dev /var/lib/kubelet/plugins_registry
	! vgs ws >/dev/null 2>&1 || LVM_SUPPRESS_FD_WARNINGS=1 lvs --noheadings --options lv_name ws
	! mountpoint --quiet /mnt/workspaces || xfs_quota -x -c 'report -p -n -N' /mnt/workspaces | awk '{print $1}'`

func (w *world) inventory(n *nodes.Node) []string {
	w.t.Helper()
	out, err := n.Run(w.t.Context(), inventory)
	w.Expect(err).NotTo(HaveOccurred())
	return strings.Split(out, "\n")
}

// settle waits until what earlier tests have removed is gone.
func (w *world) settle() {
	w.t.Helper()
	w.Eventually(func() (going []string, err error) {
		var list corev1.NamespaceList
		err = env.client.List(w.t.Context(), &list)
		for i := range list.Items {
			if !list.Items[i].DeletionTimestamp.IsZero() {
				going = append(going, list.Items[i].Name)
			}
		}
		return going, err
	}).Should(BeEmpty())
}
