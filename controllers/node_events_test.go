package controllers

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// What is well from the beginning is no news, and never a warning.
func TestNewsOfANode(t *testing.T) {
	const old = "Old"
	for name, tt := range map[string]struct {
		kind   string
		status metav1.ConditionStatus
		was    string
		want   string // type of the event, if there is one
	}{
		"Ready at first":              {v1.ConditionReady, metav1.ConditionTrue, "", ""},
		"Ready again":                 {v1.ConditionReady, metav1.ConditionTrue, old, corev1.EventTypeNormal},
		"not Ready":                   {v1.ConditionReady, metav1.ConditionFalse, "", corev1.EventTypeWarning},
		"protected at first":          {v1.ConditionSandboxed, metav1.ConditionTrue, "", ""},
		"not protected":               {v1.ConditionSandboxed, metav1.ConditionFalse, "", corev1.EventTypeWarning},
		"store answers at first":      {v1.ConditionStoreAvailable, metav1.ConditionTrue, "", ""},
		"store answers again":         {v1.ConditionStoreAvailable, metav1.ConditionTrue, old, corev1.EventTypeNormal},
		"store does not answer":       {v1.ConditionStoreAvailable, metav1.ConditionFalse, old, corev1.EventTypeWarning},
		"git is old":                  {v1.ConditionGitCurrent, metav1.ConditionFalse, "", corev1.EventTypeWarning},
		"no pressure":                 {v1.ConditionDiskPressure, metav1.ConditionFalse, "", ""},
		"pressure":                    {v1.ConditionDiskPressure, metav1.ConditionTrue, old, corev1.EventTypeWarning},
		"configuration is current":    {v1.ConditionConfigReloadPending, metav1.ConditionFalse, "", ""},
		"configuration needs restart": {v1.ConditionConfigReloadPending, metav1.ConditionTrue, old, corev1.EventTypeWarning},
		"safe to remove":              {v1.ConditionSafeToRemove, metav1.ConditionTrue, old, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := &v1.WorkspaceNodeStatus{}
			if tt.was != "" {
				before.Conditions = []metav1.Condition{{Type: tt.kind, Reason: tt.was}}
			}
			now := &v1.WorkspaceNodeStatus{Conditions: []metav1.Condition{{Type: tt.kind, Status: tt.status, Reason: "New", Message: "what it is"}}}
			kinds := ""
			for _, n := range news(before, now) {
				kinds += n.kind
			}
			NewWithT(t).Expect(kinds).To(Equal(tt.want))
		})
	}
}
