package cmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// issuer makes certificates.
type issuer struct {
	*WithT
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newIssuer makes an authority, whose certificate is NAME.crt in a directory.
func newIssuer(t *testing.T, dir, name string) *issuer {
	t.Helper()
	i := &issuer{WithT: NewWithT(t), dir: dir}
	i.cert, i.key = i.write(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, name)
	return i
}

// issue makes NAME.crt and NAME.key for both sides of a connection to this machine.
func (i *issuer) issue(name string) {
	i.write(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, name)
}

func (i *issuer) write(template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	i.Expect(err).NotTo(HaveOccurred())
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	i.Expect(err).NotTo(HaveOccurred())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	i.Expect(err).NotTo(HaveOccurred())
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	i.Expect(err).NotTo(HaveOccurred())
	for file, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		i.Expect(os.WriteFile(filepath.Join(i.dir, name+file), pem.EncodeToMemory(block), 0o600)).To(Succeed())
	}
	cert, err := x509.ParseCertificate(der)
	i.Expect(err).NotTo(HaveOccurred())
	return cert, key
}

// Every command, against a real daemon with a real workspace: over its socket, and by TLS with a certificate that has some rights.
func TestClientAgainstADaemon(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	ours, others := newIssuer(t, dir, "ours"), newIssuer(t, dir, "others")
	ours.issue("daemon")
	ours.issue("reader")
	others.issue("stranger")
	address := freeAddress(t)
	n.edit(func(c *config.Config) {
		c.Service.Socket, c.Service.Address = in("service/socket"), address
		c.Service.CertFile, c.Service.KeyFile, c.Service.ClientCAFile = in("daemon.crt"), in("daemon.key"), in("ours.crt")
		c.Service.Rights = []config.Right{{Subject: "CN=reader", Methods: []string{"List"}, Namespaces: []string{"default"}}}
	})
	node, name := unique("client"), unique("web")
	local := func(args ...string) []string {
		return append([]string{"client", "--address=unix://" + in("service/socket")}, args...)
	}
	remote := func(authority, who string, args ...string) []string {
		return append([]string{"client", "--address=" + address, "--ca=" + in(authority+".crt"), "--cert=" + in(who+".crt"), "--key=" + in(who+".key")}, args...)
	}
	t.Run("while it runs", func(t *testing.T) {
		n.daemon(t, node)
		n.Eventually(func() error { _, err := call(t.Context(), "", local("list")...); return err }, "60s").Should(Succeed())
		ws := n.inUse(t, node, name, local)
		n.saves(t, ws, local)
		n.readsBackups(t, ws, local)
		n.servesWhoMay(t, name, remote)
	})
	_, err := call(t.Context(), "", local("get", name)...)
	n.Expect(err).To(MatchError(HaveSuffix("no such file or directory: is it running on this node, and is that service.socket of its configuration?")))
	n.Expect(exitCode(err)).To(Equal(7))
}

// inUse makes a workspace, waits for it, and looks at it.
func (n *node) inUse(t *testing.T, node, name string, local func(...string) []string) *v1.Workspace {
	t.Helper()
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: v1.WorkspaceSpec{
			NodeName: node, Volume: v1.VolumeSpec{Size: resource.MustParse("64Mi")}, Backup: v1.BackupSpec{Interval: &metav1.Duration{}},
			DeletionPolicy: v1.DeletionDelete, Initializer: v1.Initializer{Empty: &v1.EmptyInitializer{}},
		},
	}
	n.Expect(n.Create(t.Context(), ws)).To(Succeed())
	t.Cleanup(func() { // while the daemon runs, which lets it go
		ctx := context.WithoutCancel(t.Context())
		n.Expect(n.Delete(ctx, ws)).To(Succeed())
		n.Eventually(func() error { return client.IgnoreNotFound(n.Get(ctx, client.ObjectKeyFromObject(ws), ws)) }, "1m").Should(Succeed())
	})
	out := must(t, local("wait", name)...)
	n.Expect(n.Get(t.Context(), client.ObjectKeyFromObject(ws), ws)).To(Succeed())
	n.Expect(out).To(HaveSuffix("workspace/" + name + " is ready on " + node + ": " + ws.Status.Volume.Path + "\n"))
	n.Expect(must(t, local("list")...)).To(MatchRegexp(
		`^NAME +READY   STATUS    NODE +SIZE   USED +LAST BACKUP   AGE\n` + name + `   True    Running   ` + node + `   - +\S+ +- +\d+s\n$`))
	n.Expect(must(t, local("list", "-A", "-o", "name")...)).To(Equal("workspace/" + name + "\n"))
	n.Expect(must(t, local("get", name, "-o", "yaml")...)).To(ContainSubstring("\nreason: Running\n"))
	n.Expect(must(t, local("usage", name)...)).To(MatchRegexp(`^NAME +SIZE +USED .*\n` + name + ` .*\n$`))
	n.Expect(must(t, append([]string{"__complete"}, local("backup", "")...)...)).To(HavePrefix(name + "\n:4\n"))
	_, err := call(t.Context(), "", local("get", "nobody")...)
	n.Expect(err).To(MatchError(ContainSubstring("default/nobody")))
	n.Expect(exitCode(err)).To(Equal(4))
	return ws
}

