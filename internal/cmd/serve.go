package cmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// serveRetry is the pause before a server that could not serve tries again.
const serveRetry = 10 * time.Second

// eventMetricsUnavailable says that nobody can read the metrics.
const eventMetricsUnavailable = "MetricsUnavailable"

// alongside runs something beside the rest, and returns what ends it and waits for that.
func alongside(ctx context.Context, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil {
			log.FromContext(ctx).Error(err, "a part of the daemon has ended")
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// metricsServer serves /metrics: openly on this machine alone, else by TLS and to those whom the API server allows it.
type metricsServer struct {
	config config.Metrics
	mgr    ctrl.Manager
	events nodeEvents
}

// run serves until ctx ends. A port that is taken, or a certificate that is missing, is no reason to stop the rest of the daemon.
func (m *metricsServer) run(ctx context.Context) error {
	if m.config.Address == "" {
		return nil
	}
	logger := log.FromContext(ctx).WithName("metrics")
	for said := ""; ; {
		err := m.serve(ctx, logger)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was to end
		}
		err = fmt.Errorf("nobody can read the metrics: %w", err)
		if err.Error() != said {
			said = err.Error()
			logger.Error(err, "trying again", "address", m.config.Address)
			m.events.tell(corev1.EventTypeWarning, eventMetricsUnavailable, "Serve", said)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(serveRetry):
		}
	}
}

func (m *metricsServer) serve(ctx context.Context, logger logr.Logger) error {
	options := server.Options{BindAddress: m.config.Address}
	if !config.IsLoopback(m.config.Address) {
		options.SecureServing = true
		options.FilterProvider = filters.WithAuthenticationAndAuthorization
		options.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if m.config.CertFile != "" {
		certificate, err := certwatcher.New(m.config.CertFile, m.config.KeyFile)
		if err != nil {
			return fmt.Errorf("metrics.certFile: %w", err)
		}
		defer alongside(log.IntoContext(ctx, logger), certificate.Start)()
		options.TLSOpts = append(options.TLSOpts, func(c *tls.Config) { c.GetCertificate = certificate.GetCertificate })
	}
	s, err := server.NewServer(options, m.mgr.GetConfig(), m.mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("metrics.address: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("metrics.address: %w", err)
	}
	return errors.New("the server has ended")
}
