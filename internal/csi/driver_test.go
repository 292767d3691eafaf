package csi

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// serve runs the driver of a world until the test ends, or the returned function is called.
func (w *world) serve() (d *Driver, stop func()) {
	w.t.Helper()
	dir := w.t.TempDir()
	w.Expect(os.Mkdir(filepath.Join(dir, "registry"), 0o755)).To(Succeed())
	d = NewDriver(w.node, filepath.Join(dir, "plugins", "csi.sock"), filepath.Join(dir, "registry"), "v1.2.3")
	d.retry, d.look = 20*time.Millisecond, 20*time.Millisecond
	return d, w.run(d)
}

func (w *world) run(d *Driver) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		w.Expect(<-ended).To(Succeed())
	})
	w.t.Cleanup(stop)
	return stop
}

// dial connects to a socket, as the kubelet does.
func (w *world) dial(socket string) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { w.Expect(conn.Close()).To(Succeed()) })
	return conn
}

// answers waits until the driver answers.
func (w *world) answers(d *Driver) {
	w.t.Helper()
	w.Eventually(func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		_, err := csi.NewIdentityClient(w.dial(d.socket)).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
		return err
	}).Should(Succeed())
}

// accept has the kubelet say that it knows the driver.
func (w *world) accept(d *Driver) {
	w.t.Helper()
	_, err := registration.NewRegistrationClient(w.dial(d.registrationSocket())).
		NotifyRegistrationStatus(w.t.Context(), &registration.RegistrationStatus{PluginRegistered: true})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(w.metric("ws_daemon_csi_registered", d)).To(Equal(1.0))
}

// A kubelet finds the driver in its directory, asks it who it is, calls it, and says what it makes of it.
func TestKubeletFindsTheDriver(t *testing.T) {
	w := newWorld(t)
	d, stop := w.serve()
	w.answers(d)
	entry := filepath.Join(d.registrationDir, "workspace.wsdaemon.dev-reg.sock")
	kubelet := registration.NewRegistrationClient(w.dial(entry))
	info, err := kubelet.GetInfo(t.Context(), &registration.InfoRequest{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect([]any{info.GetType(), info.GetName(), info.GetEndpoint(), info.GetSupportedVersions()}).
		To(Equal([]any{registration.CSIPlugin, "workspace.wsdaemon.dev", d.socket, []string{"1.0.0"}}))
	w.Expect(w.metric("ws_daemon_csi_registered", d)).To(BeZero())
	w.accept(d)

	conn := w.dial(info.GetEndpoint())
	node, err := csi.NewNodeClient(conn).NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(node.GetNodeId()).To(Equal(here))
	plugin, err := csi.NewIdentityClient(conn).GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect([]string{plugin.GetName(), plugin.GetVendorVersion()}).To(Equal([]string{"workspace.wsdaemon.dev", "v1.2.3"}))
	_, err = csi.NewNodeClient(conn).NodePublishVolume(t.Context(), w.ask())
	w.Expect(err).NotTo(HaveOccurred())
	w.mounted()
	w.Expect(w.metric("ws_daemon_csi_published_volumes", d)).To(Equal(1.0))
	_, err = csi.NewNodeClient(conn).NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{})
	w.Expect(err).To(failWith(codes.Unimplemented, ""))

	for _, socket := range []string{d.socket, entry} {
		file, err := os.Stat(socket)
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(file.Mode().Perm()).To(BeEquivalentTo(0o600), "for root alone")
	}
	stop()
	w.Expect(d.socket).NotTo(BeAnExistingFile())
	w.Expect(entry).NotTo(BeAnExistingFile())
	w.mounted()
}

// metric returns the sum of a metric's values.
func (w *world) metric(name string, d *Driver) float64 {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	w.Expect(registry.Register(d.Metrics)).To(Succeed())
	families, err := registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func TestCallsAreCounted(t *testing.T) {
	w := newWorld(t)
	d, _ := w.serve()
	w.answers(d)
	before := w.metric("ws_daemon_csi_calls_total", d)
	_, err := csi.NewNodeClient(w.dial(d.socket)).NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{})
	w.Expect(err).To(failWith(codes.InvalidArgument, "volume_id is missing"))
	w.Expect(w.metric("ws_daemon_csi_calls_total", d)).To(Equal(before + 1))
	w.Expect(w.metric("ws_daemon_csi_call_duration_seconds", d)).To(Equal(before + 1))
}

func TestProbeSaysWhetherTheDaemonIsReady(t *testing.T) {
	w := newWorld(t)
	d, _ := w.serve()
	w.answers(d)
	probe := func() bool {
		a, err := csi.NewIdentityClient(w.dial(d.socket)).Probe(t.Context(), &csi.ProbeRequest{})
		w.Expect(err).NotTo(HaveOccurred())
		return a.GetReady().GetValue()
	}
	w.Expect(probe()).To(BeTrue())
	w.node.cluster.Load().Usable = func() error { return errors.New("the disk is gone") }
	w.Expect(probe()).To(BeFalse())
	w.node.cluster.Store(nil)
	w.Expect(probe()).To(BeFalse())
}

// A mistake in one call ends neither the daemon nor other calls.
func TestPanicFailsAlone(t *testing.T) {
	w := newWorld(t)
	d, _ := w.serve()
	w.answers(d)
	w.node.Keeper = nil
	conn := csi.NewNodeClient(w.dial(d.socket))
	_, err := conn.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: "csi-1", VolumePath: w.target})
	w.Expect(err).To(failWith(codes.Internal, "the daemon made a mistake: its log has more"))
	w.node.Keeper = w.keeper
	w.Expect(w.publish()).To(Succeed())
}

