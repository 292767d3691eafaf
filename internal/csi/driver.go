package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/persist"
)

const (
	// retryInterval is the pause before the sockets are made again.
	retryInterval = 10 * time.Second
	// lookInterval is how often it is looked whether they are still there.
	lookInterval = 30 * time.Second
	// stopTimeout is how long calls have to end.
	stopTimeout = 5 * time.Second
	// version of the interface, as kubelets ask for it.
	version = "1.0.0"
	// maxMessage is the most that a call says, in bytes: some attributes of a pod's volume.
	maxMessage = 1 << 20
)

// Driver is the CSI driver on its sockets.
type Driver struct {
	// Node does the work.
	Node *Node
	// Metrics count calls.
	Metrics *Metrics

	socket, registrationDir, version string
	retry, look                      time.Duration

	mu        sync.Mutex
	onFailure func(message string)
	failure   string // what nobody could be told of yet
}

// NewDriver returns the driver of a node. The kubelet must have the socket, and the directory in which it looks for drivers that it does
// not know, by the same paths.
func NewDriver(n *Node, socket, registrationDir, version string) *Driver {
	return &Driver{
		Node: n, Metrics: NewMetrics(n.Keeper.Area.Journal()), socket: socket, registrationDir: registrationDir, version: version,
		retry: retryInterval, look: lookInterval,
	}
}

// OnFailure has f told why pods cannot get workspaces, whenever that changes, and at once of what failed before.
func (d *Driver) OnFailure(f func(message string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onFailure = f
	if d.failure != "" {
		f(d.failure)
	}
}

func (d *Driver) fail(err error, why string) {
	d.Node.Log.Error(err, why)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failure = why + ": " + err.Error()
	if d.onFailure != nil {
		d.onFailure(d.failure)
	}
}

// Run serves until ctx ends. Sockets that cannot be made, or vanish, are no reason to stop the rest of the daemon: they are made
// again.
func (d *Driver) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { d.Node.watch(ctx) })
	defer context.AfterFunc(ctx, d.Node.end)()
	persist.Serve(ctx, d.retry, func() error { return d.serve(ctx) }, func(err error) { d.fail(err, "pods cannot get workspaces as volumes") })
	return nil
}

// registrationSocket is the driver's entry in the kubelet's directory.
func (d *Driver) registrationSocket() string {
	return filepath.Join(d.registrationDir, v1.CSIDriver+"-reg.sock")
}

// serve serves until ctx ends or it cannot. The kubelet is told of the driver when that can be called; when its socket goes, so does what
// the kubelet knew.
func (d *Driver) serve(ctx context.Context) error {
	defer d.Metrics.registered(false)
	if err := os.MkdirAll(filepath.Dir(d.socket), 0o750); err != nil {
		return fmt.Errorf("csi.socket: %w", err)
	}
	calls, err := listen(ctx, d.socket)
	if err != nil {
		return fmt.Errorf("csi.socket: %w", err)
	}
	defer calls.Close()
	registrations, err := listen(ctx, d.registrationSocket())
	if err != nil {
		return fmt.Errorf("csi.registrationDir: %w", err)
	}
	defer registrations.Close()
	made, err := identify(d.socket, d.registrationSocket())
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.answer(ctx, calls, d.register) })
	group.Go(func() error { return d.answer(ctx, registrations, d.introduce) })
	group.Go(func() error { return stay(ctx, d.look, made) })
	return group.Wait()
}

func (d *Driver) register(s *grpc.Server) {
	csi.RegisterIdentityServer(s, identity{driver: d})
	csi.RegisterNodeServer(s, d.Node)
}

func (d *Driver) introduce(s *grpc.Server) {
	registration.RegisterRegistrationServer(s, introduction{driver: d})
}

// listen makes a socket for root alone, in place of the one that an earlier daemon may have left: there is one daemon on a node, or
// it would not have the working area.
func listen(ctx context.Context, path string) (net.Listener, error) {
	there, err := os.Lstat(path)
	if err == nil && there.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s is there and no socket: remove it", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// answer serves one socket until ctx ends; calls under way have a moment to end.
func (d *Driver) answer(ctx context.Context, listener net.Listener, register func(*grpc.Server)) error {
	server := grpc.NewServer(grpc.UnaryInterceptor(d.observe), grpc.MaxRecvMsgSize(maxMessage))
	register(server)
	stopped := make(chan struct{})
	defer func() { <-stopped }()
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		hard := time.AfterFunc(stopTimeout, server.Stop)
		defer hard.Stop()
		server.GracefulStop()
	})
	err := server.Serve(listener)
	if stop() {
		close(stopped)
	}
	return err
}

// identify tells what files are, so that others in their place are found.
func identify(paths ...string) (map[string]os.FileInfo, error) {
	files := map[string]os.FileInfo{}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil {
			return nil, err
		}
		files[path] = info
	}
	return files, nil
}

// stay fails when a socket is not there any more.
func stay(ctx context.Context, look time.Duration, made map[string]os.FileInfo) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for path, was := range made {
			if now, err := os.Lstat(path); err != nil || !os.SameFile(was, now) {
				return fmt.Errorf("somebody has removed or replaced %s", path)
			}
		}
	}
}

// observe counts and logs each call. One that panics fails alone.
func (d *Driver) observe(ctx context.Context, q any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (a any, err error) {
	began, method := time.Now(), filepath.Base(info.FullMethod)
	defer func() {
		if cause := recover(); cause != nil {
			d.Node.Log.Error(fmt.Errorf("%v", cause), "panic", "method", method, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "the daemon made a mistake: its log has more")
		}
		took := time.Since(began)
		d.Metrics.called(method, status.Code(err), took)
		if err != nil {
			d.Node.Log.Info("refused", "method", method, "code", status.Code(err).String(), "because", status.Convert(err).Message(), "after", took.String())
		}
	}()
	return handle(ctx, q)
}

// identity says what the driver is.
type identity struct {
	csi.UnimplementedIdentityServer

	driver *Driver
}

// GetPluginInfo names the driver.
func (i identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: v1.CSIDriver, VendorVersion: i.driver.version}, nil
}

// GetPluginCapabilities tells that there is nothing but the node's part: workspaces are made by their objects.
func (i identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// Probe says whether volumes can be published: whether the daemon knows the node's objects, and its disks are usable.
func (i identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(i.driver.Node.ready())}, nil
}

// introduction tells the kubelet of the driver.
type introduction struct {
	registration.UnimplementedRegistrationServer

	driver *Driver
}

// GetInfo says where the driver is.
func (i introduction) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: v1.CSIDriver, Endpoint: i.driver.socket, SupportedVersions: []string{version},
	}, nil
}

// NotifyRegistrationStatus takes note of what the kubelet makes of that. It tries again by itself.
func (i introduction) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	d := i.driver
	d.Metrics.registered(s.GetPluginRegistered())
	if s.GetPluginRegistered() {
		d.mu.Lock()
		d.failure = ""
		d.mu.Unlock()
		d.Node.Log.Info("the kubelet knows the driver", "driver", v1.CSIDriver, "socket", d.socket)
	} else {
		d.fail(errors.New(s.GetError()), "the kubelet refuses the CSI driver")
	}
	return &registration.RegistrationStatusResponse{}, nil
}
