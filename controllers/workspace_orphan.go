package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/state"
)

const (
	// orphanInterval is how often a volume without an object is looked at while nothing but time is missing.
	orphanInterval = 10 * time.Minute
	// orphanShare is the part of the volumes that may go as orphans within orphanWindow: one in this many.
	orphanShare  = 10
	orphanWindow = time.Hour
)

// orphan handles a volume without an object. It goes only after the object was seen to be missing, by name and by a list of
// its namespace in the right cluster, for the whole grace, and never many at once.
func (r *WorkspaceReconciler) orphan(ctx context.Context, e state.Entry) (time.Duration, error) {
	if err := r.confirmMissing(ctx, subjectOf(e)); err != nil {
		if errors.Is(err, errNotMissing) { // what was seen before counts no more
			_, forgotten := r.present(e)
			err = errors.Join(err, forgotten)
		}
		return 0, err
	}
	now := r.Clock.Now()
	watched, err := r.Keeper.Area.Journal().Update(e.UID, func(entry *state.Entry, exists bool) (changed bool) {
		if exists {
			*entry, changed = r.orphans.observe(*entry, now, r.Settings.OrphanGrace)
		}
		return changed
	})
	if err != nil || watched.MissingSince == nil || watched.Claim != e.Claim {
		return departedInterval, err // it went, or came back to life, meanwhile
	}
	if wait := watched.MissingSince.Add(r.Settings.OrphanGrace).Sub(now); wait > 0 {
		return min(wait, orphanInterval), nil
	}
	first, allowed := r.orphans.allow(watched, r.Keeper.Area.Journal().List(), now, r.Settings.OrphanGrace)
	if !allowed {
		log.FromContext(ctx).Info("a volume without an object stays for now: too many are due for removal, or the daemon has just been started",
			"uid", e.UID, "namespace", e.Namespace, "name", e.Name)
		return max(time.Second, min(orphanInterval, r.Settings.OrphanGrace)), nil
	}
	if first {
		nodeEvent(r, corev1.EventTypeWarning, v1.EventOrphan, "Remove", fmt.Sprintf(
			"the object of workspace %s has been missing since %s: its volume %s is saved as a stray snapshot, if no backup has it, and removed",
			subjectOf(e), watched.MissingSince.UTC().Format(time.DateTime), e.UID))
	}
	return r.removeEntry(ctx, watched, reference(e))
}

// present takes note that the object of a volume is there, and returns the volume's entry.
func (r *WorkspaceReconciler) present(e state.Entry) (state.Entry, error) {
	if e.MissingSince == nil {
		return e, nil
	}
	return r.Keeper.Area.Journal().Update(e.UID, func(now *state.Entry, exists bool) bool {
		now.MissingSince, now.MissingSeen = nil, time.Time{}
		return exists
	})
}

// errNotMissing means that an object that a read by name did not find may be there all the same.
var errNotMissing = errors.New("the object is not missing for all that can be told")

// confirmMissing makes sure that the object is really not there, in the cluster that the content is of: absence of an answer is
// no answer.
func (r *WorkspaceReconciler) confirmMissing(ctx context.Context, e content.Subject) error {
	var kubeSystem corev1.Namespace
	if err := r.Reader.Get(ctx, types.NamespacedName{Name: "kube-system"}, &kubeSystem); err != nil {
		return fmt.Errorf("make sure that this is the right cluster: %w", err)
	}
	owner, err := r.clusterOf(ctx, e)
	if err != nil {
		return fmt.Errorf("find out which cluster the content is of: %w", err)
	}
	if cluster := string(kubeSystem.UID); cluster != owner || cluster != r.Keeper.Cluster {
		return fmt.Errorf("%w: the API server is of cluster %s, the daemon of %s, and the content of %s", errNotMissing, cluster, r.Keeper.Cluster, owner)
	}
	var all v1.WorkspaceList
	if err := r.Reader.List(ctx, &all, client.InNamespace(e.Namespace)); err != nil {
		return fmt.Errorf("make sure that the object is gone: %w", err)
	}
	for i := range all.Items {
		if string(all.Items[i].UID) == e.UID {
			return fmt.Errorf("%w: the API server finds it in a list, although not by name", errNotMissing)
		}
	}
	return nil
}

// clusterOf returns the cluster that the marker beside the content names; that of the working area where there is no marker.
func (r *WorkspaceReconciler) clusterOf(ctx context.Context, e content.Subject) (string, error) {
	seen, err := r.Keeper.Observe(ctx, e)
	if err != nil || seen.Marker.UID != "" {
		return seen.Marker.Cluster, err
	}
	id, err := r.Keeper.Area.Identity()
	return id.Cluster, err
}

// reference stands for an object that is gone, so that an event can name it.
func reference(e state.Entry) *v1.Workspace {
	ws := &v1.Workspace{}
	ws.SetGroupVersionKind(v1.GroupVersion.WithKind("Workspace"))
	ws.Namespace, ws.Name, ws.UID = e.Namespace, e.Name, types.UID(e.UID)
	return ws
}

