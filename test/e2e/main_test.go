//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/hack/nodes"
	"wsdaemon.dev/ws-daemon/hack/repository"
	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/hack/vm"
)

const (
	// setupLimit bounds all that comes before the first test; tools may have to be built.
	setupLimit = 40 * time.Minute
	// patience is how long anything may take where every instruction is emulated.
	patience = 6 * time.Minute
	// tick is the pause between two looks.
	tick = 500 * time.Millisecond
	// memory of a node in MiB.
	memory = 2560
)

// Flags of the test program.
var (
	accel   = flag.String("accel", string(vm.Auto), "kvm, tcg, or auto: kvm where it boots")
	archive = flag.String("image", "", "archive of the daemon's image, as `make image` writes it (required)")
	image   = flag.String("image-name", "ws-daemon:e2e", "name of the image in the archive")
	hold    = flag.Bool("hold", false, "after a failure, keep the cluster until an interrupt, for those who look around")
)

// environment is what all tests share.
type environment struct {
	root    string // the repository
	dir     string // goes in the end
	results string // stays
	kubectl string
	binary  string // the daemon, for this machine
	cluster *nodes.Cluster
	client  client.Client
	store   *stores.Server
	git     *httptest.Server
	a, b    *nodes.Node
}

var env environment

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	defer env.close()
	defer closeWhenInterrupted()()
	ctx, cancel := context.WithTimeoutCause(context.Background(), setupLimit, fmt.Errorf("it took longer than %s", setupLimit))
	defer cancel()
	code := 1
	if err := env.start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: cannot begin:", err)
	} else {
		code = m.Run()
	}
	if code != 0 {
		env.keepLogs()
	}
	if code != 0 && *hold {
		fmt.Fprintln(os.Stderr, "e2e: the cluster runs until an interrupt; its files are in", env.dir)
		select {}
	}
	return code
}

// closeWhenInterrupted leaves nothing behind when a person has seen enough, until the function is called that it returns.
func closeWhenInterrupted() (stop func()) {
	interrupted, stopped := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-stopped:
		case <-interrupted:
			env.close()
			os.Exit(130)
		}
	}()
	return func() { close(stopped) }
}

// stage says how long a part of the preparation took.
func stage(name string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(os.Stderr, "e2e: %s: %.1f s\n", name, time.Since(start).Seconds())
	return nil
}

func (e *environment) start(ctx context.Context) (err error) {
	if *archive == "" {
		return fmt.Errorf("-image is missing: `make e2e` gives it")
	}
	if e.root, err = repository.Root(); err != nil {
		return err
	}
	e.results = filepath.Join(e.root, "bin", "e2e")
	if err := os.RemoveAll(e.results); err != nil {
		return err
	}
	if e.dir, err = os.MkdirTemp("", "ws-daemon-e2e-"); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"programs", func() error { return e.build(ctx) }},
		{"store", func() error { return e.startStore(ctx) }},
		{"repository", func() error { return e.startGit(ctx) }},
		{"control plane", func() error { return e.startCluster(ctx) }},
		{"nodes", func() error { return e.startNodes(ctx) }},
		{"deployment", func() error { return e.install(ctx) }},
	} {
		if err := stage(s.name, s.do); err != nil {
			return err
		}
	}
	return nil
}

func (e *environment) build(ctx context.Context) error {
	found, err := cluster.FindTools(ctx, os.Stderr, cluster.Kubectl)
	if err != nil {
		return err
	}
	e.kubectl, e.binary = found[cluster.Kubectl], filepath.Join(e.dir, "ws-daemon")
	return vm.BuildProgram(ctx, e.root, e.binary, ".")
}

// startStore starts an S3 server.
func (e *environment) startStore(ctx context.Context) (err error) {
	e.store, err = stores.StartS3(ctx, filepath.Join(e.dir, "store"), os.Stderr)
	return err
}

// archive runs the daemon's command line against the store.
func (e *environment) archive(ctx context.Context, command string, args ...string) (string, error) {
	args = append([]string{"archive", command, "--store", e.store.URL("e2e", "")}, args...)
	cmd := exec.CommandContext(ctx, e.binary, args...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+stores.AccessKey, "AWS_SECRET_ACCESS_KEY="+stores.SecretKey)
	return output(cmd)
}

// output runs a command and returns what it prints; an error has its complaints.
func output(cmd *exec.Cmd) (string, error) {
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, out, complaints.String())
	}
	return strings.TrimSpace(string(out)), err
}

// startGit serves a small repository, whose working copy is in the directory "repository".
func (e *environment) startGit(ctx context.Context) error {
	const script = `
		mkdir -p repository/src/deep served && cd repository
		for i in $(seq 100); do seq "$i" "$((i * 50))" >src/deep/file-"$i"; done
		printf '#!/bin/sh\necho hello\n' >src/run && chmod 755 src/run
		printf 'hello\n' >README
		git init --quiet --initial-branch=main && git add .
		git -c user.name=Test -c user.email=test@example.invalid commit --quiet --message 'Say hello'
		git clone --quiet --bare . ../served/hello.git
		git --exec-path`
	cmd := exec.CommandContext(ctx, "bash", "-euc", script)
	cmd.Dir = e.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	programs, err := output(cmd)
	if err != nil {
		return err
	}
	e.git = httptest.NewServer(e.gitHandler(programs))
	return nil
}

func (e *environment) gitHandler(programs string) http.Handler {
	served := filepath.Join(e.dir, "served")
	return &cgi.Handler{
		Path: filepath.Join(programs, "git-http-backend"),
		Dir:  served,
		Env:  []string{"GIT_PROJECT_ROOT=" + served, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1"},
	}
}

// outside gives the address of a server of this machine as nodes and pods see it.
func outside(address string) string { return strings.Replace(address, "127.0.0.1", nodes.Outside, 1) }

func (e *environment) close() {
	if e.cluster != nil {
		e.cluster.Stop()
	}
	if e.git != nil {
		e.git.Close()
	}
	_ = e.store.Stop() // it is told to end, and may call that a failure
	_ = os.RemoveAll(e.dir)
}

// keepLogs copies what a person would look at into the directory of results.
func (e *environment) keepLogs() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Fprintln(os.Stderr, "e2e: logs are kept in", e.results)
	if e.cluster == nil {
		return
	}
	for _, n := range e.cluster.Nodes() {
		if err := n.KeepLogs(ctx, e.results); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}
	if e.cluster.Cluster == nil {
		return
	}
	for _, file := range e.cluster.LogFiles() {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(e.results, filepath.Base(file)), text, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}
	const kinds = "nodes,pods,daemonsets,deployments,configmaps,leases,csidrivers,csinodes,events,workspaces,snapshots,workspacenodes"
	objects, err := e.kube(ctx, "", "get", kinds, "--all-namespaces", "--output=yaml")
	if err != nil {
		objects += err.Error()
	}
	_ = os.WriteFile(filepath.Join(e.results, "objects.yaml"), []byte(objects), 0o644)
}
