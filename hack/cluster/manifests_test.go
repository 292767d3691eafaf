package cluster_test

import (
	"os/exec"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/cluster"
)

// kubectl gives a function that runs it as the cluster's administrator and returns what it prints.
func kubectl(t *testing.T, c *cluster.Cluster) func(args ...string) string {
	t.Helper()
	tools, err := cluster.FindTools(t.Context(), t.Output(), cluster.Kubectl)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return func(args ...string) string {
		t.Helper()
		args = append([]string{"--kubeconfig", c.Kubeconfig()}, args...)
		out, err := exec.CommandContext(t.Context(), tools[cluster.Kubectl], args...).CombinedOutput()
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s", out)
		return string(out)
	}
}

func TestManifestsAndSamplesAreAccepted(t *testing.T) {
	g := NewWithT(t)
	c := start(t, cluster.Options{})
	run := kubectl(t, c)

	run("apply", "--server-side", "-k", "../../config/crd")
	g.Expect(c.WaitCRDs(t.Context(), "workspaces.workspace.wsdaemon.dev", "snapshots.workspace.wsdaemon.dev")).To(Succeed())
	run("apply", "--server-side", "-k", "../../config/default")
	g.Expect(run("-n", "ws-daemon-system", "get", "daemonset,configmap", "-o", "name")).
		To(And(ContainSubstring("daemonset.apps/ws-daemon\n"), ContainSubstring("configmap/ws-daemon-config-")))

	run("create", "namespace", "samples")
	// Strict validation also refuses fields that the CRDs do not know.
	out := run("-n", "samples", "apply", "--server-side", "--validate=strict", "-k", "../../config/samples")
	g.Expect(out).To(ContainSubstring("workspace.workspace.wsdaemon.dev/empty serverside-applied"))
	g.Expect(out).NotTo(ContainSubstring("Warning"))
}
