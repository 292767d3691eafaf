package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
)

const manager = "spiffe://cluster.local/ns/ws/sa/manager"

func rights() []config.Right {
	return []config.Right{
		{Subject: "CN=reader", Methods: []string{"Get", "List", "Watch"}, Namespaces: []string{"team-a"}},
		{Subject: "URI=" + manager, Methods: []string{"*"}, Namespaces: []string{"*"}},
	}
}

func get(c daemonv1.WorkspaceServiceClient, namespace, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := c.Get(ctx, &daemonv1.GetRequest{Namespace: namespace, Name: name})
	return err
}

// Nobody gets in from the network who does not show a certificate of our authority, and nobody does what no right allows him.
func TestNetworkServesOnlyWhomItShould(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"), workspace("team-b", "web"))
	ours, callers, others := newAuthority(w, "ours"), newAuthority(w, "callers"), newAuthority(w, "others")
	w.network(ours.issue("daemon"), callers)
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.start()

	const closed = "Unavailable"
	for name, c := range map[string]struct {
		with      credentials.TransportCredentials
		namespace string
		want      string
	}{
		"its own":         {mutual(ours, callers.issue("reader")), "team-a", "OK"},
		"a URI":           {mutual(ours, callers.issue("", withURI(manager))), "team-b", "OK"},
		"a second URI":    {mutual(ours, callers.issue("nobody", withURI("urn:x"), withURI(manager))), "team-b", "OK"},
		"plain TCP":       {insecure.NewCredentials(), "team-a", closed},
		"no certificate":  {mutual(ours), "team-a", closed},
		"wrong authority": {mutual(ours, others.issue("reader")), "team-a", closed},
		"the daemon's":    {mutual(ours, ours.issue("reader")), "team-a", closed},
		"expired":         {mutual(ours, callers.issue("reader", ends(time.Now().Add(-time.Minute)))), "team-a", closed},
		"not yet valid":   {mutual(ours, callers.issue("reader", ends(time.Now().Add(5*time.Hour)))), "team-a", closed},
		"of a server":     {mutual(ours, callers.issue("reader", usage(x509.ExtKeyUsageServerAuth))), "team-a", closed},
		"TLS 1.2": {credentials.NewTLS(&tls.Config{
			RootCAs: ours.pool(), Certificates: []tls.Certificate{callers.issue("reader")}, MaxVersion: tls.VersionTLS12,
		}), "team-a", closed},
		"another subject": {mutual(ours, callers.issue("stranger")), "team-a",
			"PermissionDenied: CN=stranger may not Get in namespace team-a: service.rights of the daemon's configuration would have to allow it"},
		"a subject in other letters": {mutual(ours, callers.issue("Reader")), "team-a",
			"PermissionDenied: CN=Reader may not Get in namespace team-a: service.rights of the daemon's configuration would have to allow it"},
		"a name that looks like a URI": {mutual(ours, callers.issue(manager)), "team-a",
			"PermissionDenied: CN=" + manager + " may not Get in namespace team-a: service.rights of the daemon's configuration would have to allow it"},
		"no name at all": {mutual(ours, callers.issue("")), "team-a",
			"PermissionDenied: the certificate has neither a URI nor a common name: rights are given to those"},
		"another namespace": {mutual(ours, callers.issue("reader")), "team-b",
			"PermissionDenied: CN=reader may not Get in namespace team-b: service.rights of the daemon's configuration would have to allow it"},
		"a namespace that is not there": {mutual(ours, callers.issue("reader")), "team-c",
			"PermissionDenied: CN=reader may not Get in namespace team-c: service.rights of the daemon's configuration would have to allow it"},
	} {
		t.Run(name, func(t *testing.T) {
			got := outcome(get(w.remote(c.with), c.namespace, "web"))
			if c.want == closed {
				NewWithT(t).Expect(got).To(HavePrefix(closed))
				return
			}
			NewWithT(t).Expect(got).To(Equal(c.want))
		})
	}
	w.Expect(w.server.callers.counts).NotTo(HaveKey("CN=expired"))
}

// What a caller may do to one method says nothing of the others, of any kind.
func TestEveryMethodNeedsARight(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.start()
	for _, allowed := range []string{"", "Get"} {
		right := config.Right{Subject: "CN=caller", Methods: []string{allowed}, Namespaces: []string{"team-a"}}
		w.server.Configure(config.Service{Rights: []config.Right{right}, RequestsPerSecond: 1000, Exports: 1})
		c := w.remote(mutual(ours, ours.issue("caller")))
		for method, call := range everyMethod(c, "team-a", "web") {
			want := "PermissionDenied: CN=caller may not " + method + " in namespace team-a: service.rights of the daemon's configuration would have to allow it"
			if method == allowed {
				want = "OK"
			}
			w.Expect(outcome(call(t.Context()))).To(Equal(want), method)
		}
	}
	w.Expect(config.Methods()).To(ConsistOf(methodsOf(daemonv1.WorkspaceService_ServiceDesc)), "rights name the methods that there are")
}

// Health and reflection are for those on the node.
func TestOnlyTheSocketHasHealthAndReflection(t *testing.T) {
	noLeaks(t)
	w := newWorld(t)
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.server.Configure(config.Service{
		Rights: []config.Right{{Subject: "CN=caller", Methods: []string{"*"}, Namespaces: []string{"*"}}}, RequestsPerSecond: 1000, Exports: 1,
	})
	w.start()
	w.Expect(plain(t.Context(), w.connect())).To(Equal("OK SERVING, OK"))
	remote, err := dial(w.server.Config.Address, mutual(ours, ours.issue("caller")))
	w.Expect(err).NotTo(HaveOccurred())
	defer remote.Close()
	w.Eventually(func() string { return plain(t.Context(), remote) }).Should(Equal("Unimplemented, Unimplemented"))
}

