package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// Snapshot makes a snapshot by its object, and waits for it.
func (s *service) Snapshot(ctx context.Context, r *daemonv1.SnapshotRequest) (*daemonv1.SnapshotResponse, error) {
	wanted, err := s.wantedSnapshot(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.create(ctx, wanted); err != nil {
		return nil, err
	}
	made, err := s.awaitSnapshot(ctx, wanted)
	if err != nil {
		return nil, err
	}
	return &daemonv1.SnapshotResponse{Snapshot: snapshotOf(made)}, nil
}

func (s *service) wantedSnapshot(ctx context.Context, r *daemonv1.SnapshotRequest) (*v1.Snapshot, error) {
	ws, err := s.find(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.GetSnapshotName() != "" {
		if err := validName("snapshot_name", r.GetSnapshotName()); err != nil {
			return nil, err
		}
	}
	if holder := ws.Status.NodeName; holder != "" && holder != s.Node {
		return nil, status.Errorf(codes.FailedPrecondition, "workspace %s/%s is still on node %s: ask there, or wait until it has moved", ws.Namespace, ws.Name, holder)
	}
	policy, ok := map[daemonv1.DeletionPolicy]v1.DeletionPolicy{
		daemonv1.DeletionPolicy_DELETION_POLICY_UNSPECIFIED: v1.DeletionRetain,
		daemonv1.DeletionPolicy_DELETION_POLICY_RETAIN:      v1.DeletionRetain,
		daemonv1.DeletionPolicy_DELETION_POLICY_DELETE:      v1.DeletionDelete,
	}[r.GetDeletionPolicy()]
	if !ok {
		return nil, refuse("deletion_policy: must be RETAIN or DELETE, not %d", r.GetDeletionPolicy())
	}
	return &v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: ws.Namespace, Name: cmp.Or(r.GetSnapshotName(), unusedName(ws.Name))},
		Spec:       v1.SnapshotSpec{WorkspaceName: ws.Name, NodeName: s.Node, DeletionPolicy: policy},
	}, nil
}

// unusedName makes a name of a workspace's.
func unusedName(workspace string) string {
	const random = 8
	workspace = workspace[:min(len(workspace), maxName-random-1)]
	return strings.TrimRight(workspace, "-.") + "-" + strings.ToLower(rand.Text()[:random])
}

// create makes the object. One that is there and asks for the same was made by an earlier call.
func (s *service) create(ctx context.Context, wanted *v1.Snapshot) error {
	err := s.Client.Create(ctx, wanted.DeepCopy(), client.FieldOwner(v1.FieldOwner))
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	var there v1.Snapshot
	if err := s.Reader.Get(ctx, client.ObjectKeyFromObject(wanted), &there); err != nil {
		return err
	}
	if there.Spec != wanted.Spec {
		return status.Errorf(codes.AlreadyExists, "there is another snapshot %s/%s, of workspace %s on node %s with deletion policy %s: name this one differently",
			there.Namespace, there.Name, there.Spec.WorkspaceName, there.Spec.NodeName, there.Spec.DeletionPolicy)
	}
	return nil
}

// awaitSnapshot waits until the snapshot is ready, or stalled.
func (s *service) awaitSnapshot(ctx context.Context, wanted *v1.Snapshot) (*v1.Snapshot, error) {
	look := time.NewTicker(s.pauses.progress)
	defer look.Stop()
	var now v1.Snapshot
	for {
		err := s.Client.Get(ctx, client.ObjectKeyFromObject(wanted), &now)
		if err != nil && !apierrors.IsNotFound(err) { // the cache may not have it yet
			return nil, err
		}
		if apimeta.IsStatusConditionTrue(now.Status.Conditions, v1.ConditionReady) {
			return &now, nil
		}
		if c := apimeta.FindStatusCondition(now.Status.Conditions, v1.ConditionStalled); c != nil && c.Status == metav1.ConditionTrue {
			return nil, status.Errorf(codes.FailedPrecondition, "snapshot %s/%s: %s: %s", wanted.Namespace, wanted.Name, c.Reason, c.Message)
		}
		select {
		case <-ctx.Done():
			return nil, notYet(ctx, wanted, &now)
		case <-look.C:
		}
	}
}

// notYet says which snapshot is on its way.
func notYet(ctx context.Context, wanted, now *v1.Snapshot) error {
	cause := context.Cause(ctx)
	code := status.Code(cause)
	if code == codes.Unknown {
		code = status.FromContextError(cause).Code()
	}
	state := "the daemon has not looked at it yet"
	if c := apimeta.FindStatusCondition(now.Status.Conditions, v1.ConditionReady); c != nil {
		state = c.Reason + ": " + c.Message
	}
	return status.Errorf(code, "snapshot %s/%s is being made (%s): call again with its name to go on waiting", wanted.Namespace, wanted.Name, state)
}
