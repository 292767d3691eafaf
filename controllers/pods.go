package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
)

// pods lists the names of the pods on this node that use a workspace, by the given reader, and by the mounts that the journal knows:
// a pod that was deleted by force may still run. Pods that have ended do not count, once their mounts are gone.
func (r *WorkspaceReconciler) pods(ctx context.Context, reader client.Reader, s content.Subject) ([]string, error) {
	var list corev1.PodList
	opts := []client.ListOption{client.InNamespace(s.Namespace)}
	if reader == r.Reader {
		opts = append(opts, client.MatchingFields{"spec.nodeName": r.Node})
	}
	if err := reader.List(ctx, &list, opts...); err != nil {
		return nil, fmt.Errorf("list the pods that use workspace %s: %w", s, err)
	}
	var names []string
	for i := range list.Items {
		pod := &list.Items[i]
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if pod.Spec.NodeName == r.Node && !ended && slices.Contains(workspacesOf(pod), s.Name) {
			names = append(names, pod.Name)
		}
	}
	for _, use := range r.Keeper.Uses(s.UID) {
		if !slices.Contains(names, use.User()) {
			names = append(names, use.User())
		}
	}
	slices.Sort(names)
	return names, nil
}

// workspacesOf names the workspaces that a pod uses: that of its label, and those that are volumes of it.
func workspacesOf(pod *corev1.Pod) []string {
	var names []string
	if name := pod.Labels[v1.LabelWorkspace]; name != "" {
		names = append(names, name)
	}
	for _, volume := range WorkspaceVolumes(pod) {
		if name := volume.CSI.VolumeAttributes[v1.CSIAttributeWorkspace]; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// WorkspaceVolumes returns those volumes of a pod that are workspaces.
func WorkspaceVolumes(pod *corev1.Pod) []corev1.Volume {
	var found []corev1.Volume
	for _, volume := range pod.Spec.Volumes {
		if volume.CSI != nil && volume.CSI.Driver == v1.CSIDriver {
			found = append(found, volume)
		}
	}
	return found
}

// inUse returns a check for jobs: it asks the API server, not the cache, and fails with content.ErrInUse while pods remain.
func (r *WorkspaceReconciler) inUse(s content.Subject) func(context.Context) error {
	return func(ctx context.Context) error {
		names, err := r.pods(ctx, r.Reader, s)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("%w by pods %s", content.ErrInUse, list(names))
		}
		return nil
	}
}

// list names at most three things.
func list(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}
