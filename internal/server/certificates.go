package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// certificates are those of the configuration. Their files are looked at with each handshake, and read again if they changed: whoever
// rotates them need not tell anybody. What cannot be read leaves those that were read before in use.
type certificates struct {
	certFile, keyFile, caFile string

	mu     sync.Mutex
	seen   [3]stamp
	config *tls.Config
	ends   time.Time // of the daemon's own certificate
	err    error     // what the files as they were seen last are refused for
}

// stamp tells a file from an earlier one at its path.
type stamp struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

func newCertificates(c config.Service) *certificates {
	return &certificates{certFile: c.CertFile, keyFile: c.KeyFile, caFile: c.ClientCAFile}
}

// current returns how handshakes are made now.
func (c *certificates) current() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	if c.config == nil {
		return nil, c.err
	}
	return c.config, nil
}

// state returns when the daemon's certificate ends, and what is wrong with the files as they are.
func (c *certificates) state() (ends time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.ends, c.err
}

// look reads the files if they are others than before. The lock is held.
func (c *certificates) look() {
	var now [3]stamp
	for i, file := range []string{c.certFile, c.keyFile, c.caFile} {
		var err error
		if now[i], err = stampOf(file); err != nil {
			c.err = err
			return
		}
	}
	if now == c.seen {
		return
	}
	read, ends, err := c.read()
	if c.seen, c.err = now, err; err == nil {
		c.config, c.ends = read, ends
	}
}

func stampOf(file string) (stamp, error) {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}, fmt.Errorf("read certificates: %w", err)
	}
	s := stamp{size: info.Size(), modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = stat.Dev, stat.Ino
	}
	return s, nil
}

func (c *certificates) read() (*tls.Config, time.Time, error) {
	own, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("service.certFile and service.keyFile: %w", err)
	}
	text, err := os.ReadFile(filepath.Clean(c.caFile))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("service.clientCAFile: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, time.Time{}, fmt.Errorf("service.clientCAFile: there is no certificate in PEM format in %s", c.caFile)
	}
	if own.Leaf == nil {
		return nil, time.Time{}, errors.New("service.certFile: the certificate was not understood")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{own},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: authorities,
		// A ticket would let a caller in again by what was right before a rotation.
		SessionTicketsDisabled: true,
	}, own.Leaf.NotAfter, nil
}

// watchCertificates says what is wrong with the certificates: callers see only that they are refused.
func (s *Server) watchCertificates(ctx context.Context, c *certificates) {
	for said := ""; ; {
		ends, err := c.state()
		s.Metrics.ServiceCertificate(ends)
		if err == nil && time.Now().After(ends) {
			err = fmt.Errorf("service.certFile: the certificate ended at %s: callers refuse it, renew it", ends.UTC().Format(time.RFC3339))
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != said {
			s.Log.Error(err, "the service's certificates")
			s.Tell(EventServiceCertificate, text)
		}
		said = text
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.pauses.tls):
		}
	}
}
