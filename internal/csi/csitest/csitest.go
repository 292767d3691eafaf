// Package csitest is what tests of the CSI driver need of a node: mounts of their own, and a kubelet's directory.
package csitest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// apart tells the process that it is the one with mounts of its own.
const apart = "WS_DAEMON_TEST_MOUNTS_APART"

// Main runs a test program's tests in a mount namespace of its own and returns the exit code: whatever they, and the processes that they
// start, mount and leave behind is gone with them. run is called there.
func Main(run func() int) int {
	if os.Getenv(apart) != "" {
		return run()
	}
	runtime.LockOSThread()                                // the signal below is sent when the thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx,gosec // the same program with the same arguments, which lives as long as this process
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(1, ended.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests with mounts of their own:", err)
		return 1
	}
	return 0
}

// KubeletDir makes a kubelet's directory as the daemon has it: a shared mount.
func KubeletDir(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	dir, err := os.MkdirTemp("", "kubelet-") //nolint:usetesting // a short path: sockets may lie in it
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(os.RemoveAll(dir)).To(Succeed()) })
	g.Expect(unix.Mount(dir, dir, "", unix.MS_BIND, "")).To(Succeed())
	t.Cleanup(func() { g.Expect(unix.Unmount(dir, unix.MNT_DETACH)).To(Succeed()) })
	g.Expect(unix.Mount("", dir, "", unix.MS_SHARED, "")).To(Succeed())
	return dir
}

// Target returns the path at which the kubelet wants a volume of a pod, whose directory it makes before it asks.
func Target(t *testing.T, kubeletDir, podUID string) string {
	t.Helper()
	dir := filepath.Join(kubeletDir, "pods", podUID, "volumes", "kubernetes.io~csi", "work")
	NewWithT(t).Expect(os.MkdirAll(dir, 0o750)).To(Succeed())
	return filepath.Join(dir, "mount")
}

// callTimeout is how long a kubelet waits for an answer.
const callTimeout = 2 * time.Minute

// Call makes a call to the driver at a socket, as soon as there is one.
func Call(t *testing.T, socket string, do func(ctx context.Context, node csi.NodeClient) error) error {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	return do(ctx, csi.NewNodeClient(conn))
}

// Pod is one on a node with a workspace as a volume.
func Pod(namespace, name, node, workspace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "shell", Image: "none.invalid/shell"}},
			Volumes: []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
				Driver: v1.CSIDriver, VolumeAttributes: map[string]string{v1.CSIAttributeWorkspace: workspace},
			}}}},
		},
	}
}

// Publish asks for the volume of a pod that the API server knows.
func Publish(t *testing.T, socket, target string, pod *corev1.Pod) error {
	t.Helper()
	return Call(t, socket, func(ctx context.Context, node csi.NodeClient) error {
		_, err := node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: "csi-" + string(pod.UID), TargetPath: target,
			VolumeCapability: &csi.VolumeCapability{
				AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
				AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			},
			VolumeContext: map[string]string{
				v1.CSIAttributeWorkspace:      pod.Spec.Volumes[0].CSI.VolumeAttributes[v1.CSIAttributeWorkspace],
				"csi.storage.k8s.io/pod.name": pod.Name, "csi.storage.k8s.io/pod.namespace": pod.Namespace,
				"csi.storage.k8s.io/pod.uid": string(pod.UID), "csi.storage.k8s.io/ephemeral": "true",
			},
		})
		return err
	})
}

// Unpublish gives a volume back.
func Unpublish(t *testing.T, socket, target string) error {
	t.Helper()
	return Call(t, socket, func(ctx context.Context, node csi.NodeClient) error {
		_, err := node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi", TargetPath: target})
		return err
	})
}
