package cmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/persist"
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

// profiles serves them for go tool pprof, on an address of this machine.
type profiles struct {
	logger  logr.Logger
	address string
}

// run serves until ctx ends. A port that is taken is no reason to stop the rest of the daemon.
func (p profiles) run(ctx context.Context) error {
	if p.address == "" {
		return nil
	}
	persist.Serve(ctx, serveRetry, func() error { return p.serve(ctx) }, func(err error) {
		p.logger.Error(fmt.Errorf("--pprof: %w", err), "nobody can read profiles; trying again", "address", p.address)
	})
	return nil
}

func (p profiles) serve(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // whoever reads a profile loses it
	defer stop()
	return server.Serve(listener)
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
	persist.Serve(ctx, serveRetry, func() error { return m.serve(ctx, logger) }, func(err error) {
		err = fmt.Errorf("nobody can read the metrics: %w", err)
		logger.Error(err, "trying again", "address", m.config.Address)
		m.events.tell(corev1.EventTypeWarning, eventMetricsUnavailable, "Serve", err.Error())
	})
	return nil
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
