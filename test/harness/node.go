package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// restartPause is how long a supervised daemon stays dead.
const restartPause = 100 * time.Millisecond

// Node is a disk, a way to the API server, and the daemon that runs with them.
type Node struct {
	// Name of the node, unique among all tests.
	Name string
	// Dir holds the node's files; Area is its working area below it.
	Dir, Area string
	// Proxy is the way to the API server.
	Proxy *Proxy
	// Kubeconfig leads through it, unless a test puts another one in its place for the next start.
	Kubeconfig string

	w    *World
	env  []string
	once string // exists if KillAt has killed

	mu         sync.Mutex
	proc       *process.Process
	supervised bool
	deaths     atomic.Int32
}

// Node makes a node; its daemon is not started. The daemon's configuration has short times: options change it.
func (w *World) Node(name string, opts ...func(*config.Config)) *Node {
	w.t.Helper()
	dir := filepath.Join(w.Dir, name)
	n := &Node{Name: w.Namespace + "-" + name, Dir: dir, Area: filepath.Join(dir, "area"), w: w}
	w.must(os.Mkdir(dir, 0o711))
	w.must(os.Mkdir(n.Area, 0o711))
	var err error
	n.Proxy, err = newProxy(w.t.Context(), strings.TrimPrefix(w.Cluster.Config().Host, "https://"))
	w.must(err)
	w.nodes = append(w.nodes, n)
	n.access()
	n.Configure(opts...)
	return n
}

// access makes a kubeconfig that goes through the proxy, with the token of a daemon's pod on this node.
func (n *Node) access() {
	n.w.t.Helper()
	path, _, err := n.w.Cluster.AddPod(n.w.t.Context(), system, account, n.Name, n.Name)
	n.w.must(err)
	access, err := clientcmd.LoadFromFile(path)
	n.w.must(err)
	for _, c := range access.Clusters {
		c.Server = (&url.URL{Scheme: "https", Host: n.Proxy.Address()}).String()
	}
	n.Kubeconfig = filepath.Join(n.Dir, "kubeconfig")
	n.w.must(clientcmd.WriteToFile(*access, n.Kubeconfig))
}

// Configure writes the daemon's configuration anew, for the next start.
func (n *Node) Configure(opts ...func(*config.Config)) {
	n.w.t.Helper()
	n.w.must(os.WriteFile(n.ConfigFile(), n.w.config(n.Area, opts...), 0o600))
}

// config is a configuration with short times.
func (w *World) config(area string, opts ...func(*config.Config)) []byte {
	w.t.Helper()
	c := config.Default()
	c.Content.WorkingArea = area
	c.Content.OrphanGrace.Duration = time.Hour
	c.Content.Timeouts.RetryMax.Duration = 2 * time.Second
	c.Content.Git.AllowedSchemes = []string{"https", "http"}
	c.Content.Egress.Deny = []string{"169.254.0.0/16"} // the servers of tests are on this machine
	c.Storage = config.Storage{Kind: "filesystem", Filesystem: &config.Filesystem{Path: w.Store}}
	c.Volumes.Classes = map[string]config.Class{"default": {Driver: "directory", AllowUnlimited: true}}
	full := config.Threshold{Set: 100, Clear: 99} // the disk is that of a busy machine
	c.Node.Pressure = config.Pressure{Bytes: full, Inodes: full, ThinData: full, ThinMetadata: full}
	c.Health.Address, c.Metrics.Address, c.Service.Socket = "", "", ""
	c.Log = config.Log{Level: "debug", Format: "console"}
	for _, opt := range opts {
		opt(&c)
	}
	text, err := json.MarshalIndent(c, "", "  ")
	w.must(err)
	return text
}

// ConfigFile is the daemon's configuration.
func (n *Node) ConfigFile() string { return filepath.Join(n.Dir, "config.json") }

// Setenv sets a variable of the daemon's environment from the next start on.
func (n *Node) Setenv(key, value string) { n.env = append(n.env, key+"="+value) }

// KillAt has the daemon kill itself at a fault point ("name" or "name:3", the third time), once.
func (n *Node) KillAt(point string) {
	n.once = filepath.Join(n.Dir, "killed")
	n.Setenv("WS_DAEMON_FAULT", point)
	n.Setenv("WS_DAEMON_FAULT_ONCE", n.once)
}

