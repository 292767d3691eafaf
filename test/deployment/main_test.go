// Package deployment tests what a cluster is given: the manifests of config on a real API server, and what a daemon's token is good for
// with them.
package deployment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/cluster"
)

const (
	// root is the repository.
	root = "../.."
	// system and account are what a daemon is to the API server.
	system, account = "ws-daemon-system", "ws-daemon"
	// patience is how long anything may take on a busy machine.
	patience = 30 * time.Second
)

var (
	// api is the API server, and kubectl the program that belongs to it.
	api     *cluster.Cluster
	kubectl string
)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ws-daemon-deployment-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	tools, err := cluster.FindTools(ctx, os.Stderr, cluster.Kubectl)
	if err != nil {
		panic(err)
	}
	kubectl = tools[cluster.Kubectl]
	if api, err = cluster.Start(ctx, cluster.Options{Dir: dir, Log: os.Stderr}); err != nil {
		panic(err)
	}
	defer api.Stop()
	if err := deploy(ctx); err != nil {
		panic(err)
	}
	return m.Run()
}

// deploy applies what `make deploy` does, for all tests.
func deploy(ctx context.Context) error {
	if out, err := run(ctx, nil, "apply", "--server-side", "-k", filepath.Join(root, "config/crd")); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	names := []string{"workspaces", "snapshots", "workspacenodes"}
	for i := range names {
		names[i] += ".workspace.wsdaemon.dev"
	}
	if err := api.WaitCRDs(ctx, names...); err != nil {
		return err
	}
	if out, err := run(ctx, nil, "apply", "--server-side", "--validate=strict", "-k", filepath.Join(root, "config/default")); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// run runs kubectl as the administrator and returns what it printed.
func run(ctx context.Context, input []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, kubectl, append([]string{"--kubeconfig", api.Kubeconfig()}, args...)...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustRun runs kubectl as the administrator, which has to succeed.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t.Context(), nil, args...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "kubectl %q: %s", args, out)
	return out
}

// connect returns a client with the given access.
func connect(t *testing.T, access *rest.Config) client.Client {
	t.Helper()
	g := NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(errors.Join(corev1.AddToScheme(scheme), eventsv1.AddToScheme(scheme), rbacv1.AddToScheme(scheme), v1.AddToScheme(scheme))).To(Succeed())
	c, err := client.New(access, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	return c
}