// orphanage limits how many volumes without an object go.
type orphanage struct {
	mu       sync.Mutex
	began    time.Time // when this process saw the first one
	removed  map[string]time.Time
	total    int       // how many were removed since the start
	accepted time.Time // a person lets those go that were missed by then
}

// observe records that an object is missing. Observations that lie far apart do not add up: nobody looked in between.
func (o *orphanage) observe(e state.Entry, now time.Time, grace time.Duration) (state.Entry, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began.IsZero() {
		o.began = now
	}
	if e.MissingSince == nil || forgotten(e, now, grace) {
		e.MissingSince, e.MissingSeen = &now, now
		return e, true
	}
	if now.Sub(e.MissingSeen) < orphanInterval/2 {
		return e, false
	}
	e.MissingSeen = now
	return e, true
}

// forgotten says whether nobody has looked for an object for so long that it may have been there meanwhile.
func forgotten(e state.Entry, now time.Time, grace time.Duration) bool {
	return now.Sub(e.MissingSeen) > max(2*orphanInterval, grace/10) || now.Before(e.MissingSeen)
}

// due says whether the object of a volume has been missing for the whole grace.
func due(e state.Entry, now time.Time, grace time.Duration) bool {
	return e.MissingSince != nil && !forgotten(e, now, grace) && now.Sub(*e.MissingSince) >= grace
}

// consent takes the annotation by which a person lets volumes go whose objects were missed by a time, and says whether it is news.
// A time that lies ahead would be good for what nobody knows of yet.
func (o *orphanage) consent(annotation string, now time.Time) bool {
	at, err := time.Parse(time.RFC3339, annotation)
	if err != nil || at.After(now) {
		at = time.Time{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	news := !at.Equal(o.accepted)
	o.accepted = at
	return news
}

// allow says whether a volume may go, and whether that is said for the first time; what was allowed stays allowed. If more are due
// than may go within the window, none goes until a person says so: that many objects rarely go by themselves. What an earlier process
// removed is not known, so this one begins only after a whole window, or after the grace if that is shorter.
func (o *orphanage) allow(e state.Entry, all []state.Entry, now time.Time, grace time.Duration) (first, allowed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.removed[e.UID]; ok {
		return false, true
	}
	if pending, limit := o.count(all, now, grace); !o.accepts(e) && (pending > limit || now.Sub(o.began) < min(orphanWindow, grace)) {
		return false, false
	}
	if o.removed == nil {
		o.removed = map[string]time.Time{}
	}
	o.removed[e.UID] = now
	if o.accepts(e) {
		o.removed[e.UID] = time.Time{} // counts nowhere
	}
	o.total++
	return true, true
}

func (o *orphanage) accepts(e state.Entry) bool {
	return e.MissingSince != nil && !e.MissingSince.After(o.accepted)
}

// count returns how many volumes went within the window, or are due and nobody has let go, and how many may be.
func (o *orphanage) count(all []state.Entry, now time.Time, grace time.Duration) (pending, limit int) {
	volumes := len(all)
	present := make(map[string]bool, volumes)
	for _, e := range all {
		present[e.UID] = true
		if _, going := o.removed[e.UID]; !going && due(e, now, grace) && !o.accepts(e) {
			pending++
		}
	}
	for uid, at := range o.removed {
		if now.Sub(at) < orphanWindow {
			pending++
		}
		switch {
		case present[uid]:
		case now.Sub(at) < orphanWindow:
			volumes++ // it was one of them when the window began
		default:
			delete(o.removed, uid)
		}
	}
	return pending, max(1, volumes/orphanShare)
}

// alarm says that more volumes are due than may go, nil if not.
func (o *orphanage) alarm(all []state.Entry, now time.Time, grace time.Duration, node string) *finding {
	o.mu.Lock()
	defer o.mu.Unlock()
	pending, limit := o.count(all, now, grace)
	var newest time.Time
	var names []string
	for _, e := range all {
		if _, going := o.removed[e.UID]; !going && due(e, now, grace) && !o.accepts(e) {
			newest = latest(newest, *e.MissingSince)
			names = append(names, subjectOf(e).String())
		}
	}
	if pending <= limit || len(names) == 0 {
		return nil
	}
	return found(v1.ReasonTooManyOrphans, "the objects of %s have been missing for %s: more volumes than the %d of %d that may go within %s, so none of them is removed. "+
		"Bring the objects back; or, if these workspaces shall go, set the annotation %s=%s on WorkspaceNode %s, and each is removed after a stray snapshot",
		list(names), grace, limit, len(all), orphanWindow, v1.AnnotationRemoveOrphans, notBefore(newest).UTC().Format(time.RFC3339), node)
}

// orphans counts the volumes without an object, and those that were removed since the start.
func (o *orphanage) counts(all []state.Entry) (missing, removed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range all {
		if e.MissingSince != nil {
			missing++
		}
	}
	return missing, o.total
}
