package deployment

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// overlay renders a kustomization of somebody's own above config/default.
func overlay(t *testing.T, settings string) []unstructured.Unstructured {
	t.Helper()
	g := NewWithT(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	base, err := filepath.Abs(filepath.Join(root, "config/default"))
	g.Expect(err).NotTo(HaveOccurred())
	base, err = filepath.Rel(dir, base)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: ["+base+"]\n"+settings+"\n"), 0o600)).To(Succeed())
	return objects(t, []byte(mustRun(t, "kustomize", dir)))
}

// Whoever deploys into another namespace, or under other names, is protected like everybody: the policies apply to the service accounts that
// his kustomization makes.
func TestS4_PoliciesFollowAnOverlay(t *testing.T) {
	admin := connect(t, api.Config())
	namespace(t, admin, "own")
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "theirs"},
		Spec:       v1.WorkspaceSpec{NodeName: "node-a", Volume: v1.VolumeSpec{Size: resource.MustParse("1Gi")}},
	}
	NewWithT(t).Expect(admin.Create(t.Context(), ws)).To(Succeed())
	for settings, accounts := range map[string][]string{
		"namespace: elsewhere":                      {"ws-daemon", "ws-daemon-controller"},
		"namespace: another\nnamePrefix: dev-east-": {"dev-east-ws-daemon", "dev-east-ws-daemon-controller"},
	} {
		t.Run(settings, func(t *testing.T) {
			g := NewWithT(t)
			policies, made := map[string]any{}, []string{}
			for _, o := range overlay(t, settings) {
				switch o.GetKind() {
				case "ServiceAccount":
					made = append(made, o.GetName())
					g.Expect(refusalOf(t, admin, o.GetNamespace(), o.GetName(), ws)).To(ContainSubstring("ValidatingAdmissionPolicy 'ws-daemon-"), o.GetName())
				case "ValidatingAdmissionPolicy":
					policies[strings.TrimPrefix(o.GetName(), "dev-east-")] = o.Object["spec"]
				}
			}
			g.Expect(made).To(ConsistOf(accounts))
			for _, o := range objects(t, []byte(mustRun(t, "kustomize", filepath.Join(root, "config/admission")))) {
				if o.GetKind() == "ValidatingAdmissionPolicy" {
					g.Expect(policies).To(HaveKeyWithValue(o.GetName(), o.Object["spec"]), "what is tried here is what the overlay has")
				}
			}
		})
	}
}

// refusalOf returns what a service account is told that has all rights, and tries to give a workspace of a node to another one.
func refusalOf(t *testing.T, admin client.Client, in, name string, ws *v1.Workspace) string {
	t.Helper()
	g := NewWithT(t)
	_, access, err := api.AddPod(t.Context(), in, name, name, "node-b")
	g.Expect(err).NotTo(HaveOccurred())
	thief := connect(t, access)
	mayDoAnything(t, admin, in, name)
	awaitAnything(t, thief, nobodys()[:1]...)
	err = merge(ws, `{"spec":{"nodeName":"node-b"}}`)(client.NewDryRunClient(thief))
	g.Expect(err).To(HaveOccurred(), "%s/%s may do it", in, name)
	return err.Error()
}
