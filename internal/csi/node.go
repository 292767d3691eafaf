package csi

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// Node mounts workspaces for pods. Its methods are calls of the kubelet, which may come in any order, at once, and again.
type Node struct {
	csi.UnimplementedNodeServer

	// Name of this node.
	Name string
	// KubeletDir is the directory below which all targets lie.
	KubeletDir string
	// Keeper lends content.
	Keeper *content.Keeper
	// Patience is how long a call waits for a workspace.
	Patience time.Duration
	// Log gets what no caller is told.
	Log logr.Logger

	cluster atomic.Pointer[Cluster] // nil until Connect
	ended   atomic.Bool             // nobody waits any more
	bell    bell
	busy    sync.Map // targets with a call under way
	onEnd   atomic.Pointer[func(types.NamespacedName)]
}

// OnEnd has f told the name of each workspace that a pod has stopped using. f must not wait.
func (n *Node) OnEnd(f func(types.NamespacedName)) { n.onEnd.Store(&f) }

func (n *Node) kubelet() kubelet { return kubelet{dir: n.KubeletDir} }

// NodeGetInfo names the node.
func (n *Node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.Name}, nil
}

// NodeGetCapabilities tells that the usage of volumes is known.
func (n *Node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	stats := &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_GET_VOLUME_STATS}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{
		{Type: &csi.NodeServiceCapability_Rpc{Rpc: stats}},
	}}, nil
}

// take makes sure that a target has one call at a time: the kubelet may have given one up that still runs.
func (n *Node) take(target string) (release func(), err error) {
	if _, taken := n.busy.LoadOrStore(target, true); taken {
		return nil, refuse(codes.Aborted, "an earlier call for %s has not ended yet", target)
	}
	return func() { n.busy.Delete(target) }, nil
}

