package deployment

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// objects parses manifests.
func objects(t *testing.T, manifests []byte) []unstructured.Unstructured {
	t.Helper()
	var all []unstructured.Unstructured
	for part := range bytes.SplitSeq(manifests, []byte("\n---\n")) {
		o := unstructured.Unstructured{}
		NewWithT(t).Expect(yaml.Unmarshal(part, &o.Object)).To(Succeed())
		all = append(all, o)
	}
	return all
}

// nameOf says which object it is.
func nameOf(o unstructured.Unstructured) string { return o.GetKind() + " " + o.GetName() }

// makefile runs a target of the Makefile against the API server.
func makefile(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"--no-print-directory", "-C", root}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+api.Kubeconfig(), "KUBECTL="+kubectl)
	out, err := cmd.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "make %q: %s", args, out)
	return string(out)
}

func TestSamplesAreAccepted(t *testing.T) {
	g := NewWithT(t)
	mustRun(t, "create", "namespace", "samples")
	// Strict validation also refuses fields that the CRDs do not know.
	out := mustRun(t, "-n", "samples", "apply", "--server-side", "--validate=strict", "-k", filepath.Join(root, "config/samples"))
	g.Expect(out).To(ContainSubstring("workspace.workspace.wsdaemon.dev/empty serverside-applied"))
	g.Expect(out).NotTo(ContainSubstring("Warning"))
}

// Whatever can be deployed in place of the default is accepted as well.
func TestVariantsAreAccepted(t *testing.T) {
	for _, directory := range []string{
		"config/samples/store/s3", "config/samples/store/gcs", "config/samples/volumes/lvm", "config/samples/volumes/quota",
	} {
		t.Run(directory, func(t *testing.T) {
			out := mustRun(t, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", filepath.Join(root, directory))
			NewWithT(t).Expect(out).NotTo(ContainSubstring("Warning"))
		})
	}
}

// The installer is what `make deploy` applies: every container has the image, and no name of another one is left.
func TestInstallerDeploysAndUndeployKeepsData(t *testing.T) {
	g := NewWithT(t)
	const image = "registry.example.com/team/ws-daemon:v1.2.3"
	file := filepath.Join(t.TempDir(), "made", "install.yaml")
	makefile(t, "build-installer", "IMG="+image, "INSTALLER="+file)
	text, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	images := regexp.MustCompile(`(?m)^ +image: (.+)$`).FindAllStringSubmatch(string(text), -1)
	g.Expect(images).NotTo(BeEmpty())
	for _, found := range images {
		g.Expect(found[1]).To(Equal(image))
	}

	mustRun(t, "create", "namespace", "kept")
	mustRun(t, "-n", "kept", "apply", "-f", filepath.Join(root, "config/samples/workspace_empty.yaml"))
	mustRun(t, "-n", system, "create", "secret", "generic", "ws-daemon-store", "--from-literal=secret-access-key=x")
	mustRun(t, "-n", system, "create", "configmap", "ws-daemon-config-earlier")
	mustRun(t, "-n", system, "create", "configmap", "another")
	deployed := makefile(t, "deploy", "IMG="+image)
	for _, o := range objects(t, text) {
		g.Expect(strings.ToLower(deployed)).To(ContainSubstring("/"+strings.ToLower(o.GetName())+" serverside-applied"), nameOf(o))
	}
	g.Expect(mustRun(t, "-n", system, "get", "daemonset", "ws-daemon", "-o", "jsonpath={.spec.template.spec.containers[*].image}")).To(Equal(image))

	g.Expect(makefile(t, "undeploy")).To(ContainSubstring("The CRDs, all objects and the namespace ws-daemon-system stay."))
	for _, o := range objects(t, text) {
		kind := o.GroupVersionKind()
		args := []string{"get", kind.Kind + "." + kind.Version + "." + kind.Group, o.GetName(), "--ignore-not-found", "-o", "name"}
		if o.GetNamespace() != "" {
			args = append(args, "-n", o.GetNamespace())
		}
		stays := slices.Contains([]string{"CustomResourceDefinition", "Namespace"}, o.GetKind())
		g.Expect(mustRun(t, args...) != "").To(Equal(stays), nameOf(o))
	}
	g.Expect(mustRun(t, "-n", system, "get", "configmaps", "-o", "name")).
		To(And(ContainSubstring("configmap/another\n"), Not(ContainSubstring("configmap/ws-daemon-config"))), "nor those of earlier configurations")
	mustRun(t, "-n", system, "delete", "configmap", "another")
	g.Expect(mustRun(t, "-n", "kept", "get", "workspaces", "-o", "name")).To(Equal("workspace.workspace.wsdaemon.dev/empty\n"))
	g.Expect(mustRun(t, "-n", system, "get", "secret", "ws-daemon-store", "-o", "name")).To(Equal("secret/ws-daemon-store\n"))

	out, err := exec.CommandContext(t.Context(), "env", "KUBECONFIG="+api.Kubeconfig(), "KUBECTL="+kubectl, filepath.Join(root, "hack/uninstall.sh")).CombinedOutput()
	g.Expect(err).To(HaveOccurred())
	g.Expect(string(out)).To(ContainSubstring("workspaces: delete them first, and wait until they are gone"))
	g.Expect(deploy(t.Context())).To(Succeed(), "for the other tests")
}