// A caller's rights end when the configuration takes them, also those of calls that run.
func TestRightsAreTakenAtOnce(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.start()
	reader := w.remote(mutual(ours, ours.issue("reader")))
	stream, err := reader.Watch(t.Context(), &daemonv1.WatchRequest{Namespace: "team-a"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(eventsOf(w, stream, 2)).To(Equal([]string{"UPDATED team-a/web", "SYNCED"}))
	all, err := reader.Watch(t.Context(), &daemonv1.WatchRequest{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(eventsOf(w, all, 2)).To(Equal([]string{"UPDATED team-a/web", "SYNCED"}))

	w.server.Configure(config.Service{Rights: rights()[1:], RequestsPerSecond: 1000, Exports: 1})
	for _, s := range []interface {
		Recv() (*daemonv1.WatchResponse, error)
	}{stream, all} {
		_, err = s.Recv()
		w.Expect(outcome(err)).To(Equal("PermissionDenied: the configuration does not give the caller this right any more"))
	}
	w.Expect(status.Code(get(reader, "team-a", "web"))).To(Equal(codes.PermissionDenied))
}

// A call does not outlive the caller's certificate.
func TestACallEndsWithItsCertificate(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.start()
	short := w.remote(mutual(ours, ours.issue("reader", ends(time.Now().Add(3*time.Second)))))
	stream, err := short.Watch(t.Context(), &daemonv1.WatchRequest{Namespace: "team-a"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(eventsOf(w, stream, 2)).To(Equal([]string{"UPDATED team-a/web", "SYNCED"}))
	_, err = stream.Recv()
	w.Expect(outcome(err)).To(Equal("Unauthenticated: the caller's certificate has expired: renew it"))
	w.Expect(outcome(get(short, "team-a", "web"))).To(Equal("Unauthenticated: the caller's certificate has expired: renew it"), "on the connection that is still there")
}

// Certificates that were rotated hold from the next connection on; nobody has to be told, and nothing is cut.
func TestCertificatesRotate(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	before, after := newAuthority(w, "before"), newAuthority(w, "after")
	dir := w.network(before.issue("daemon"), before)
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.start()
	old := w.remote(mutual(before, before.issue("reader")))
	w.Expect(outcome(get(old, "team-a", "web"))).To(Equal("OK"))

	w.rotate(dir, after.issue("daemon"), after)
	w.Expect(outcome(get(w.remote(mutual(after, after.issue("reader"))), "team-a", "web"))).To(Equal("OK"))
	w.Expect(outcome(get(w.remote(mutual(after, before.issue("reader"))), "team-a", "web"))).To(HavePrefix("Unavailable"))
	w.Expect(outcome(get(old, "team-a", "web"))).To(Equal("OK"), "it is connected")

	w.replace(filepath.Join(dir, "tls.crt"), []byte("half of a certi"))
	w.Eventually(w.told.String).Should(ContainSubstring("ServiceCertificate service.certFile and service.keyFile: tls: failed to find any PEM data"))
	w.Expect(outcome(get(w.remote(mutual(after, after.issue("reader"))), "team-a", "web"))).To(Equal("OK"), "the last ones that were good stay in use")
	w.Expect(os.Remove(filepath.Join(dir, "ca.crt"))).To(Succeed())
	w.Eventually(w.told.String).Should(ContainSubstring("ca.crt: no such file or directory"))
	w.Expect(outcome(get(w.remote(mutual(after, after.issue("reader"))), "team-a", "web"))).To(Equal("OK"))
}

// An expired certificate of the daemon is said, its callers refuse it, and the socket serves on. A new one is all that is needed.
func TestExpiredCertificateOfTheDaemon(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	dir := w.network(ours.issue("daemon", ends(time.Now().Add(-time.Minute))), ours)
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.start()
	w.Eventually(w.told.String).Should(MatchRegexp(`^ServiceCertificate service.certFile: the certificate ended at .*Z: callers refuse it, renew it\n$`))
	w.Expect(outcome(get(w.remote(mutual(ours, ours.issue("reader"))), "team-a", "web"))).To(And(HavePrefix("Unavailable"), ContainSubstring("expired")))
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
	w.rotate(dir, ours.issue("daemon"), ours)
	w.Eventually(func() string { return outcome(get(w.remote(mutual(ours, ours.issue("reader"))), "team-a", "web")) }).Should(Equal("OK"))
}

// Certificates that are missing, and a port that is taken, stop nothing else; as soon as they are there, callers are served.
func TestWhatCannotBeServedIsTriedAgain(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	cert := ours.issue("daemon")
	dir := w.network(cert, ours)
	w.unreachable = true
	w.Expect(os.Remove(filepath.Join(dir, "tls.key"))).To(Succeed())
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", w.server.Config.Address)
	w.Expect(err).NotTo(HaveOccurred())
	defer taken.Close()
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.start()
	w.Eventually(w.told.String).Should(MatchRegexp(`ServiceUnavailable service.address: nobody can use the service there: read certificates: .*tls.key: no such file or directory\n`))
	w.rotate(dir, cert, ours)
	w.Eventually(w.told.String).Should(MatchRegexp(`ServiceUnavailable service.address: nobody can use the service there: listen tcp .*: bind: address already in use\n`))
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
	w.Expect(taken.Close()).To(Succeed())
	w.Eventually(func() string { return outcome(get(w.remote(mutual(ours, ours.issue("reader"))), "team-a", "web")) }).Should(Equal("OK"))
}
