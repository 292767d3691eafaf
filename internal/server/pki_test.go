package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
)

var serial atomic.Int64

// authority issues certificates.
type authority struct {
	w    *world
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(w *world, name string, changes ...func(*x509.Certificate)) *authority {
	w.t.Helper()
	a := &authority{w: w}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	for _, change := range changes {
		change(template)
	}
	a.cert, a.key = a.sign(template, nil)
	return a
}

// sign makes a certificate; by itself, if parent is nil.
func (a *authority) sign(template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.w.Expect(err).NotTo(HaveOccurred())
	template.SerialNumber = big.NewInt(serial.Add(1))
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	a.w.Expect(err).NotTo(HaveOccurred())
	cert, err := x509.ParseCertificate(der)
	a.w.Expect(err).NotTo(HaveOccurred())
	return cert, key
}

// issue makes a certificate for both sides, of 127.0.0.1.
func (a *authority) issue(name string, changes ...func(*x509.Certificate)) tls.Certificate {
	a.w.t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, change := range changes {
		change(template)
	}
	cert, key := a.sign(template, a.cert)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func ends(at time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = at.Add(-2*time.Hour), at }
}

func withURI(text string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		u, err := url.Parse(text)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
}

func usage(u x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// network has the server listen, too, with a certificate, for callers with those of an authority. It returns the directory
// of the files.
func (w *world) network(cert tls.Certificate, callers *authority) string {
	w.t.Helper()
	dir := w.t.TempDir()
	c := &w.server.Config
	c.Address = freeAddress(w)
	c.CertFile, c.KeyFile, c.ClientCAFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")
	w.rotate(dir, cert, callers)
	return dir
}

// serveNetwork starts the server for the callers of an authority, who have the rights of [rights] and so many calls in a second.
func (w *world) serveNetwork(perSecond int) *authority {
	w.t.Helper()
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: perSecond, Exports: 1})
	w.start()
	return ours
}

// rotate writes certificates as a Secret's volume does: each file is another one then.
func (w *world) rotate(dir string, cert tls.Certificate, callers *authority) {
	w.t.Helper()
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	w.Expect(err).NotTo(HaveOccurred())
	for name, text := range map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}),
		"ca.crt":  callers.pem(),
	} {
		w.replace(filepath.Join(dir, name), text)
	}
}

func (w *world) replace(file string, text []byte) {
	w.t.Helper()
	w.Expect(os.WriteFile(file+".new", text, 0o600)).To(Succeed())
	w.Expect(os.Rename(file+".new", file)).To(Succeed())
}

func freeAddress(w *world) string {
	l, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	w.Expect(err).NotTo(HaveOccurred())
	defer l.Close()
	return l.Addr().String()
}

// remote is a caller from the network.
func (w *world) remote(c credentials.TransportCredentials) daemonv1.WorkspaceServiceClient {
	w.t.Helper()
	conn, err := grpc.NewClient(w.server.Config.Address, grpc.WithTransportCredentials(c))
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { _ = conn.Close() })
	return daemonv1.NewWorkspaceServiceClient(conn)
}

func mutual(trusts *authority, own ...tls.Certificate) credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{RootCAs: trusts.pool(), Certificates: own, MinVersion: tls.VersionTLS12})
}
