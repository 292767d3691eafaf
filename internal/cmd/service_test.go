package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// A daemon serves its socket, and leaves nothing of it.
func TestRunServesItsSocket(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	dir, err := os.MkdirTemp("", "ws-service-") //nolint:usetesting // the path of a socket must be short
	n.Expect(err).NotTo(HaveOccurred())
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "service", "socket")
	n.edit(func(c *config.Config) { c.Service.Socket = socket })
	t.Run("while it runs", func(t *testing.T) {
		n.daemon(t, unique("service"))
		c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		n.Expect(err).NotTo(HaveOccurred())
		defer c.Close()
		n.Eventually(func() error {
			h, err := healthv1.NewHealthClient(c).Check(t.Context(), &healthv1.HealthCheckRequest{})
			if err == nil && h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
				err = errors.New(h.GetStatus().String())
			}
			return err
		}, "30s").Should(Succeed())
		page, err := daemonv1.NewWorkspaceServiceClient(c).List(t.Context(), &daemonv1.ListRequest{})
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(page.GetWorkspaces()).To(BeEmpty())
	})
	n.Expect(socket).NotTo(BeAnExistingFile())
}
