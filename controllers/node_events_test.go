package controllers

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// What is well at the start is no news; what goes wrong is a warning, and what is well again is told.
func TestNewsOfANode(t *testing.T) {
	const well, wrong = "Well", "Wrong"
	for condition, badIf := range map[string]metav1.ConditionStatus{
		v1.ConditionReady: metav1.ConditionFalse, v1.ConditionStoreAvailable: metav1.ConditionFalse,
		v1.ConditionSandboxed: metav1.ConditionFalse, v1.ConditionGitCurrent: metav1.ConditionFalse,
		v1.ConditionDiskPressure: metav1.ConditionTrue, v1.ConditionConfigReloadPending: metav1.ConditionTrue,
	} {
		t.Run(condition, func(t *testing.T) {
			g := NewWithT(t)
			status := func(reason string) *v1.WorkspaceNodeStatus {
				c := metav1.Condition{Type: condition, Status: metav1.ConditionTrue, Reason: reason, Message: "it is " + reason}
				if (reason == wrong) != (badIf == metav1.ConditionTrue) {
					c.Status = metav1.ConditionFalse
				}
				return &v1.WorkspaceNodeStatus{Conditions: []metav1.Condition{c}}
			}
			told := func(before, now *v1.WorkspaceNodeStatus) (kinds []string) {
				for _, n := range news(before, now) {
					g.Expect(n.message).To(Equal(now.Conditions[0].Message))
					kinds = append(kinds, n.kind)
				}
				return kinds
			}
			nothing := &v1.WorkspaceNodeStatus{}
			g.Expect(told(nothing, status(well))).To(BeEmpty())
			g.Expect(told(nothing, status(wrong))).To(Equal([]string{"Warning"}))
			g.Expect(told(status(well), status(wrong))).To(Equal([]string{"Warning"}))
			g.Expect(told(status(wrong), status(well))).To(Equal([]string{"Normal"}))
			g.Expect(told(status(well), status(well))).To(BeEmpty())
		})
	}
}
