package cmd

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// gauges puts together how things are, for a scrape: from what is in memory, without asking anybody.
type gauges struct {
	workspaces *controllers.WorkspaceReconciler
	reloader   *reloader
	// ready is set once the cache holds this node's objects; it would keep a scrape waiting before.
	ready atomic.Bool
}

// synced is started when the cache is filled.
func (m *gauges) synced(context.Context) error {
	m.ready.Store(true)
	return nil
}

func (m *gauges) snapshot() metrics.Snapshot {
	if m.workspaces == nil {
		return metrics.Snapshot{} // the daemon has not got that far
	}
	entries := m.workspaces.Keeper.Area.Journal().List()
	classes := classesOf(m.workspaces.Keeper, entries)
	all := m.list()
	for i := range all {
		fullest(classes, &all[i])
	}
	s := metrics.Snapshot{
		Now: time.Now(), Jobs: m.workspaces.Jobs.Loads(), Journal: len(entries),
		Workspaces: map[string]int{}, Conditions: map[metrics.Condition]int{}, Config: m.reloader.state(),
		Unsaved: oldestUnsaved(entries, all),
	}
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		s.Classes = append(s.Classes, *classes[name])
	}
	for i := range all {
		s.Workspaces[string(all[i].Spec.State)]++
		for _, c := range all[i].Status.Conditions {
			s.Conditions[metrics.Condition{Type: c.Type, Status: string(c.Status), Reason: c.Reason}]++
		}
	}
	return s
}

// classesOf is what the journal knows of the volumes of each class, also of one that was taken out of the configuration while it had
// some.
func classesOf(k *content.Keeper, entries []state.Entry) map[string]*metrics.Class {
	classes := map[string]*metrics.Class{}
	class := func(name string) *metrics.Class {
		if classes[name] == nil {
			classes[name] = &metrics.Class{Name: name, Fullest: -1}
		}
		return classes[name]
	}
	for name := range k.Volumes {
		class(name)
	}
	for _, e := range entries {
		c := class(e.Class)
		c.Volumes++
		c.Used += e.Usage.Bytes
		if e.Usage.Escaped != "" {
			c.Escaped++
		}
	}
	return classes
}

// list returns this node's workspaces as the cache has them. They must not be changed.
func (m *gauges) list() []v1.Workspace {
	if !m.ready.Load() {
		return nil
	}
	var all v1.WorkspaceList
	if err := m.workspaces.List(context.Background(), &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil // it is of the cache, which cannot fail but for a mistake in its setup
	}
	return all.Items
}

// fullest takes a workspace's volume into its class's figure.
func fullest(classes map[string]*metrics.Class, ws *v1.Workspace) {
	v, c := ws.Status.Volume, classes[ws.Spec.Volume.Class]
	if v == nil || c == nil || v.Used == nil || v.Size == nil || v.Size.Sign() <= 0 {
		return
	}
	c.Fullest = max(c.Fullest, v.Used.AsApproximateFloat64()/v.Size.AsApproximateFloat64())
}

// oldestUnsaved returns since when there may be changes that are in no backup: the oldest last look at content that was not let go. What
// shall have no periodic backups is left out, and content of which nobody knows since when it is there.
func oldestUnsaved(entries []state.Entry, all []v1.Workspace) time.Time {
	known := make(map[string]*v1.Workspace, len(all))
	for i := range all {
		known[string(all[i].UID)] = &all[i]
	}
	var oldest time.Time
	for _, e := range entries {
		if since := unsavedSince(e, known[e.UID]); !since.IsZero() && (oldest.IsZero() || since.Before(oldest)) {
			oldest = since
		}
	}
	return oldest
}

func unsavedSince(e state.Entry, ws *v1.Workspace) time.Time {
	if e.Released != "" {
		return time.Time{}
	}
	if ws == nil {
		return e.Backup.CheckedAt
	}
	if b := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionBackedUp); b != nil && b.Reason == v1.ReasonDisabled {
		return time.Time{}
	}
	if c := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionContentReady); e.Backup.CheckedAt.IsZero() && c != nil && c.Status == metav1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return e.Backup.CheckedAt
}
