package controllers

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// What is bad is a warning, from the first report on; what is good is news only after something bad.
func TestNewsOfTheNode(t *testing.T) {
	condition := func(kind, reason string, status metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: kind, Reason: reason, Status: status, Message: "so it is"}
	}
	const yes, no = metav1.ConditionTrue, metav1.ConditionFalse
	for _, tt := range []struct {
		kind, good, bad string
		well            metav1.ConditionStatus
		told            string // in place of the bad reason
	}{
		{v1.ConditionReady, v1.ReasonRunning, v1.ReasonAreaMissing, yes, ""},
		{v1.ConditionStoreAvailable, v1.ReasonStoreAnswers, v1.ReasonStoreUnavailable, yes, ""},
		{v1.ConditionSandboxed, "Protected", "Unprotected", yes, ""},
		{v1.ConditionGitCurrent, "GitFixed", v1.ReasonGitOld, yes, ""},
		{v1.ConditionDiskPressure, "EnoughRoom", "Bytes", no, v1.ConditionDiskPressure},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			g := NewWithT(t)
			ill, told := no, tt.bad
			if tt.well == no {
				ill = yes
			}
			goodTold := tt.good
			if tt.told != "" {
				told, goodTold = tt.told, tt.told
			}
			nothing := &v1.WorkspaceNodeStatus{}
			good := &v1.WorkspaceNodeStatus{Conditions: []metav1.Condition{condition(tt.kind, tt.good, tt.well)}}
			bad := &v1.WorkspaceNodeStatus{Conditions: []metav1.Condition{condition(tt.kind, tt.bad, ill)}}
			g.Expect(news(nothing, good)).To(BeEmpty())
			g.Expect(news(good, good)).To(BeEmpty())
			warning := note{"Warning", told, "Guard", "so it is"}
			g.Expect(news(nothing, bad)).To(Equal([]note{warning}))
			g.Expect(news(good, bad)).To(Equal([]note{warning}))
			g.Expect(news(bad, good)).To(Equal([]note{{"Normal", goodTold, "Guard", "so it is"}}))
		})
	}
	for _, kind := range []string{v1.ConditionSafeToRemove, v1.ConditionConfigReloadPending} {
		for _, status := range []metav1.ConditionStatus{yes, no} {
			now := &v1.WorkspaceNodeStatus{Conditions: []metav1.Condition{condition(kind, "New", status)}}
			NewWithT(t).Expect(news(&v1.WorkspaceNodeStatus{}, now)).To(BeEmpty(), "%s is told by others", kind)
		}
	}
}
