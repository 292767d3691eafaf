package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"wsdaemon.dev/ws-daemon/hack/process"
)

// startTimeout is how long each program may take until it answers, on a busy machine.
const startTimeout = 2 * time.Minute

// Options of a cluster.
type Options struct {
	// Dir keeps the data, keys, kubeconfigs and logs; it is created. What an earlier cluster stored there is found again.
	Dir string
	// APIPort is the port of the API server on 127.0.0.1; 0 chooses a free one.
	APIPort int
	// ControllerManager says whether deleted namespaces are emptied and owned objects collected.
	ControllerManager bool
	// Nodes says whether kubelets join: pods get service accounts, all controllers and a scheduler run, and a node may write only what is
	// its own. How the API server reaches kubelets is up to the Unix socket NodeProxy, a proxy that is asked to CONNECT.
	Nodes     bool
	NodeProxy string
	// Log gets progress; nil drops it.
	Log io.Writer
}

// Cluster is a running control plane. Its methods may be called from several goroutines.
type Cluster struct {
	dir     string
	tools   map[string]string
	ca      *authority
	config  *rest.Config
	ports   ports
	options Options
	lock    *os.File

	mu        sync.Mutex
	etcd      *process.Process
	api       *process.Process
	manager   *process.Process
	scheduler *process.Process
}

type ports struct{ etcd, peer, api int }

// Start starts a control plane and returns when it answers, seconds later (minutes, if the programs must be built). ctx
// bounds the start only: call Stop in the end. The children also die with this process, however it ends.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	names := []string{Etcd, APIServer}
	if o.ControllerManager || o.Nodes {
		names = append(names, ControllerManager)
	}
	if o.Nodes {
		names = append(names, Scheduler)
	}
	tools, err := FindTools(ctx, o.Log, names...)
	if err != nil {
		return nil, err
	}
	c := &Cluster{tools: tools, options: o}
	if err := c.prepare(o); err != nil {
		return nil, err
	}
	if err := c.startAll(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// prepare writes what the programs read, and chooses where they listen.
func (c *Cluster) prepare(o Options) error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return fmt.Errorf("start cluster: bad directory %q", o.Dir)
	}
	c.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	if c.ports, err = choosePorts(o.APIPort); err != nil {
		return err
	}
	if err := c.lockDir(); err != nil {
		return err
	}
	if err := errors.Join(c.writeKeys(), c.writeAuditPolicy()); err != nil {
		_ = c.lock.Close()
		return err
	}
	return nil
}

func choosePorts(api int) (ports, error) {
	free, err := FreePorts(3)
	if err != nil {
		return ports{}, err
	}
	p := ports{etcd: free[0], peer: free[1], api: free[2]}
	if api != 0 {
		p.api = api
	}
	return p, nil
}

// lockDir refuses a directory that another cluster uses.
func (c *Cluster) lockDir() error {
	file, err := os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return fmt.Errorf("start cluster: another one runs in %s: %w", c.dir, err)
	}
	c.lock = file
	return nil
}

