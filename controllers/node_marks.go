package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// yes is the only value of the annotation that the cluster autoscaler heeds.
const yes = "true"

// marks are what the Node shall show. Only there schedulers and autoscalers look.
type marks struct {
	// taint keeps pods off, protect keeps the autoscaler from removing the node.
	taint, protect bool
}

// decideMarks returns the Node as it shall be, and in a few words what changes, "" if nothing. What others have set stays.
func decideMarks(node *corev1.Node, want marks) (changed *corev1.Node, what string) {
	changed = node.DeepCopy()
	ours := func(t corev1.Taint) bool {
		return t.Key == v1.TaintDiskPressure && t.Effect == corev1.TaintEffectNoSchedule
	}
	tainted := slices.ContainsFunc(node.Spec.Taints, ours)
	switch {
	case want.taint && !tainted:
		changed.Spec.Taints = append(changed.Spec.Taints, corev1.Taint{Key: v1.TaintDiskPressure, Effect: corev1.TaintEffectNoSchedule})
		what = "tainted"
	case !want.taint && tainted:
		changed.Spec.Taints = slices.DeleteFunc(changed.Spec.Taints, ours)
		what = "taint removed"
	}
	annotations := maps.Clone(node.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	if protection := protect(annotations, want.protect); protection != "" {
		changed.Annotations = annotations
		if what != "" {
			what += ", "
		}
		what += protection
	}
	return changed, what
}

// protect sets the annotation that keeps the autoscaler away, or removes it if it is ours, and says what it did.
func protect(annotations map[string]string, want bool) string {
	value, set := annotations[v1.AnnotationScaleDown]
	_, ours := annotations[v1.AnnotationScaleDownOurs]
	switch {
	case want && !set:
		annotations[v1.AnnotationScaleDown], annotations[v1.AnnotationScaleDownOurs] = yes, yes
		return "protected from scale-down"
	case ours && set && value != yes: // somebody has decided otherwise meanwhile: it is his from now on
		delete(annotations, v1.AnnotationScaleDownOurs)
		return "scale-down left to others"
	case ours && !want:
		delete(annotations, v1.AnnotationScaleDownOurs)
		delete(annotations, v1.AnnotationScaleDown)
		return "open to scale-down"
	default:
		return ""
	}
}

// unprotected says why the autoscaler may remove the node although it should not, "" if it may not.
func unprotected(node *corev1.Node) string {
	if value, set := node.Annotations[v1.AnnotationScaleDown]; set && value != yes {
		return fmt.Sprintf("somebody has set the annotation %s to %q on the Node: the cluster autoscaler may remove it all the same", v1.AnnotationScaleDown, value)
	}
	return ""
}

// mark writes taint and annotation on the Node, and returns why that is not in force, "" if it is. The patch carries the version
// that was read: of two writers the API server lets one through.
func (r *NodeReconciler) mark(ctx context.Context, node *corev1.Node, want marks) (problem string, err error) {
	w := r.Workspaces
	if node.UID == "" || !node.DeletionTimestamp.IsZero() || w.memory.stale(node) {
		return "", nil
	}
	changed, what := decideMarks(node, want)
	if what != "" {
		patch := client.MergeFromWithOptions(node, client.MergeFromWithOptimisticLock{})
		err := w.Patch(ctx, changed, patch, client.FieldOwner(v1.FieldOwner))
		switch {
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			return "", err
		case err != nil:
			return "the Node cannot be marked: " + err.Error(), fmt.Errorf("mark the Node (%s): %w", what, err)
		}
		w.memory.wrote(node, changed.ResourceVersion)
		r.event(corev1.EventTypeNormal, v1.EventNodeMarked, "Mark", "%s", what)
	}
	if want.protect {
		problem = unprotected(changed)
	}
	return problem, nil
}
