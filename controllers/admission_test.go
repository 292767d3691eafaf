package controllers

import (
	"bytes"
	"context"
	"os"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// daemonOf returns the client of a daemon's service account in a pod on a node. It is also of a group that may do anything: what it
// is refused, admission refuses.
func (w *world) daemonOf(node string) client.Client {
	w.Helper()
	access := shared.Config()
	access.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:ws-daemon-system:ws-daemon", Groups: []string{"system:masters"},
		Extra: map[string][]string{"authentication.kubernetes.io/node-name": {node}},
	}
	c, err := client.New(access, client.Options{Scheme: w.scheme()})
	w.Expect(err).NotTo(HaveOccurred())
	return c
}

// admit installs a file of config/admission.
func (w *world) admit(file string) {
	w.Helper()
	data, err := os.ReadFile(file)
	w.Expect(err).NotTo(HaveOccurred())
	for part := range bytes.SplitSeq(data, []byte("\n---\n")) {
		o := &unstructured.Unstructured{}
		w.Expect(yaml.Unmarshal(part, &o.Object)).To(Succeed())
		w.Expect(w.Create(w.Context(), o)).To(Succeed())
		w.Cleanup(func() { _ = w.Delete(context.WithoutCancel(w.Context()), o) })
	}
}

func TestS4_DaemonChangesItsOwnNodeOnly(t *testing.T) {
	w := newWorld(t)
	w.admit("../config/admission/node.yaml")
	w.machine(false)
	own, other := w.daemonOf(w.node), w.daemonOf("another")
	patch := func(c client.Client, o client.Object, kind types.PatchType, text string) error {
		o.SetName(w.node)
		return c.Patch(t.Context(), o, client.RawPatch(kind, []byte(text)))
	}
	merge := func(c client.Client, text string) error { return patch(c, &corev1.Node{}, types.MergePatchType, text) }
	const protection = `{"metadata": {"annotations": {"` + v1.AnnotationScaleDown + `": "true", "` + v1.AnnotationScaleDownOurs + `": "true"}}}`
	w.Eventually(func() error { return merge(other, protection) }).Should(MatchError(ContainSubstring("of its own node only, which is another")))

	w.Expect(merge(own, protection)).To(Succeed())
	w.Expect(patch(own, &corev1.Node{}, types.JSONPatchType,
		`[{"op": "add", "path": "/spec/taints/-", "value": {"key": "workspace.wsdaemon.dev/disk-pressure", "effect": "NoSchedule"}}]`)).To(Succeed())
	for name, text := range map[string]string{
		"a label":                 `{"metadata": {"labels": {"a": "b"}}}`,
		"another annotation":      `{"metadata": {"annotations": {"a": "b"}}}`,
		"a finalizer":             `{"metadata": {"finalizers": ["a.example/b"]}}`,
		"uncordon":                `{"spec": {"unschedulable": true}}`,
		"another taint":           `{"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}`,
		"the taints of others go": `{"spec": {"taints": null}}`,
	} {
		w.Expect(merge(own, text)).To(MatchError(apierrors.IsInvalid, "refused"), name)
	}
	w.Expect(merge(own, `{"metadata": {"annotations": {"`+v1.AnnotationScaleDown+`": null, "`+v1.AnnotationScaleDownOurs+`": null}}}`)).To(Succeed())

	snapshot := func() *v1.Snapshot {
		return &v1.Snapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "asked-for"},
			Spec:       v1.SnapshotSpec{WorkspaceName: "web", NodeName: w.node},
		}
	}
	w.Expect(other.Create(t.Context(), snapshot())).To(MatchError(ContainSubstring("a daemon creates snapshots of its own node only, which is another")))
	w.Expect(own.Create(t.Context(), snapshot())).To(Succeed())
	w.Expect(own.Delete(t.Context(), snapshot())).To(Succeed())

	report := func() *v1.WorkspaceNode { return &v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: w.node}} }
	w.Expect(other.Create(t.Context(), report())).To(MatchError(ContainSubstring("of its own node only")))
	w.Expect(own.Create(t.Context(), report())).To(Succeed())
	status := report()
	status.Status.AreaID = "of another"
	w.Expect(other.Status().Patch(t.Context(), status, client.Merge)).To(MatchError(ContainSubstring("of its own node only")))
	w.Expect(patch(own, report(), types.MergePatchType, `{"metadata": {"labels": {"a": "b"}}}`)).To(Succeed())
	w.Expect(merge(w.Client, `{"metadata": {"labels": {"a": "b"}}}`)).To(Succeed(), "nobody else is affected")
}
