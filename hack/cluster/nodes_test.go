package cluster_test

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"wsdaemon.dev/ws-daemon/hack/cluster"
)

// Nodes join with credentials that are good for themselves alone, and pods are given to them, with a service account.
func TestNodesJoin(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	c := start(t, cluster.Options{Nodes: true, NodeProxy: "/nonexistent"})
	admin := connect(t, c.Config())
	kubelet := join(t, c, "a")
	join(t, c, "b")

	taint := []byte(`{"spec":{"taints":[{"key":"mine","effect":"NoSchedule"}]}}`)
	_, err := kubelet.CoreV1().Nodes().Patch(ctx, "b", "application/merge-patch+json", taint, metav1.PatchOptions{})
	g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)

	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod"},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: "b"},
			Tolerations:  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:   []corev1.Container{{Name: "c", Image: "none.invalid/c"}},
		},
	}
	g.Eventually(func() error {
		_, err := admin.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		return err
	}, soon, tick).Should(Succeed(), "the service account comes with the namespace")
	g.Eventually(func() (string, error) {
		pod, err := admin.CoreV1().Pods("default").Get(ctx, "pod", metav1.GetOptions{})
		return pod.Spec.NodeName + " " + pod.Spec.ServiceAccountName, err
	}, soon, tick).Should(Equal("b default"))
	g.Expect(c.LogFiles()).To(HaveLen(4))
}

// join registers a node as its kubelet does, and returns its client.
func join(t *testing.T, c *cluster.Cluster, name string) *kubernetes.Clientset {
	t.Helper()
	g := NewWithT(t)
	files, err := c.AddNode(name, "10.0.2.15")
	g.Expect(err).NotTo(HaveOccurred())
	for _, file := range []string{files.CA, files.Cert, files.Key} {
		g.Expect(file).To(BeARegularFile())
	}
	config, err := clientcmd.BuildConfigFromFlags("", files.Kubeconfig)
	g.Expect(err).NotTo(HaveOccurred())
	client := connect(t, config)
	room := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status:     corev1.NodeStatus{Capacity: room, Allocatable: room},
	}
	_, err = client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	return client
}
