package server

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// hub passes what the informer sees on to those who watch. Nobody who is slow keeps it: each has the newest state of every workspace
// that changed, and no more.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

// change is the newest state of a workspace. It is the cache's own and must not be changed.
type change struct {
	ws   *v1.Workspace
	gone bool
}

// watcher is somebody who watches.
type watcher struct {
	namespace, name string // of what is watched; empty for all

	mu      sync.Mutex
	pending map[types.NamespacedName]change
	wake    chan struct{}
}

// OnAdd is called for workspaces that there are.
func (h *hub) OnAdd(o any, _ bool) { h.pass(o, false) }

// OnUpdate is called for workspaces that changed.
func (h *hub) OnUpdate(_, o any) { h.pass(o, false) }

// OnDelete is called for workspaces that went.
func (h *hub) OnDelete(o any) {
	if missed, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = missed.Obj
	}
	h.pass(o, true)
}

func (h *hub) pass(o any, gone bool) {
	ws, ok := o.(*v1.Workspace)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.note(change{ws, gone})
	}
}

// watch begins to collect changes; end it with leave.
func (h *hub) watch(namespace, name string) *watcher {
	w := &watcher{namespace: namespace, name: name, pending: map[types.NamespacedName]change{}, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = map[*watcher]struct{}{}
	}
	h.watchers[w] = struct{}{}
	return w
}

func (h *hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

func (w *watcher) note(c change) {
	if w.namespace != "" && w.namespace != c.ws.Namespace || w.name != "" && w.name != c.ws.Name {
		return
	}
	w.mu.Lock()
	w.pending[client.ObjectKeyFromObject(c.ws)] = c
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it is awake
	}
}

// take returns what has changed since it was called last, ordered by name.
func (w *watcher) take() []change {
	w.mu.Lock()
	pending := w.pending
	w.pending = map[types.NamespacedName]change{}
	w.mu.Unlock()
	return slices.SortedFunc(maps.Values(pending), func(a, b change) int { return byName(a.ws, b.ws) })
}

func byName(a, b *v1.Workspace) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}
