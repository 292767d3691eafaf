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

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/hack/vm"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// system is the namespace of the daemons.
const system = "ws-daemon-system"

// overlay is what an administrator adds to config/default: the nodes' disks differ, so each node has a configuration of its own.
const overlay = `resources: [../../../config/default]
components: [../../../config/components/volumes-quota, ../../../config/components/volumes-lvm]
configMapGenerator:
- name: ws-daemon-config
  namespace: ws-daemon-system
  behavior: merge
  files: [node-a.json, node-b.json]
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
            volumeMounts:
            - {mountPath: /var/lib/ws-daemon-store, $patch: delete}
            - {name: store-credentials, mountPath: /etc/ws-daemon-store, readOnly: true}
          volumes:
          - {name: store, $patch: delete}
          - {name: store-credentials, secret: {secretName: ws-daemon-store, defaultMode: 0400}}
`

func (e *environment) startCluster(ctx context.Context) (err error) {
	kind, err := vm.ParseAccel(*accel)
	if err != nil {
		return err
	}
	e.cluster, err = nodes.Start(ctx, nodes.Options{Dir: filepath.Join(e.dir, "cluster"), Accel: kind, Memory: memory, Log: os.Stderr})
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

func (e *environment) startNodes(ctx context.Context) (err error) {
	shell := filepath.Join(e.dir, "shell.tar")
	if err := nodes.WriteShellImage(ctx, shell); err != nil {
		return err
	}
	add := func(name string, disk vm.Disk) (*nodes.Node, error) {
		n, err := e.cluster.AddNode(ctx, name, disk)
		if err != nil {
			return nil, err
		}
		return n, errors.Join(n.Import(ctx, shell), n.Import(ctx, *archive))
	}
	if e.a, err = add("node-a", vm.LVM); err != nil {
		return err
	}
	e.b, err = add("node-b", vm.XFS)
	return err
}

// install deploys the daemon, and returns when it is ready on both nodes.
func (e *environment) install(ctx context.Context) error {
	if err := e.writeOverlay(); err != nil {
		return err
	}
	if err := e.deploy(ctx, *image); err != nil {
		return err
	}
	_, err := e.kube(ctx, "", "create", "secret", "generic", "ws-daemon-store", "--namespace="+system,
		"--from-literal=access-key-id="+stores.AccessKey, "--from-literal=secret-access-key="+stores.SecretKey)
	if err != nil {
		return err
	}
	return e.rolledOut(ctx)
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
		e.writeConfig("node-a", lvm), e.writeConfig("node-b", quota),
	)
}

func (e *environment) writeConfig(node string, class config.Class) error {
	c := config.Default()
	c.Content.WorkingArea = "/var/lib/ws-daemon"
	c.Content.Git.AllowedSchemes = []string{"http"}
	c.Content.Timeouts.RetryMax.Duration = 5 * time.Second
	pathStyle := true
	c.Storage = config.Storage{Kind: config.KindS3, S3: &config.S3{
		Endpoint: outside(e.store.Endpoint), Region: "us-east-1", Bucket: stores.Bucket, Prefix: "e2e", PathStyle: &pathStyle,
		Credentials: config.S3Credentials{Directory: "/etc/ws-daemon-store"},
	}}
	c.Volumes.Classes = map[string]config.Class{"default": class}
	c.Health.Address, c.Metrics.Address = ":8081", ":9090"
	c.Log = config.Log{Level: "debug", Format: "json"}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.overlay(), node+".json"), text, 0o644)
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
	if _, err := e.kube(ctx, "", "rollout", "status", "daemonset/ws-daemon", "--namespace="+system, limit); err != nil {
		return err
	}
	for _, n := range []string{"node-a", "node-b"} {
		if err := e.reported(ctx, n, limit); err != nil {
			return err
		}
	}
	return nil
}

// reported waits until a daemon calls its node ready. The object may not be there yet.
func (e *environment) reported(ctx context.Context, node, limit string) error {
	name := "workspacenode/" + node
	if _, err := e.kube(ctx, "", "wait", name, "--for=create", limit); err != nil {
		return err
	}
	_, err := e.kube(ctx, "", "wait", name, "--for=condition=Ready", limit)
	return err
}

// kube runs kubectl with an input, and returns what it prints.
func (e *environment) kube(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.cluster.Kubeconfig())
	cmd.Stdin = strings.NewReader(input)
	return output(cmd)
}
