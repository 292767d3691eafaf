package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/cluster"
)

const (
	module = "wsdaemon.dev/ws-daemon"
	// raceEnv builds the daemon with the race detector.
	raceEnv = "WS_DAEMON_TEST_RACE"
	// system is where everything is deployed, and these are what daemons and the cluster controller are to the API server.
	system, account, controllerAccount = "ws-daemon-system", "ws-daemon", "ws-daemon-controller"
	// startLimit bounds the start of everything; tools may have to be built first.
	startLimit = 20 * time.Minute
)

// Env is what all tests of a test binary share.
type Env struct {
	// Cluster is the API server. A test that stops it must not run beside others.
	Cluster *cluster.Cluster
	// Client is the administrator's.
	Client client.Client
	// Binary is the daemon, with fault points.
	Binary string
	// Dir holds everything; it goes with the Env.
	Dir string
	// Root is the repository.
	Root string

	serial atomic.Int64
}

// Main runs the tests of a package in an Env and returns the exit code.
func Main(m *testing.M, env **Env) int {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	e, err := Start(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	defer e.Close()
	*env = e
	return m.Run()
}

// Start builds the daemon and starts an API server with our CRDs and roles. ctx bounds the start only.
func Start(ctx context.Context) (*Env, error) {
	dir, err := os.MkdirTemp("", "ws-daemon-test-")
	if err != nil {
		return nil, err
	}
	e := &Env{Dir: dir, Binary: filepath.Join(dir, "bin", "ws-daemon")}
	// Users reach their content below it.
	if err := errors.Join(os.Chmod(dir, 0o711), e.start(ctx)); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func (e *Env) start(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	e.Root = strings.TrimSpace(string(out))
	if err := e.build(ctx); err != nil {
		return err
	}
	e.Cluster, e.Client, err = e.startCluster(ctx, filepath.Join(e.Dir, "cluster"))
	return err
}

// Close ends the API server and removes everything.
func (e *Env) Close() {
	if e.Cluster != nil {
		e.Cluster.Stop()
	}
	_ = os.RemoveAll(e.Dir)
}

// build compiles the daemon. The compiler runs as the user who called sudo, if anybody did: its cache shall hold no files
// that this user cannot remove.
func (e *Env) build(ctx context.Context) error {
	bin := filepath.Dir(e.Binary)
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-tags", "faults", "-o", e.Binary}
	if os.Getenv(raceEnv) != "" {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, module)...)
	uid, uidErr := strconv.Atoi(os.Getenv("SUDO_UID"))
	gid, gidErr := strconv.Atoi(os.Getenv("SUDO_GID"))
	if os.Geteuid() == 0 && uidErr == nil && gidErr == nil {
		if err := os.Chown(bin, uid, gid); err != nil {
			return err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return nil
}

// startCluster starts an API server in a directory, with our CRDs and roles, and returns the administrator's client as well.
func (e *Env) startCluster(ctx context.Context, dir string) (*cluster.Cluster, client.Client, error) {
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir, ControllerManager: true, Log: os.Stderr})
	if err != nil {
		return nil, nil, err
	}
	cl, err := newClient(c)
	if err == nil {
		err = errors.Join(c.InstallCRDs(ctx, e.crds()), grant(ctx, cl, filepath.Join(e.Root, "config")))
	}
	if err != nil {
		c.Stop()
		return nil, nil, err
	}
	return c, cl, nil
}

func (e *Env) crds() string { return filepath.Join(e.Root, "config", "crd", "bases") }

// grant gives daemons and the cluster controller the rights that they are deployed with, and nothing more: what is missing fails a test.
// The daemons' events are told in the name of this machine, not of a pod: the policy for those is left out.
func grant(ctx context.Context, cl client.Client, config string) error {
	for _, file := range []string{
		"manager/namespace.yaml", "rbac/role.yaml", "rbac/role_binding.yaml", "controller/role.yaml", "controller/role_binding.yaml",
		"admission/node.yaml", "admission/workspacenode.yaml", "admission/workspace.yaml", "admission/controller.yaml",
	} {
		text, err := os.ReadFile(filepath.Join(config, file))
		if err != nil {
			return err
		}
		for part := range strings.SplitSeq(string(text), "\n---\n") {
			o := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(part), &o.Object); err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
			if err := cl.Create(ctx, o); err != nil {
				return fmt.Errorf("install %s: %w", file, err)
			}
		}
	}
	return nil
}

// newClient gives the administrator's client of a cluster, uncached and without a rate limit.
func newClient(c *cluster.Cluster) (client.Client, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(corev1.AddToScheme(scheme), eventsv1.AddToScheme(scheme),
		apiextensionsv1.AddToScheme(scheme), v1.AddToScheme(scheme))
	if err != nil {
		return nil, err
	}
	config := c.Config()
	config.QPS = -1
	return client.New(config, client.Options{Scheme: scheme})
}
