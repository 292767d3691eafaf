package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// certificates are those of the configuration. Their files are looked at with each handshake, and read again if they changed: whoever
// rotates them need not tell anybody. What cannot be read leaves those that were read before in use.
type certificates struct {
	certFile, keyFile, caFile string

	mu    sync.Mutex
	seen  [3]stamp
	valid material
	err   error // what the files as they were seen last are refused for
}

// material is what the files hold.
type material struct {
	config *tls.Config // nil before anything was read
	// own is when the daemon's certificate is valid, callers when that of an authority of theirs is: of several, the one that ends last.
	own, callers span
}

// span is from when until when something is valid.
type span struct{ begin, end time.Time }

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
	if c.valid.config == nil {
		return nil, c.err
	}
	return c.valid.config, nil
}

// state returns what is in use, and what is wrong with the files as they are.
func (c *certificates) state() (material, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.valid, c.err
}

// look reads the files if they are others than before. The lock is held.
func (c *certificates) look() {
	var now [3]stamp
	for i, file := range []string{c.certFile, c.keyFile, c.caFile} {
		var err error
		if now[i], err = stampOf(file); err != nil {
			c.seen, c.err = [3]stamp{}, err // they are read again when all of them are there
			return
		}
	}
	if now == c.seen {
		return
	}
	read, err := c.read()
	if c.seen, c.err = now, err; err == nil {
		c.valid = read
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

func (c *certificates) read() (material, error) {
	own, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return material{}, fmt.Errorf("service.certFile and service.keyFile: %w", err)
	}
	if own.Leaf == nil {
		return material{}, errors.New("service.certFile: the certificate was not understood")
	}
	text, err := os.ReadFile(filepath.Clean(c.caFile))
	if err != nil {
		return material{}, fmt.Errorf("service.clientCAFile: %w", err)
	}
	authorities, valid, err := authoritiesIn(text)
	if err != nil {
		return material{}, fmt.Errorf("service.clientCAFile: %s: %w", c.caFile, err)
	}
	return material{own: span{own.Leaf.NotBefore, own.Leaf.NotAfter}, callers: valid, config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{own},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: authorities,
		// A ticket would let a caller in again by what was right before a rotation.
		SessionTicketsDisabled: true,
	}}, nil
}

// authoritiesIn returns the authorities of a file, and when the one is valid that ends last.
func authoritiesIn(text []byte) (*x509.CertPool, span, error) {
	pool, last := x509.NewCertPool(), span{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, span{}, fmt.Errorf("there is a %s in it, where only certificates should be", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, span{}, err
		}
		pool.AddCert(cert)
		if cert.NotAfter.After(last.end) {
			last = span{cert.NotBefore, cert.NotAfter}
		}
	}
	if last.end.IsZero() {
		return nil, span{}, errors.New("there is no certificate in PEM format in it")
	}
	return pool, last, nil
}

// over says which certificate that is in use is over, if one is.
func (m material) over(now time.Time) error {
	switch {
	case m.config == nil:
		return nil
	case now.After(m.own.end):
		return fmt.Errorf("service.certFile: the certificate ended at %s: callers refuse it, renew it", m.own.end.UTC().Format(time.RFC3339))
	case now.After(m.callers.end):
		return fmt.Errorf("service.clientCAFile: the last authority ended at %s: every caller is refused, add the one that follows it",
			m.callers.end.UTC().Format(time.RFC3339))
	default:
		return nil
	}
}

// watchCertificates says what is wrong with the certificates: callers see only that they are refused.
func (s *Server) watchCertificates(ctx context.Context, c *certificates) {
	for said := ""; ; {
		in, err := c.state()
		if in.config != nil {
			s.Metrics.ServiceCertificate(metrics.CertificateOwn, in.own.begin, in.own.end)
			s.Metrics.ServiceCertificate(metrics.CertificateCallers, in.callers.begin, in.callers.end)
		}
		if err == nil {
			err = in.over(time.Now())
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
