package fleet

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

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
	// Client reads from caches of all workspaces, snapshots, reports of nodes, and what [TrimNode] keeps of nodes.
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
func (f *Fleet) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	if _, err := mgr.GetCache().GetInformer(ctx, &v1.WorkspaceNode{}, cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch the reports of nodes: %w", err)
	}
	options := controller.Options{MaxConcurrentReconciles: 2, ReconciliationTimeout: 2 * time.Minute}
	if err := (&workspaces{f}).setup(ctx, mgr, options); err != nil {
		return fmt.Errorf("set up the controller of workspaces: %w", err)
	}
	if err := (&snapshots{f}).setup(mgr, options); err != nil {
		return fmt.Errorf("set up the controller of snapshots: %w", err)
	}
	return nil
}

// TrimNode keeps of a Node in the caches what is looked at here: that it is there, since when, and whether it is ready.
func TrimNode(o any) (any, error) {
	node, ok := o.(*corev1.Node)
	if !ok {
		return o, nil
	}
	trimmed := &corev1.Node{TypeMeta: node.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion,
		CreationTimestamp: node.CreationTimestamp, DeletionTimestamp: node.DeletionTimestamp,
	}}
	if i := slices.IndexFunc(node.Status.Conditions, isReady); i >= 0 {
		trimmed.Status.Conditions = []corev1.NodeCondition{node.Status.Conditions[i]}
	}
	return trimmed, nil
}

func isReady(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady }

// up says whether a node is there and its kubelet reports. What the daemon of another one has said last is no sign of life.
func up(node *corev1.Node) bool {
	return node != nil && node.DeletionTimestamp.IsZero() && slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return isReady(c) && c.Status == corev1.ConditionTrue
	})
}

// comesAndGoes passes over whatever happens to a Node but that it is made or deleted: its heartbeats concern nobody here.
func comesAndGoes() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }}
}

// changesHands passes over whatever a report says, but not to which Node it belongs.
func changesHands() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return !equality.Semantic.DeepEqual(e.ObjectOld.GetOwnerReferences(), e.ObjectNew.GetOwnerReferences())
	}}
}

// node returns a Node, nil if there is none. What the cache does not have is asked for: a cache that is behind is no evidence.
func (f *Fleet) node(ctx context.Context, name string) (*corev1.Node, error) {
	for _, reader := range []client.Reader{f.Client, f.Reader} {
		node := &corev1.Node{}
		err := reader.Get(ctx, client.ObjectKey{Name: name}, node)
		if err == nil {
			return node, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("look for node %s: %w", name, err)
		}
	}
	return nil, nil //nolint:nilnil // that there is none is an answer
}

// find finds out how the node stands that is responsible for a workspace.
func (f *Fleet) find(ctx context.Context, ws *v1.Workspace) (standing, error) {
	name := responsible(ws)
	if name == "" {
		return standing{}, nil
	}
	node, err := f.node(ctx, name)
	if err != nil || node == nil {
		return standing{}, err
	}
	s := standing{present: true}
	if uid := holderUID(ws); uid == "" || string(node.UID) == uid {
		return s, nil
	}
	s.made = node.CreationTimestamp.Time
	var report v1.WorkspaceNode
	if err := client.IgnoreNotFound(f.Get(ctx, client.ObjectKey{Name: name}, &report)); err != nil {
		return s, fmt.Errorf("look for the report of node %s: %w", name, err)
	}
	s.replaced = !slices.ContainsFunc(report.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == node.UID })
	return s, nil
}

// confirmGone makes sure, right before something is done about it, that the API server has Nodes, and not this one; of one that was replaced,
// not with that UID. An API server that has none at all has rather lost them.
func (f *Fleet) confirmGone(ctx context.Context, name, uid string) error {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := f.Reader.List(ctx, list); err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	for i := range list.Items {
		if n := &list.Items[i]; n.Name == name && (uid == "" || string(n.UID) == uid) {
			return fmt.Errorf("node %s is there after all", name)
		}
	}
	if len(list.Items) == 0 {
		return errNoNodes
	}
	return nil
}
