package controllers

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

func TestMarksOfTheNode(t *testing.T) {
	ours := corev1.Taint{Key: v1.TaintDiskPressure, Effect: corev1.TaintEffectNoSchedule}
	evicts := corev1.Taint{Key: v1.TaintDiskPressure, Effect: corev1.TaintEffectNoExecute}
	other := corev1.Taint{Key: "node.kubernetes.io/disk-pressure", Effect: corev1.TaintEffectNoSchedule}
	type set = map[string]string
	const key, mark = v1.AnnotationScaleDown, v1.AnnotationScaleDownOurs
	for name, tt := range map[string]struct {
		taints     []corev1.Taint
		set        set
		want       marks
		what       string
		wantTaints []corev1.Taint
		wantSet    set
	}{
		"nothing wanted":                        {nil, nil, marks{}, "", nil, nil},
		"pressure":                              {[]corev1.Taint{other}, nil, marks{taint: true}, "tainted", []corev1.Taint{other, ours}, nil},
		"pressure goes on":                      {[]corev1.Taint{ours}, nil, marks{taint: true}, "", []corev1.Taint{ours}, nil},
		"pressure ends":                         {[]corev1.Taint{other, ours, evicts}, nil, marks{}, "taint removed", []corev1.Taint{other, evicts}, nil},
		"content":                               {nil, set{"a": "b"}, marks{protect: true}, "protected from scale-down", nil, set{"a": "b", key: "true", mark: "true"}},
		"content on a node without annotations": {nil, nil, marks{protect: true}, "protected from scale-down", nil, set{key: "true", mark: "true"}},
		"content goes on":                       {nil, set{key: "true", mark: "true"}, marks{protect: true}, "", nil, set{key: "true", mark: "true"}},
		"somebody removed it":                   {nil, set{mark: "true"}, marks{protect: true}, "protected from scale-down", nil, set{key: "true", mark: "true"}},
		"content is safe":                       {nil, set{"a": "b", key: "true", mark: "true"}, marks{}, "open to scale-down", nil, set{"a": "b"}},
		"somebody else protects":                {nil, set{key: "true"}, marks{protect: true}, "", nil, set{key: "true"}},
		"somebody else goes on protecting":      {nil, set{key: "true"}, marks{}, "", nil, set{key: "true"}},
		"somebody does not want it":             {nil, set{key: "false"}, marks{protect: true}, "", nil, set{key: "false"}},
		"somebody changed ours":                 {nil, set{key: "false", mark: "true"}, marks{protect: true}, "scale-down left to others", nil, set{key: "false"}},
		"somebody changed ours, and it is safe": {nil, set{key: "false", mark: "true"}, marks{}, "scale-down left to others", nil, set{key: "false"}},
		"somebody removed it, and it is safe":   {nil, set{mark: "true"}, marks{}, "open to scale-down", nil, set{}},
		"both":                                  {nil, nil, marks{true, true}, "tainted, protected from scale-down", []corev1.Taint{ours}, set{key: "true", mark: "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: tt.set}, Spec: corev1.NodeSpec{Taints: tt.taints}}
			before := node.DeepCopy()
			changed, what := decideMarks(node, tt.want)
			g.Expect(what).To(Equal(tt.what))
			g.Expect(node).To(Equal(before), "what the cache has is not changed")
			g.Expect(changed.Annotations).To(Equal(tt.wantSet))
			g.Expect(changed.Spec.Taints).To(ConsistOf(tt.wantTaints))
			_, again := decideMarks(changed, tt.want)
			g.Expect(again).To(BeEmpty(), "done is done")
		})
	}
}

func TestAnnotationOfOthersLeavesTheNodeUnprotected(t *testing.T) {
	g := NewWithT(t)
	node := &corev1.Node{}
	g.Expect(unprotected(node)).To(BeEmpty(), "it is set in the same pass")
	node.Annotations = map[string]string{v1.AnnotationScaleDown: "false"}
	g.Expect(unprotected(node)).To(Equal(`somebody has set the annotation cluster-autoscaler.kubernetes.io/scale-down-disabled to "false" on the Node: ` +
		"the cluster autoscaler may remove it all the same"))
	node.Annotations[v1.AnnotationScaleDown] = "true"
	g.Expect(unprotected(node)).To(BeEmpty())
}
