package controllers

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	// operationEvict names the job in which caches go. It belongs to a class, not to a workspace.
	operationEvict = "evict"
	// evictPause is how long a class is left alone that had nothing more to evict.
	evictPause = time.Minute
)

// evictions are what has become of caches.
type evictions struct {
	mu    sync.Mutex
	count map[string]int       // how many went, by class
	idle  map[string]time.Time // when a class had no more
}

// ended takes note of the end of an eviction.
func (e *evictions) ended(class string, n int, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count == nil {
		e.count, e.idle = map[string]int{}, map[string]time.Time{}
	}
	e.count[class] += n
	if n == 0 {
		e.idle[class] = now
	} else {
		delete(e.idle, class)
	}
}

// pauses says whether a class had nothing to evict a short while ago.
func (e *evictions) pauses(class string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.idle[class]
	return ok && now.Sub(at) < evictPause
}

// counts returns how many caches went since the start of the daemon, by class.
func (e *evictions) counts(classes map[string]volume.Driver) map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := make(map[string]int, len(classes))
	for class := range classes {
		counts[class] = e.count[class]
	}
	return counts
}

// evict has caches go in every class whose disk is short of something, one by one until it is not any more.
func (r *NodeReconciler) evict(ctx context.Context, d disks, now time.Time) {
	w := r.Workspaces
	for class, of := range d.classes {
		key := jobs.Key{UID: "class/" + class, Op: operationEvict}
		if job := w.Jobs.State(key); job.Phase == jobs.Done {
			n, _ := job.Result.(int)
			w.Jobs.Forget(key)
			w.evictions.ended(class, n, now)
			r.tellEvicted(ctx, class, n, job.Err)
		}
		if of.err != nil || len(of.short) == 0 || !w.Keeper.CanEvict(class) || w.evictions.pauses(class, now) {
			continue
		}
		w.Jobs.Start(key, ClassMaintain, w.Settings.Timeouts.Remove.Duration, r.eviction(class, of.short))
	}
}

// eviction returns the job.
func (r *NodeReconciler) eviction(class string, short []v1.Resource) jobs.Func {
	k, limits := r.Workspaces.Keeper, r.Workspaces.Settings.Node.Pressure
	return func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		return k.Evict(ctx, class, func(c volume.Capacity) bool { return len(decidePressure(c, short, limits)) == 0 })
	}
}

func (r *NodeReconciler) tellEvicted(ctx context.Context, class string, n int, err error) {
	if err != nil {
		log.FromContext(ctx).Error(err, "caches cannot be evicted", "class", class)
	}
	if n > 0 {
		r.event(corev1.EventTypeNormal, v1.EventEvicted, "Evict", "volume class %s: %d caches went because their room was needed", class, n)
	}
}
