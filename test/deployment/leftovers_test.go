package deployment

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// ofInstalling is the command of docs/install.md that has a word in it.
func ofInstalling(t *testing.T, word string) string {
	t.Helper()
	for _, command := range typed(t, "install.md", "kubectl") {
		if strings.Contains(command, word) {
			return command
		}
	}
	t.Fatalf("docs/install.md has no command with %q", word)
	return ""
}

// typeIn does what a person does who types a command; it may complain.
func typeIn(t *testing.T, command string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", "-c", command)
	c.Env = append(os.Environ(), "KUBECONFIG="+api.Kubeconfig(), "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	out, _ := c.CombinedOutput()
	return string(out)
}

// What the document has somebody type takes the marks of daemons from Nodes, and leaves those of others.
func TestMarksOnNodesGo(t *testing.T) {
	g := NewWithT(t)
	const theirs, ours, taint = "cluster-autoscaler.kubernetes.io/scale-down-disabled", "workspace.wsdaemon.dev/scale-down-disabled", "workspace.wsdaemon.dev/disk-pressure"
	manifest := []byte(`{"apiVersion": "v1", "kind": "List", "items": [
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bare"}},
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "left", "annotations": {"` + theirs + `": "true", "` + ours + `": "true"}},
 "spec": {"taints": [{"key": "` + taint + `", "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]}},
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "protected", "annotations": {"` + theirs + `": "true"}}}]}`)
	out, err := run(t.Context(), manifest, "create", "-f", "-")
	g.Expect(err).NotTo(HaveOccurred(), out)
	defer mustRun(t, "delete", "node", "bare", "left", "protected")
	typeIn(t, ofInstalling(t, "kubectl taint"))
	out = typeIn(t, ofInstalling(t, "kubectl annotate"))
	of := func(node string) string {
		return mustRun(t, "get", "node", node, "-o", "jsonpath={.metadata.annotations.*} {.spec.taints[*].key}")
	}
	g.Expect(of("left")).To(And(ContainSubstring("other"), Not(ContainSubstring(taint)), Not(ContainSubstring("true"))), out)
	g.Expect(of("protected")).To(ContainSubstring("true"))
}

// What the document has somebody type leaves the configuration that is deployed.
func TestEarlierConfigurationsGo(t *testing.T) {
	g := NewWithT(t)
	const names = "-o=name"
	before := mustRun(t, "-n", system, "get", "configmaps", names)
	mustRun(t, "-n", system, "create", "configmap", "ws-daemon-config-earlier")
	out := typeIn(t, ofInstalling(t, "get configmaps"))
	g.Expect(out).To(ContainSubstring("ws-daemon-config-earlier"))
	g.Expect(mustRun(t, "-n", system, "get", "configmaps", names)).To(Equal(before))
	g.Expect(before).To(ContainSubstring("configmap/ws-daemon-config-"))
}