// Killed says whether KillAt has done so.
func (n *Node) Killed() bool {
	_, err := os.Stat(n.once)
	return n.once != "" && err == nil
}

// Trace records the fault points that are reached from the next start on.
func (n *Node) Trace() { n.Setenv("WS_DAEMON_FAULT_TRACE", n.traceFile()) }

// Traced returns the names of the fault points that were reached, in order.
func (n *Node) Traced() []string {
	n.w.t.Helper()
	text, err := os.ReadFile(n.traceFile())
	if !errors.Is(err, os.ErrNotExist) {
		n.w.must(err)
	}
	return strings.Fields(string(text))
}

func (n *Node) traceFile() string { return filepath.Join(n.Dir, "trace") }

// Start starts the daemon, and returns the node.
func (n *Node) Start() *Node {
	n.w.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.w.must(n.start())
	return n
}

// start is called with the lock held.
func (n *Node) start() error {
	if n.proc.Alive() {
		return fmt.Errorf("the daemon of %s runs already", n.Name)
	}
	var err error
	n.proc, err = process.Start(n.logFile(), append(os.Environ(), n.env...), n.w.Env.Binary,
		"run", "--config", n.ConfigFile(), "--kubeconfig", n.Kubeconfig, "--node", n.Name)
	return err
}

// Supervise starts the daemon, and starts it again whenever it ends, until Stop, Kill or the end of the test. It returns the
// node.
func (n *Node) Supervise() *Node {
	n.w.t.Helper()
	n.Start()
	n.mu.Lock()
	n.supervised = true
	n.mu.Unlock()
	go func() {
		for again := true; again; again = n.restart() {
			<-n.current().Done()
			time.Sleep(restartPause)
		}
	}()
	return n
}

func (n *Node) restart() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaths.Add(1)
	return n.supervised && n.start() == nil
}

// Deaths is how often a supervised daemon has ended.
func (n *Node) Deaths() int { return int(n.deaths.Load()) }

// current is the daemon that was started last, nil before the first start.
func (n *Node) current() *process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// dismiss returns the daemon, which nobody starts again any more.
func (n *Node) dismiss() *process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.supervised = false
	return n.proc
}

// Alive says whether the daemon runs.
func (n *Node) Alive() bool { return n.current().Alive() }

// Kill ends the daemon by SIGKILL, as a power cut would, and waits until it is gone.
func (n *Node) Kill() {
	if p := n.dismiss(); p != nil {
		p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
}

// Stop ends the daemon by SIGTERM, waits, and fails the test if it does not end well.
func (n *Node) Stop() {
	n.w.t.Helper()
	if err := n.dismiss().Stop(Patience); err != nil {
		n.w.t.Fatalf("the daemon of %s ended badly: %v\n%s", n.Name, err, process.LastLines(n.Log(), 30))
	}
}

// Wait waits until the daemon ends by itself and returns how.
func (n *Node) Wait() error {
	n.w.t.Helper()
	n.w.Eventually("the daemon of "+n.Name+" has ended", func() error {
		if n.Alive() {
			return errors.New("it runs")
		}
		return nil
	})
	return n.current().Err()
}

func (n *Node) close() {
	n.Kill()
	n.Proxy.close()
	for _, mistake := range []string{"DATA RACE", "panic"} {
		if _, after, found := strings.Cut(n.Log(), mistake); found {
			n.w.t.Errorf("the daemon of %s has logged a %s%s", n.Name, mistake, after)
		}
	}
}

// Log is what the daemon has written so far, over all its starts.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (n *Node) logFile() string { return filepath.Join(n.Dir, "daemon.log") }

// Volumes lists the volumes on the disk, by the UID of their object.
func (n *Node) Volumes() []string {
	return slices.DeleteFunc(names(filepath.Join(n.Area, "volumes", "default")), func(name string) bool { return strings.HasPrefix(name, ".") })
}

// Journal lists the journal's files.
func (n *Node) Journal() []string { return names(filepath.Join(n.Area, "journal")) }

// names lists a directory; one that is not there is empty.
func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
