package controllers

import (
	"context"
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// setCondition writes a finding as a condition of any object; its time moves only when its status does. The generation is
// that of the spec which it answers, 0 for an object without one.
func setCondition(conditions *[]metav1.Condition, kind string, f *finding, generation int64, now time.Time) {
	status := metav1.ConditionFalse
	if f.ok {
		status = metav1.ConditionTrue
	}
	apimeta.SetStatusCondition(conditions, metav1.Condition{
		Type: kind, Status: status, Reason: f.reason, Message: f.message,
		ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	})
}

// patchFinalizer adds or removes the finalizer of a Workspace or Snapshot. The patch carries the version that was read.
func (r *WorkspaceReconciler) patchFinalizer(ctx context.Context, o client.Object, present bool) error {
	if controllerutil.ContainsFinalizer(o, v1.FinalizerContent) == present {
		return nil
	}
	changed, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("copy %s: its copy is no object", client.ObjectKeyFromObject(o))
	}
	if present {
		controllerutil.AddFinalizer(changed, v1.FinalizerContent)
	} else {
		controllerutil.RemoveFinalizer(changed, v1.FinalizerContent)
	}
	patch := client.MergeFromWithOptions(o, client.MergeFromWithOptimisticLock{})
	if err := r.Patch(ctx, changed, patch, client.FieldOwner(v1.FieldOwner)); err != nil {
		return client.IgnoreNotFound(err)
	}
	r.memory.wrote(o, changed.GetResourceVersion())
	return nil
}
