package fleet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

const (
	// settle is how long an object may name a node that is not there before that is said: new nodes join with their objects.
	settle = 10 * time.Second
	// lookAgain is how often an object without a node is looked at, beside whenever a node comes or goes.
	lookAgain = 5 * time.Minute
	// burial is how long the store may take to be told that a workspace is deleted.
	burial = time.Minute
)

// burier tells the store that a workspace was deleted.
type burier interface {
	Bury(ctx context.Context, domain, workspace string, claim int64) error
}

// Fleet looks after objects whose nodes are gone.
type Fleet struct {
	// Client reads from caches of all workspaces, snapshots, reports of nodes, and the metadata of nodes.
	client.Client
	// Reader reads from the API server: nothing is let go by what a cache says.
	Reader client.Reader
	// Store is told of workspaces that are deleted with their backups.
	Store burier
	Clock clock.PassiveClock
	// Grace is how long a node must have been gone before objects that are being deleted are let go without it.
	Grace time.Duration
}

// SetupWithManager registers the reconcilers, which work on the leader only.
func (f *Fleet) SetupWithManager(mgr ctrl.Manager) error {
	if _, err := mgr.GetCache().GetInformer(context.Background(), &v1.WorkspaceNode{}, cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch the reports of nodes: %w", err)
	}
	options := controller.Options{MaxConcurrentReconciles: 2, ReconciliationTimeout: 2 * time.Minute}
	if err := (&workspaces{f}).setup(mgr, options); err != nil {
		return fmt.Errorf("set up the controller of workspaces: %w", err)
	}
	if err := (&snapshots{f}).setup(mgr, options); err != nil {
		return fmt.Errorf("set up the controller of snapshots: %w", err)
	}
	return nil
}

// nodeMeta is a Node of which only the metadata is read.
func nodeMeta() *metav1.PartialObjectMetadata {
	node := &metav1.PartialObjectMetadata{}
	node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	return node
}

// present says whether there is a Node of a name. What the cache does not have is asked for: a cache that is behind is no evidence.
func (f *Fleet) present(ctx context.Context, name string) (bool, error) {
	for _, reader := range []client.Reader{f.Client, f.Reader} {
		err := reader.Get(ctx, client.ObjectKey{Name: name}, nodeMeta())
		if err == nil || !apierrors.IsNotFound(err) {
			return err == nil, err
		}
	}
	return false, nil
}

// confirmGone makes sure, right before something is done about it, that the API server has Nodes and not this one. One that has none at all has
// rather lost them.
func (f *Fleet) confirmGone(ctx context.Context, name string) error {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := f.Reader.List(ctx, list); err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	for i := range list.Items {
		if list.Items[i].Name == name {
			return fmt.Errorf("node %s is there after all", name)
		}
	}
	if len(list.Items) == 0 {
		return errNoNodes
	}
	return nil
}