// writeKeys makes a new authority, the API server's keys and the administrator's kubeconfig.
func (c *Cluster) writeKeys() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	c.ca = ca
	// A virtual machine with user networking reaches the host's loopback at 10.0.2.2, and its pods reach it at the first address of services.
	server, err := ca.server("kube-apiserver", []string{"localhost", "kubernetes.default.svc"}, "127.0.0.1", "10.0.2.2", ServiceAddress)
	if err != nil {
		return err
	}
	serviceAccounts, err := newKey()
	if err != nil {
		return err
	}
	err = writeFiles(map[string][]byte{
		c.path("ca.crt"):              ca.pem,
		c.path("apiserver.crt"):       server.cert,
		c.path("apiserver.key"):       server.key,
		c.path("service-account.key"): serviceAccounts,
	})
	if err != nil {
		return err
	}
	if c.config, err = c.newUser(c.Kubeconfig(), "admin", "system:masters"); err != nil {
		return err
	}
	return c.writeNodeKeys()
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// startAll starts what does not run. The caller holds mu, or nobody else knows the cluster yet.
func (c *Cluster) startAll(ctx context.Context) error {
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if err := c.startAPI(ctx); err != nil {
		return err
	}
	return errors.Join(c.startManager(), c.startScheduler())
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	client, peer := url("http", c.ports.etcd), url("http", c.ports.peer)
	etcd, err := c.start(Etcd,
		"--data-dir="+c.path("etcd"),
		"--listen-client-urls="+client,
		"--advertise-client-urls="+client,
		"--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer,
		"--initial-cluster=default="+peer,
		// Power cuts do not matter here; the page cache survives a kill.
		"--unsafe-no-fsync",
		"--log-level=warn",
	)
	if err != nil {
		return err
	}
	c.etcd = etcd
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return wait(ctx, Etcd, etcd, func(ctx context.Context) error { return checkEtcd(ctx, client) })
}

func (c *Cluster) startAPI(ctx context.Context) error {
	api, err := c.start(APIServer, append([]string{
		"--etcd-servers=" + url("http", c.ports.etcd),
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(c.ports.api),
		"--tls-cert-file=" + c.path("apiserver.crt"),
		"--tls-private-key-file=" + c.path("apiserver.key"),
		"--client-ca-file=" + c.path("ca.crt"),
		"--cert-dir=" + c.path("certs"),
		"--service-account-key-file=" + c.path("service-account.key"),
		"--service-account-signing-key-file=" + c.path("service-account.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--authorization-mode=RBAC,Node",
		"--audit-policy-file=" + c.path("audit.yaml"),
		"--audit-log-path=" + c.AuditLog(),
		"--service-cluster-ip-range=10.0.0.0/24",
		// A loopback address is not accepted as an endpoint, and nobody looks it up.
		"--endpoint-reconciler-type=none",
		"--allow-privileged=true",
	}, c.nodeFlags()...)...)
	if err != nil {
		return err
	}
	c.api = api
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return wait(ctx, APIServer, api, c.checkAPI)
}

func (c *Cluster) startManager() error {
	if !c.options.ControllerManager && !c.options.Nodes {
		return nil
	}
	flags := []string{"--kubeconfig=" + c.Kubeconfig(), "--leader-elect=false", "--secure-port=0"}
	manager, err := c.start(ControllerManager, append(flags, c.managerFlags()...)...)
	if err != nil {
		return err
	}
	c.manager = manager
	return nil
}

// Config gives the administrator's access. The caller may change it.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig gives the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// Dir gives the directory in which the cluster lives; the logs are its *.log files.
func (c *Cluster) Dir() string { return c.dir }

// StopAPI stops the API server alone: connections to its port are refused until StartAPI.
func (c *Cluster) StopAPI() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.api.Stop(stopGrace) // it is to be gone, not to be well
	c.api = nil
}

// StartAPI starts the API server again, on its old port and with its old data, and returns when it answers.
func (c *Cluster) StartAPI(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api.Alive() {
		return nil
	}
	for try := 1; ; try++ {
		err := c.startAPI(ctx)
		if err == nil || try == 3 || ctx.Err() != nil || c.api.Alive() {
			return err // it ends at once if somebody else is just looking whether its port is free
		}
	}
}

// Alive gives an error if a process that should run has ended.
func (c *Cluster) Alive() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(alive(Etcd, c.etcd), alive(APIServer, c.api), alive(ControllerManager, c.manager), alive(Scheduler, c.scheduler))
}

// Stop ends all processes. What they stored stays in the directory.
func (c *Cluster) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopAll()
	_ = c.lock.Close()
}

// stopAll stops clients before their servers.
func (c *Cluster) stopAll() {
	for _, p := range []**process.Process{&c.scheduler, &c.manager, &c.api, &c.etcd} {
		_ = (*p).Stop(stopGrace) // it is to be gone, not to be well
		*p = nil
	}
}
