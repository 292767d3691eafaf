package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"

	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/hack/repository"
	"wsdaemon.dev/ws-daemon/hack/tools"
	"wsdaemon.dev/ws-daemon/hack/vm"
)

const (
	// requestTimeout bounds what is done at once on a machine that is well.
	requestTimeout = 10 * time.Second
	// pollInterval is the pause between two looks.
	pollInterval = 250 * time.Millisecond
)

// Options of a cluster.
type Options struct {
	// Dir keeps all files, the nodes' disks included; it is created. The caller removes it.
	Dir string
	// Accel is how the nodes' instructions are executed; empty: vm.Auto.
	Accel vm.Accel
	// Memory of each node in MiB, and its processors; 0: what vm.Options says.
	Memory, CPUs int
	// Images are archives as `docker save` writes them, which every node's containerd has.
	// One of them must be that of [ShellImage].
	Images []string
	// Log gets progress; nil drops it.
	Log io.Writer
}

// Cluster is a control plane and its nodes.
type Cluster struct {
	*cluster.Cluster

	options  Options
	image    *vm.Image
	client   kubernetes.Interface
	proxy    *proxy
	programs string // directory of what every node runs
	nodes    []*Node
}

// Start builds what is missing, which takes minutes the first time, and starts the control plane.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("start cluster of nodes: %w", err)
	}
	c := &Cluster{options: o, programs: filepath.Join(o.Dir, "programs")}
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if c.image, err = vm.Prepare(ctx, c.options.Log); err != nil {
		return err
	}
	if err := c.build(ctx); err != nil {
		return err
	}
	socket := filepath.Join(c.options.Dir, "nodes.sock")
	if c.proxy, err = newProxy(ctx, socket); err != nil {
		return err
	}
	c.Cluster, err = cluster.Start(ctx, cluster.Options{
		Dir: filepath.Join(c.options.Dir, "control-plane"), Nodes: true, NodeProxy: socket, Log: c.options.Log,
	})
	if err != nil {
		return err
	}
	c.client, err = kubernetes.NewForConfig(c.Config())
	return err
}

// build makes the directory of programs that every node runs.
func (c *Cluster) build(ctx context.Context) error {
	root, err := repository.Root()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.programs, 0o755); err != nil {
		return fmt.Errorf("build what nodes run: %w", err)
	}
	if err := vm.BuildProgram(ctx, root, filepath.Join(c.programs, "agent"), "./hack/nodes/agent"); err != nil {
		return err
	}
	found, err := cluster.FindTools(ctx, c.options.Log, cluster.Kubelet)
	if err != nil {
		return err
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		const module = "github.com/containerd/containerd/v2"
		found[name], err = tools.Tool{Name: name, In: "containerd", Module: module, Package: module + "/cmd/" + name}.Build(ctx, c.options.Log)
		if err != nil {
			return err
		}
	}
	for name, file := range found {
		if err := os.Symlink(file, filepath.Join(c.programs, name)); err != nil {
			return fmt.Errorf("build what nodes run: %w", err)
		}
	}
	return c.importImages(ctx)
}

// Nodes are all that were added, whether their power is on or not.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Stop cuts the power of all nodes and ends the control plane.
func (c *Cluster) Stop() {
	for _, n := range c.nodes {
		n.PowerOff()
	}
	if c.Cluster != nil {
		c.Cluster.Stop()
	}
	if c.proxy != nil {
		c.proxy.close()
	}
}

func (c *Cluster) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.options.Log, "nodes: "+format+"\n", args...)
}

// here gives the address of a port of this machine.
func here(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// eventually calls check until it succeeds, or returns its last error at the end of ctx.
func eventually(ctx context.Context, what string, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if process.Pause(ctx, pollInterval) != nil {
			return errors.Join(fmt.Errorf("wait until %s: %w", what, context.Cause(ctx)), err)
		}
	}
}
