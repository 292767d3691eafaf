//go:build e2e && full

package e2e

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// A pod that cannot have its workspace has an event that says why, and what to do.
func TestPodsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	w.workspace("foreign", env.b, empty())
	w.workspace("stopped", env.a, empty())
	w.patch("stopped", `{"spec":{"state":"Stopped"}}`)
	w.workspace("failed", env.a, v1.Initializer{Git: &v1.GitInitializer{URL: outside(env.git.URL) + "/nobody.git"}})
	for name, tt := range map[string]struct{ workspace, attribute, want string }{
		"missing":   {"nobody", v1.CSIAttributeWorkspace, "does not exist: create it, or correct"},
		"foreign":   {"foreign", v1.CSIAttributeWorkspace, "belongs to node " + env.b.Name + " and this pod is on node " + env.a.Name},
		"stopped":   {"stopped", v1.CSIAttributeWorkspace, "is stopped: set its spec.state to Running"},
		"failed":    {"failed", v1.CSIAttributeWorkspace, "cannot be used: CloneFailed: "},
		"attribute": {"stopped", "workspase", `"workspase" is not known, only "workspace": remove it`},
	} {
		w.create(w.newPod(name, env.a.Name, volume(tt.attribute, tt.workspace), idle))
		w.told(tt.want)
		w.removePod(name)
	}
}

// told waits until an event has some words.
func (w *world) told(words string) {
	w.t.Helper()
	w.Eventually(w.events).Should(ContainElement(ContainSubstring(words)))
	w.say("an event says %q", words)
}

// A workspace that is deleted under a pod stays until the pod has ended, and no other pod gets it.
func TestWorkspaceDeletedUnderAPod(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", env.a, empty())
	w.pod("first", ws, idle)
	w.exec("first", write)
	before := w.exec("first", list)
	w.Expect(env.client.Delete(t.Context(), ws)).To(Succeed())
	w.condition("web", v1.ConditionFinalBackup, v1.ReasonWaitingForPods)
	w.create(w.newPod("second", env.a.Name, volume(v1.CSIAttributeWorkspace, "web"), idle))
	w.told("is being deleted")
	w.Expect(w.exec("first", list)).To(Equal(before))
	w.removePod("second")
	w.removePod("first")
	w.remove(ws)
}

// A workspace for a node that never was says so, and goes when it is deleted.
func TestUnknownNode(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", &nodes.Node{Name: "node-z"}, empty())
	w.condition("web", v1.ConditionNodeGone, v1.ReasonNodeNotFound)
	w.remove(ws)
}

// A node without its volume group says so in each workspace, and begins when it has it again.
func TestVolumeGroupMissing(t *testing.T) {
	w := newWorld(t)
	w.settle()
	w.rename(t.Context(), "ws", "away")
	w.cleanup(func(ctx context.Context) {
		if _, err := env.a.Run(ctx, "vgs ws"); err != nil {
			w.rename(ctx, "away", "ws")
		}
	})
	ws := w.workspace("web", env.a, empty())
	w.Expect(w.condition("web", v1.ConditionVolumeReady, v1.ReasonVolumeGroupNotFound)).To(ContainSubstring(`"ws"`))
	w.rename(t.Context(), "away", "ws")
	w.pod("shell", ws, idle)
	w.Expect(w.exec("shell", "echo hello >file; cat file")).To(Equal("hello"))
}

// rename gives the volume group of node-a another name.
func (w *world) rename(ctx context.Context, from, to string) {
	w.t.Helper()
	out, err := env.a.Run(ctx, "vgrename "+from+" "+to)
	w.Expect(err).NotTo(HaveOccurred(), out)
}
