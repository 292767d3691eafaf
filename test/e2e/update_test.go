//go:build e2e

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// log is what a pod does that writes a number a line, for as long as that works.
const log = `trap exit TERM; i=0; while echo $i >>log && tail -n 1 log >/dev/null; do i=$((i + 1)); sleep 0.1; done; exit 1`

// The daemons are replaced while pods write and backups are made, and no pod notices.
func TestRollingUpdate(t *testing.T) {
	w := newWorld(t)
	next := *image + "-next"
	pods := map[string]*nodes.Node{"on-lvm": env.a, "on-xfs": env.b}
	before, mounts := map[string]string{}, map[string]string{}
	for name, n := range pods {
		ws := w.workspace(name, n, empty())
		w.pod(name, ws, "umask 077; mkdir -p tree; "+log)
		w.exec(name, "cd tree; "+write)
		before[name], mounts[name] = w.exec(name, "cd tree; "+list), w.exec(name, "grep "+inside+" /proc/self/mountinfo")
		_, err := n.Run(t.Context(), "/vm/node/bin/ctr --namespace k8s.io images tag docker.io/library/"+*image+" docker.io/library/"+next)
		w.Expect(err).NotTo(HaveOccurred())
	}
	const trigger = "while the daemon is replaced"
	mend := w.cutStore(env.a, env.b)
	for name := range pods {
		w.patch(name, fmt.Sprintf(`{"spec":{"backup":{"trigger":%q}}}`, trigger))
	}
	for name := range pods {
		w.operation(name, v1.OperationBackup)
	}
	w.Expect(env.deploy(t.Context(), next)).To(Succeed())
	mend(t.Context())
	w.Expect(env.rolledOut(t.Context())).To(Succeed())
	w.say("the daemons were replaced")
	for name := range pods {
		w.backedUp(name, trigger)
		w.podRuns(name, 0)
		w.Expect(w.exec(name, "grep "+inside+" /proc/self/mountinfo")).To(Equal(mounts[name]), "nothing was mounted again")
		w.Expect(w.exec(name, "cd tree; "+list)).To(Equal(before[name]))
		w.uninterrupted(w.exec(name, "cat log"))
		backup := w.restore(name)
		w.Expect(w.here(backup, "cd tree; "+list)).To(Equal(before[name]))
		w.uninterrupted(w.here(backup, "cat log"))
	}
}

// operation waits until work of a kind goes on in a workspace.
func (w *world) operation(name string, kind v1.OperationType) {
	w.t.Helper()
	var ws v1.Workspace
	w.Eventually(func() (*v1.OperationStatus, error) {
		err := w.get(&ws, name)
		return ws.Status.Operation, err
	}).Should(HaveValue(HaveField("Type", kind)), func() string { return text(&ws.Status) })
	w.say("%s of workspace %s goes on", kind, name)
}

// uninterrupted expects a log without a gap.
func (w *world) uninterrupted(log string) {
	w.t.Helper()
	lines := strings.Fields(log)
	w.Expect(len(lines)).To(BeNumerically(">", 10))
	for i, line := range lines {
		w.Expect(line).To(Equal(strconv.Itoa(i)))
	}
	w.say("the writer has written %d lines", len(lines))
}
