package csi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// Patience is how long a call waits for a workspace. The kubelet gives up after two minutes, and then pauses longer and longer.
const Patience = 100 * time.Second

// Cluster is what the API server says.
type Cluster struct {
	// Cache holds the workspaces and pods of this node, Server is asked about what it does not have.
	Cache, Server client.Reader
	// Watch has changed told of whatever changes in the cache, until ctx ends.
	Watch func(ctx context.Context, changed func(client.Object)) error
	// Usable says why the node's disks cannot be used.
	Usable func() error
}

// Watch tells of changes of the workspaces and pods in a cache that has been filled.
func Watch(c cache.Cache) func(ctx context.Context, changed func(client.Object)) error {
	return func(ctx context.Context, changed func(client.Object)) error {
		tell := func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if object, ok := o.(client.Object); ok {
				changed(object)
			}
		}
		for _, kind := range []client.Object{&v1.Workspace{}, &corev1.Pod{}} {
			informer, err := c.GetInformer(ctx, kind)
			if err != nil {
				return fmt.Errorf("watch workspaces and pods: %w", err)
			}
			handler, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
				AddFunc: tell, DeleteFunc: tell, UpdateFunc: func(_, o any) { tell(o) },
			})
			if err != nil {
				return fmt.Errorf("watch workspaces and pods: %w", err)
			}
			defer func() { _ = informer.RemoveEventHandler(handler) }()
		}
		<-ctx.Done()
		return nil
	}
}

// bell wakes those who wait for objects of a name.
type bell struct {
	mu      sync.Mutex
	waiting map[types.NamespacedName]map[chan struct{}]bool
}

// listen returns a channel that gets a message after each ring for one of the names; stop ends it.
func (b *bell) listen(names ...types.NamespacedName) (rings <-chan struct{}, stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting == nil {
		b.waiting = map[types.NamespacedName]map[chan struct{}]bool{}
	}
	c := make(chan struct{}, 1)
	for _, name := range names {
		if b.waiting[name] == nil {
			b.waiting[name] = map[chan struct{}]bool{}
		}
		b.waiting[name][c] = true
	}
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, name := range names {
			if delete(b.waiting[name], c); len(b.waiting[name]) == 0 {
				delete(b.waiting, name)
			}
		}
	}
}

func (b *bell) ring(name types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.waiting[name] {
		wake(c)
	}
}

func (b *bell) ringAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, of := range b.waiting {
		for c := range of {
			wake(c)
		}
	}
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is going to look
	}
}

// Connect lets the node know what the API server says, until ctx ends: from then on no volume is published any more.
func (n *Node) Connect(ctx context.Context, c Cluster) error {
	n.cluster.Store(&c)
	n.bell.ringAll()
	err := c.Watch(ctx, func(o client.Object) { n.bell.ring(client.ObjectKeyFromObject(o)) })
	n.cluster.Store(nil)
	n.end()
	return err
}

// end has nobody wait any more for what the API server might say.
func (n *Node) end() {
	n.ended.Store(true)
	n.bell.ringAll()
}

// await calls attempt until it no longer has to wait, whenever something changes that it depends on.
func (n *Node) await(ctx context.Context, r request, attempt func(context.Context, *Cluster) error) error {
	rings, stop := n.bell.listen(r.workspace, r.pod)
	defer stop()
	began, patience := time.Now(), time.NewTimer(n.Patience)
	defer patience.Stop()
	for {
		err := n.attempt(ctx, attempt)
		if _, waits := errors.AsType[*waiting](err); !waits {
			return err
		}
		select {
		case <-rings:
		case <-patience.C:
			return refuse(codes.DeadlineExceeded, "%v (waited %s)", err, time.Since(began).Round(time.Second))
		case <-ctx.Done():
			return refuse(codes.DeadlineExceeded, "%v (the kubelet waited %s)", err, time.Since(began).Round(time.Second))
		}
	}
}

func (n *Node) attempt(ctx context.Context, attempt func(context.Context, *Cluster) error) error {
	c := n.cluster.Load()
	switch {
	case c != nil:
		return attempt(ctx, c)
	case n.ended.Load():
		return refuse(codes.Unavailable, "the daemon is stopping: its successor will mount the workspace")
	default:
		return notYet("the daemon of node %s is starting: the API server has not told it of its workspaces", n.Name)
	}
}

// workspace returns a workspace that a pod on this node can have now. Whatever the cache does not show is read from the API server:
// only that knows what is not there.
func (n *Node) workspace(ctx context.Context, c *Cluster, name types.NamespacedName) (*v1.Workspace, error) {
	var ws v1.Workspace
	err := c.Cache.Get(ctx, name, &ws)
	if err == nil {
		return &ws, decide(&ws, n.Name)
	}
	if !apierrors.IsNotFound(err) {
		return nil, refuse(codes.Unavailable, "read workspace %s: %v", name, err)
	}
	err = c.Server.Get(ctx, name, &ws)
	switch {
	case apierrors.IsNotFound(err):
		return nil, refuse(codes.NotFound, "workspace %s does not exist: create it, or correct %q in the pod's volumeAttributes", name, v1.CSIAttributeWorkspace)
	case err != nil:
		return nil, refuse(codes.Unavailable, "ask the API server for workspace %s: %v", name, err)
	}
	if err := decide(&ws, n.Name); err != nil {
		return nil, err
	}
	return nil, notYet("workspace %s: node %s has not seen it yet", name, n.Name)
}

// pod makes sure that the API server knows the pod, in the namespace that the volume says. What pods write into volumeAttributes could
// not be told from what the kubelet adds if the CSIDriver object were wrong.
func (n *Node) pod(ctx context.Context, c *Cluster, r request) error {
	var pod corev1.Pod
	err := c.Cache.Get(ctx, r.pod, &pod)
	if err != nil || string(pod.UID) != r.podUID {
		err = c.Server.Get(ctx, r.pod, &pod)
	}
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return refuse(codes.Unavailable, "ask the API server for pod %s: %v", r.pod, err)
	case err != nil, string(pod.UID) != r.podUID, pod.Spec.NodeName != n.Name:
		return refuse(codes.FailedPrecondition, "pod %s with UID %s is not on node %s by what the API server says: static pods cannot use workspaces", r.pod, r.podUID, n.Name)
	case !pod.DeletionTimestamp.IsZero():
		return refuse(codes.Aborted, "pod %s is being deleted", r.pod)
	}
	return nil
}

// ready says whether volumes can be published now.
func (n *Node) ready() bool {
	c := n.cluster.Load()
	return c != nil && c.Usable() == nil
}