// saves makes a backup, finds that nothing has changed, and makes a snapshot.
func (n *node) saves(t *testing.T, ws *v1.Workspace, local func(...string) []string) {
	t.Helper()
	n.Expect(os.WriteFile(filepath.Join(ws.Status.Volume.Path, "hello"), []byte("hello"), 0o600)).To(Succeed())
	n.Expect(must(t, local("backup", ws.Name)...)).To(MatchRegexp(`workspace/` + ws.Name + ` saved as backup 1\.1: 1 files, 5, \S+ stored, in \S+s\n$`))
	n.Expect(must(t, local("backup", ws.Name)...)).To(HaveSuffix("workspace/" + ws.Name + " equals backup 1.1: 1 files, 5\n"))
	n.Expect(must(t, local("backups", ws.Name)...)).To(MatchRegexp(`^NAME +STATUS +FILES .*\n1\.1 +Complete +1 +5 .*\n$`))
	snapshot := must(t, local("snapshot", ws.Name, "--deletion-policy=Delete", "-o", "name")...)
	n.Expect(snapshot).To(HavePrefix("snapshot/" + ws.Name))
}

// readsBackups lists what is in a backup, and gets it out.
func (n *node) readsBackups(t *testing.T, ws *v1.Workspace, local func(...string) []string) {
	t.Helper()
	n.Expect(must(t, local("files", ws.Name, "--backup=1.1")...)).To(MatchRegexp(`^drwx\S+ 33333 33333 .* \.\n-rw------- 0 0 +5 \S+ \S+ hello\n$`))
	_, err := call(t.Context(), "", local("files", ws.Name, "nothing")...)
	n.Expect(exitCode(err)).To(Equal(4), "%v", err)
	_, err = call(t.Context(), "", local("files", ws.Name, "--backup=seven")...)
	n.Expect(exitCode(err)).To(Equal(2), "%v", err)
	dir := t.TempDir()
	must(t, local("export", ws.Name, "-f", filepath.Join(dir, "web.tar"))...)
	out, err := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir, "-f", filepath.Join(dir, "web.tar"), "--warning=no-unknown-keyword", "hello").CombinedOutput()
	n.Expect(err).NotTo(HaveOccurred(), string(out))
	n.Expect(os.ReadFile(filepath.Join(dir, "hello"))).To(BeEquivalentTo("hello"))
}

// servesWhoMay lets a caller do what his certificate's name has the right to, and nobody else anything.
func (n *node) servesWhoMay(t *testing.T, name string, remote func(authority, who string, args ...string) []string) {
	t.Helper()
	n.Expect(must(t, remote("ours", "reader", "list", "-o", "name")...)).To(Equal("workspace/" + name + "\n"))
	for what, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"another call":      {remote("ours", "reader", "backup", name), 5, "CN=reader may not Backup in namespace default"},
		"another namespace": {remote("ours", "reader", "list", "-n", "team"), 5, "CN=reader may not List in namespace team"},
		"a stranger":        {remote("ours", "stranger", "list"), 5, "it does not accept the certificate of --cert"},
		"another daemon":    {remote("others", "reader", "list"), 7, "its certificate is not the one that --ca and --server-name expect"},
	} {
		_, err := call(t.Context(), "", tt.args...)
		n.Expect(err).To(MatchError(ContainSubstring(tt.want)), what)
		n.Expect(exitCode(err)).To(Equal(tt.code), what)
	}
}
