package csi

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"

	"wsdaemon.dev/ws-daemon/hack/tools"
)

// maker stands for the part of a driver that makes volumes, which this one has not: csi-sanity publishes nothing without. A volume is
// what a pod of the world asks for.
type maker struct {
	csi.UnimplementedControllerServer
	identity

	attributes map[string]string
}

func (m maker) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	makes := &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{Type: &csi.PluginCapability_Service_{Service: makes}}}}, nil
}

func (m maker) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	makes := &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{
		{Type: &csi.ControllerServiceCapability_Rpc{Rpc: makes}},
	}}, nil
}

func (m maker) CreateVolume(_ context.Context, q *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: q.GetName(), VolumeContext: m.attributes}}, nil
}

func (m maker) DeleteVolume(context.Context, *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, nil
}

// The test program of the interface accepts the driver as it is; and what it expects of volumes, when something makes them.
func TestSanity(t *testing.T) {
	tool := tools.Tool{
		Name: "csi-sanity", In: "csi", Module: "github.com/kubernetes-csi/csi-test/v5", Package: "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
	}
	program, err := tool.Build(t.Context(), os.Stderr)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Run("as it is", func(t *testing.T) {
		w := newWorld(t)
		d, _ := w.serve()
		w.answers(d)
		w.sanity(program, d.socket, "--ginkgo.focus=Identity Service|Node Service",
			"--ginkgo.skip=should remove target path|should fail when volume does not exist on the specified path") // they make volumes
	})
	t.Run("volumes", func(t *testing.T) {
		w := newWorld(t)
		d, _ := w.serve()
		socket := filepath.Join(t.TempDir(), "csi.sock")
		var config net.ListenConfig
		listener, err := config.Listen(t.Context(), "unix", socket)
		w.Expect(err).NotTo(HaveOccurred())
		server := grpc.NewServer()
		m := maker{identity: identity{driver: d}, attributes: w.ask().GetVolumeContext()}
		csi.RegisterIdentityServer(server, m)
		csi.RegisterControllerServer(server, m)
		csi.RegisterNodeServer(server, w.node)
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(server.Stop)
		w.sanity(program, socket, "--ginkgo.focus=Node Service")
		w.clean()
	})
}

func (w *world) sanity(program, socket string, args ...string) {
	w.t.Helper()
	args = append(args, "--csi.endpoint=unix://"+socket, "--csi.mountdir="+filepath.Dir(w.target), "--csi.stagingdir="+filepath.Join(w.t.TempDir(), "staging"))
	w.Expect(os.Remove(filepath.Dir(w.target))).To(Succeed(), "the program makes it")
	out, err := exec.CommandContext(w.t.Context(), program, args...).CombinedOutput()
	w.Expect(err).NotTo(HaveOccurred(), "%s", out)
	w.t.Logf("%s", out[max(0, len(out)-400):])
}