// Sockets that an earlier daemon has left, that somebody removes, or whose place is taken, keep the driver from serving for a moment only.
func TestSocketsAreMadeAgain(t *testing.T) {
	w := newWorld(t)
	d, stop := w.serve()
	failures := make(chan string, 9)
	d.OnFailure(func(message string) { failures <- message })
	w.answers(d)
	for _, socket := range []string{d.socket, d.socket, d.registrationSocket()} {
		w.accept(d)
		w.Expect(os.Remove(socket)).To(Succeed())
		w.Eventually(failures).Should(Receive(Equal("pods cannot get workspaces as volumes: somebody has removed or replaced "+socket)), "each time")
		w.Expect(w.metric("ws_daemon_csi_registered", d)).To(BeZero(), "until the kubelet has accepted it anew")
		w.answers(d)
	}
	stop()

	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket, Net: "unix"})
	w.Expect(err).NotTo(HaveOccurred())
	left.SetUnlinkOnClose(false) // as a daemon that was killed
	w.Expect(left.Close()).To(Succeed())
	stop = w.run(d)
	w.answers(d)
	stop()

	w.Expect(os.RemoveAll(d.socket)).To(Succeed())
	w.Expect(os.WriteFile(d.socket, nil, 0o600)).To(Succeed())
	w.run(d)
	w.Eventually(failures).Should(Receive(Equal("pods cannot get workspaces as volumes: csi.socket: " + d.socket + " is there and no socket: remove it")))
	w.Expect(os.Remove(d.socket)).To(Succeed())
	w.answers(d)
}

func TestKubeletThatRefusesTheDriver(t *testing.T) {
	w := newWorld(t)
	d, _ := w.serve()
	w.answers(d)
	failures := make(chan string, 1)
	d.OnFailure(func(message string) { failures <- message })
	_, err := registration.NewRegistrationClient(w.dial(d.registrationSocket())).
		NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{Error: "another driver has the name"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(failures).To(Receive(Equal("the kubelet refuses the CSI driver: another driver has the name")))
}

// A daemon that stops before the API server has answered keeps no call waiting.
func TestStoppingDriverKeepsNobodyWaiting(t *testing.T) {
	w := newWorld(t)
	w.node = &Node{Name: here, KubeletDir: w.kubelet, Keeper: w.keeper, Patience: time.Hour, Log: w.node.Log}
	d, stop := w.serve()
	w.answers(d)
	conn, done := csi.NewNodeClient(w.dial(d.socket)), make(chan error, 1)
	go func() {
		_, err := conn.NodePublishVolume(t.Context(), w.ask())
		done <- err
	}()
	w.Eventually(w.waits).Should(BeTrue())
	stop()
	var err error
	w.Eventually(done).Should(Receive(&err))
	w.Expect(err).To(failWith(codes.Unavailable, "the daemon is stopping: its successor will mount the workspace"))
	w.clean()
}
