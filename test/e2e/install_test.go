//go:build e2e && full

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// The first workspace of docs/install.md, and the pod that uses it, do what is said there; but no image can be pulled here.
func TestSamplesOfTheInstallation(t *testing.T) {
	w := newWorld(t)
	var objects strings.Builder
	for _, name := range []string{"workspace_empty.yaml", "pod.yaml"} {
		text, err := os.ReadFile(filepath.Join(env.root, "config/samples", name))
		w.Expect(err).NotTo(HaveOccurred())
		objects.WriteString("---\n" + string(text))
	}
	pods := strings.Replace(objects.String(), "image: debian:stable-slim", "image: "+nodes.ShellImage, 1)
	w.Expect(pods).NotTo(Equal(objects.String()))
	run := func(input string, args ...string) string {
		out, err := env.kube(t.Context(), input, append(args, "--namespace="+w.namespace)...)
		w.Expect(err).NotTo(HaveOccurred())
		return out
	}
	run(pods, "apply", "--filename=-")
	run("", "wait", "pod/empty-shell", "--for=condition=Ready", "--timeout="+patience.String())
	w.Expect(w.exec("empty-shell", "echo hello > /workspace/hello; cat /workspace/hello")).To(Equal("hello"))
	w.Expect(run("", "get", "workspaces")).To(MatchRegexp(`(?m)^empty +True +Running +node-a +5Gi `))
}
