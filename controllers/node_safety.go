package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// safeToRemove says whether the node may go: no content on it is newer than its backup, and nobody can change any.
func (r *NodeReconciler) safeToRemove(ctx context.Context, entries []state.Entry, d disks) (*finding, error) {
	if unsafe, err := r.unaccounted(ctx, entries, d); unsafe != nil || err != nil {
		return unsafe, err
	}
	for _, e := range entries {
		if unsafe, err := r.unsaved(ctx, e); unsafe != nil || err != nil {
			return unsafe, err
		}
	}
	return foundOK(v1.ReasonUpToDate, "every content on the node is backed up or released"), nil
}

// unaccounted finds what the journal does not know: workspaces that say they are here, and volumes that nobody owns.
func (r *NodeReconciler) unaccounted(ctx context.Context, entries []state.Entry, d disks) (*finding, error) {
	known := map[string]bool{}
	for _, e := range entries {
		known[e.UID] = true
	}
	var all v1.WorkspaceList
	if err := r.Workspaces.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list the workspaces of this node: %w", err)
	}
	for i := range all.Items {
		ws := &all.Items[i]
		if ws.Status.NodeName != r.Workspaces.Node || known[string(ws.UID)] {
			continue
		}
		if c := ws.Status.Content; c == nil || c.Claim != ws.Status.Claim {
			return found(v1.ReasonProvisioning, "workspace %s/%s is being made on this node", ws.Namespace, ws.Name), nil
		}
		return found(v1.ReasonContentLost, "workspace %s/%s is held by this node, and nothing of it was found on its disk", ws.Namespace, ws.Name), nil
	}
	for _, class := range slices.Sorted(maps.Keys(r.Workspaces.Keeper.Volumes)) {
		err := d.classes[class].err
		if err == nil {
			err = r.strangers(ctx, class, known)
		}
		if err != nil {
			return found(classify(err, v1.ReasonContentLost).reason, "volume class %s: %s", class,
				clip(strings.TrimPrefix(err.Error(), "volume class "+class+": "))), nil
		}
	}
	return nil, nil
}

// strangers fails if a class has volumes that nobody owns, or does not tell which it has.
func (r *NodeReconciler) strangers(ctx context.Context, class string, known map[string]bool) error {
	present, err := r.Workspaces.Keeper.List(ctx, class)
	if err != nil {
		return err
	}
	for _, v := range present {
		if _, made := r.Workspaces.Keeper.Area.Journal().Get(v.ID); !known[v.ID] && !made {
			return &volume.ForeignError{Path: v.Dir, Reason: "a volume that belongs to no workspace that is known"}
		}
	}
	return nil
}

// unsaved says why content must stay on the node; nil if it need not.
func (r *NodeReconciler) unsaved(ctx context.Context, e state.Entry) (*finding, error) {
	subject, since := subjectOf(e), r.Workspaces.cordon.get()
	seen, err := r.Workspaces.Keeper.Observe(ctx, subject)
	if err != nil {
		return found(classify(err, v1.ReasonContentLost).reason, "workspace %s: %s", subject, clip(err.Error())), nil
	}
	if seen.Marker.Released != "" {
		return found(v1.ReasonRemoving, "the volume of workspace %s is released and not removed yet", subject), nil
	}
	if since.IsZero() {
		return found(v1.ReasonInUse, "the node holds workspaces and is not cordoned"), nil
	}
	pods, err := r.Workspaces.pods(ctx, r.Workspaces.Client, subject)
	if err != nil {
		return nil, err
	}
	unused := r.Workspaces.memory.unusedSince(e.UID, len(pods) > 0, r.Workspaces.Clock.Now())
	if len(pods) > 0 {
		return found(v1.ReasonWaitingForPods, "workspace %s is used by pods %s", subject, list(pods)), nil
	}
	if !e.Backup.Complete || e.Backup.CheckedAt.Before(latest(since, unused)) {
		return found(v1.ReasonBackingUp, "workspace %s has not been backed up since the node was cordoned and its pods ended", subject), nil
	}
	return nil, nil
}