// NodePublishVolume mounts a workspace for a pod, once it is ready.
func (n *Node) NodePublishVolume(ctx context.Context, q *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	r, err := parse(q)
	if err == nil {
		_, err = n.kubelet().relative(r.target)
	}
	if err != nil {
		return nil, refuse(codes.InvalidArgument, "%v", err)
	}
	release, err := n.take(r.target)
	if err != nil {
		return nil, err
	}
	defer release()
	if done, err := n.published(ctx, r); done || err != nil {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if err := n.await(ctx, r, func(ctx context.Context, c *Cluster) error { return n.publish(ctx, c, r) }); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// published says whether all is as it shall be already, which takes nothing but the disk: a kubelet that was restarted asks again for
// what it has, also of workspaces that are stopping.
func (n *Node) published(ctx context.Context, r request) (bool, error) {
	there, err := n.kubelet().at(r.target)
	if err != nil {
		return false, refuse(codes.FailedPrecondition, "%v", err)
	}
	defer there.close()
	if !there.mounted {
		return false, nil
	}
	s, known := n.Keeper.Recognize(ctx, there.dir)
	if !known || s.Namespace != r.workspace.Namespace || s.Name != r.workspace.Name {
		return false, refuse(codes.AlreadyExists, "on %s something else is mounted than workspace %s", r.target, r.workspace)
	}
	isReadOnly, err := readOnly(there.mount)
	switch {
	case err != nil:
		return false, refuse(codes.Unavailable, "look at the mount of workspace %s on %s: %v", r.workspace, r.target, err)
	case isReadOnly != r.readOnly:
		return false, refuse(codes.AlreadyExists, "on %s workspace %s is mounted already, and readOnly is %v there", r.target, r.workspace, isReadOnly)
	}
	if err := n.Keeper.Found(s, r.use()); err != nil {
		return false, refuse(codes.Unavailable, "write down the mount of workspace %s: %v", r.workspace, err)
	}
	return true, nil
}

func (r request) use() state.Use {
	return state.Use{Target: r.target, Volume: r.volume, Pod: r.pod.Name, PodUID: r.podUID}
}

// publish mounts a workspace if it can be had now.
func (n *Node) publish(ctx context.Context, c *Cluster, r request) error {
	if err := n.pod(ctx, c, r); err != nil {
		return err
	}
	ws, err := n.workspace(ctx, c, r.workspace)
	if err != nil {
		return err
	}
	s := subjectOf(ws)
	dir, err := n.Keeper.Lend(ctx, s, r.use())
	if errors.Is(err, content.ErrNotLent) {
		return notYet("workspace %s: %v", r.workspace, err) // the object is behind the disk
	}
	if err != nil {
		return refuse(codes.Unavailable, "workspace %s: %v", r.workspace, err)
	}
	defer dir.Close()
	// Whoever decided to stop it before it was lent has not been told of this pod.
	if _, err := n.workspace(ctx, c, r.workspace); err != nil {
		return n.giveBack(r.target, err)
	}
	faults.Point("csi.lent")
	return n.mount(dir, r)
}

// mount mounts what was lent. If it cannot, nothing is left of it.
func (n *Node) mount(dir *os.File, r request) error {
	err := n.kubelet().mount(dir, r.target, r.readOnly)
	if err == nil {
		n.Log.Info("mounted", "workspace", r.workspace, "pod", r.pod, "target", r.target, "readOnly", r.readOnly)
		return nil
	}
	code := codes.Internal
	if errors.Is(err, errPrivate) || errors.Is(err, errOccupied) || errors.Is(err, os.ErrNotExist) {
		code = codes.FailedPrecondition
	}
	return n.giveBack(r.target, refuse(code, "workspace %s: %v", r.workspace, err))
}

// giveBack ends a use that came to nothing. If that cannot be written down, the kubelet must ask for the end: it does not after errors
// that say that nothing has happened.
func (n *Node) giveBack(target string, why error) error {
	if err := n.returned(target); err != nil {
		return refuse(codes.Unavailable, "%v; and the use that came to nothing stays written down: %v", why, err)
	}
	return why
}

// returned takes a use out of the journal, and wakes whoever waits for that.
func (n *Node) returned(target string) error {
	all, err := n.Keeper.Return(target)
	f := n.onEnd.Load()
	for _, s := range all {
		if f != nil {
			(*f)(types.NamespacedName{Namespace: s.Namespace, Name: s.Name})
		}
	}
	return err
}

func subjectOf(ws *v1.Workspace) content.Subject {
	return content.Subject{
		UID: string(ws.UID), Namespace: ws.Namespace, Name: ws.Name, Class: ws.Spec.Volume.Class, Claim: ws.Status.Claim,
	}
}

// NodeUnpublishVolume unmounts whatever is mounted on a target. It needs to know nothing of the workspace.
func (n *Node) NodeUnpublishVolume(_ context.Context, q *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	target := q.GetTargetPath()
	err := errors.Join(given("volume_id", q.GetVolumeId()), given("target_path", target))
	if err == nil {
		_, err = n.kubelet().relative(target)
	}
	if err != nil {
		return nil, refuse(codes.InvalidArgument, "%v", err)
	}
	release, err := n.take(target)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := n.kubelet().unmount(target); err != nil {
		return nil, refuse(codes.Internal, "%v", err)
	}
	if err := n.returned(target); err != nil {
		return nil, refuse(codes.Internal, "%s is unmounted, which could not be written down: %v", target, err)
	}
	n.Log.Info("unmounted", "target", target)
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeGetVolumeStats tells what a volume takes of its limits.
func (n *Node) NodeGetVolumeStats(ctx context.Context, q *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	target := q.GetVolumePath()
	if err := errors.Join(given("volume_id", q.GetVolumeId()), given("volume_path", target)); err != nil {
		return nil, refuse(codes.InvalidArgument, "%v", err)
	}
	users := n.Keeper.Area.Journal().UsedAt(target)
	if len(users) == 0 {
		return nil, refuse(codes.NotFound, "no workspace is mounted on %s", target)
	}
	there, err := n.kubelet().at(target)
	if err != nil {
		return nil, refuse(codes.Internal, "%v", err)
	}
	defer there.close()
	if !there.mounted {
		return nil, refuse(codes.NotFound, "nothing is mounted on %s", target)
	}
	e := users[0]
	full, err := n.Keeper.Fullness(ctx, content.Subject{UID: e.UID, Namespace: e.Namespace, Name: e.Name, Class: e.Class, Claim: e.Claim}, there.dir)
	if err != nil {
		return nil, refuse(codes.Internal, "measure workspace %s/%s: %v", e.Namespace, e.Name, err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: full.Bytes.Total, Used: full.Bytes.Used, Available: full.Bytes.Free},
		{Unit: csi.VolumeUsage_INODES, Total: full.Inodes.Total, Used: full.Inodes.Used, Available: full.Inodes.Free},
	}}, nil
}
