//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/hack/vm"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// system is the namespace of the daemons.
const system = "ws-daemon-system"

// sandboxed is what nodes with Linux 6.1 say of their sandbox: the one protection is missing that takes a newer kernel.
const sandboxed = `jsonpath={.status.conditions[?(@.type=="Sandboxed")].message}=` +
	"hostile content is read without Connections (the kernel cannot keep a program to a port (Landlock of Linux 6.7 can))"

// overlay is what docs/install.md calls production/kustomization.yaml. The nodes' disks differ, so each node has a configuration of its own.
const overlay = `resources: [../../../config/samples/store/s3]
components: [../../../config/components/volumes-quota, ../../../config/components/volumes-lvm]
configMapGenerator:
- name: ws-daemon-config
  namespace: ws-daemon-system
  behavior: merge
  files: [config.json, node-a.json, node-b.json]
patches:
- target: {kind: DaemonSet, name: ws-daemon}
  patch: |
    apiVersion: apps/v1
    kind: DaemonSet
    metadata: {name: ws-daemon}
    spec:
      template:
        spec:
          containers:
          - name: ws-daemon
            args: [run, --config=/etc/ws-daemon/$(NODE_NAME).json, --node=$(NODE_NAME)]
`

func (e *environment) startCluster(ctx context.Context) (err error) {
	kind, err := vm.ParseAccel(*accel)
	if err != nil {
		return err
	}
	shell := filepath.Join(e.dir, "shell.tar")
	if err := nodes.WriteShellImage(ctx, shell); err != nil {
		return err
	}
	e.cluster, err = nodes.Start(ctx, nodes.Options{
		Dir: filepath.Join(e.dir, "cluster"), Accel: kind, Memory: memory, Images: []string{shell, *archive}, Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), eventsv1.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		return err
	}
	e.client, err = client.New(e.cluster.Config(), client.Options{Scheme: scheme})
	return err
}

// startNodes boots both nodes at once.
func (e *environment) startNodes(ctx context.Context) (err error) {
	if e.a, err = e.cluster.AddNode(ctx, "node-a", vm.LVM); err != nil {
		return err
	}
	if e.b, err = e.cluster.AddNode(ctx, "node-b", vm.XFS); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range e.cluster.Nodes() {
		group.Go(func() error { return n.Start(ctx) })
	}
	return group.Wait()
}

// install does what docs/install.md says, from step 3 on, and returns when the daemons are ready on both nodes.
func (e *environment) install(ctx context.Context) error {
	if err := e.writeOverlay(); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"create", "namespace", system},
		{
			"create", "secret", "generic", "ws-daemon-store", "--namespace=" + system,
			"--from-literal=access-key-id=" + stores.AccessKey, "--from-literal=secret-access-key=" + stores.SecretKey,
		},
	} {
		if _, err := e.kube(ctx, "", args...); err != nil {
			return err
		}
	}
	if err := e.deploy(ctx, *image); err != nil {
		return err
	}
	if err := e.initStore(ctx); err != nil {
		return err
	}
	return e.rolledOut(ctx)
}

// initStore makes the store, from a pod of the daemon, once there is one.
func (e *environment) initStore(ctx context.Context) error {
	command := []string{"exec", "--namespace=" + system, "daemonset/ws-daemon", "--", "ws-daemon", "archive", "init", "--store=" + e.storage().URL()}
	var last error
	err := wait.PollUntilContextTimeout(ctx, tick, patience, true, func(ctx context.Context) (bool, error) {
		_, last = e.kube(ctx, "", command...)
		return last == nil, nil
	})
	return errors.Join(err, last)
}

func (e *environment) overlay() string { return filepath.Join(e.results, "deploy") }

func (e *environment) writeOverlay() error {
	if err := os.MkdirAll(e.overlay(), 0o755); err != nil {
		return err
	}
	lvm := config.Class{Driver: config.DriverLVM, LVM: config.LVM{VolumeGroup: "ws", ThinPool: "pool", Filesystem: "xfs"}}
	quota := config.Class{Driver: config.DriverQuota, Path: "/mnt/workspaces/volumes"}
	return errors.Join(
		os.WriteFile(filepath.Join(e.overlay(), "kustomization.yaml"), []byte(overlay), 0o644),
		e.writeConfig("config", lvm), e.writeConfig("node-a", lvm), e.writeConfig("node-b", quota),
	)
}

func (e *environment) writeConfig(node string, class config.Class) error {
	c := config.Default()
	c.Content.WorkingArea = "/var/lib/ws-daemon"
	c.Content.Git.AllowedSchemes = []string{"http"}
	c.Content.Timeouts.RetryMax.Duration = 5 * time.Second
	c.Storage = e.storage()
	c.Volumes.Classes = map[string]config.Class{"default": class}
	c.CSI.Socket = "/var/lib/kubelet/plugins/workspace.wsdaemon.dev/csi.sock"
	c.Health.Address, c.Metrics.Address = ":8081", ":9090"
	c.Log = config.Log{Level: "debug", Format: "json"}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.overlay(), node+".json"), text, 0o644)
}

// storage is the store as the daemons see it.
func (e *environment) storage() config.Storage {
	pathStyle := true
	return config.Storage{Kind: config.KindS3, S3: &config.S3{
		Endpoint: outside(e.store.Endpoint), Region: "us-east-1", Bucket: stores.Bucket, Prefix: "e2e", PathStyle: &pathStyle,
		Credentials: config.S3Credentials{Directory: "/etc/ws-daemon-store"},
	}}
}

// deploy does what a person does to install an image, or to roll the daemons over to it.
func (e *environment) deploy(ctx context.Context, image string) error {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "deploy", "IMG="+image, "DEPLOY="+e.overlay())
	cmd.Dir, cmd.Env = e.root, append(os.Environ(), "KUBECONFIG="+e.cluster.Kubeconfig())
	_, err := output(cmd)
	return err
}

// rolledOut waits until the daemons are those that were deployed last, and their nodes are ready for workspaces.
func (e *environment) rolledOut(ctx context.Context) error {
	limit := fmt.Sprintf("--timeout=%s", patience)
	for _, what := range []string{"daemonset/ws-daemon", "deployment/ws-daemon-controller"} {
		if _, err := e.kube(ctx, "", "rollout", "status", what, "--namespace="+system, limit); err != nil {
			return err
		}
	}
	for _, condition := range []string{"create", "condition=Ready", "condition=StoreAvailable", sandboxed} {
		if _, err := e.kube(ctx, "", "wait", "workspacenode/node-a", "workspacenode/node-b", "--for="+condition, limit); err != nil {
			return err
		}
	}
	return nil
}

// kube runs kubectl with an input, and returns what it prints.
func (e *environment) kube(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.cluster.Kubeconfig())
	cmd.Stdin = strings.NewReader(input)
	return output(cmd)
}
