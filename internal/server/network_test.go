package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
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

	const closed, refusal = "Unavailable", " in namespace %s: service.rights of the daemon's configuration would have to allow it"
	may := func(who, namespace string) string {
		return "PermissionDenied: " + who + " may not Get" + fmt.Sprintf(refusal, namespace)
	}
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
			may("CN=stranger", "team-a")},
		"a subject in other letters": {mutual(ours, callers.issue("Reader")), "team-a",
			may("CN=Reader", "team-a")},
		"a name that looks like a URI": {mutual(ours, callers.issue(manager)), "team-a",
			may("CN="+manager, "team-a")},
		"a subject that begins the same": {mutual(ours, callers.issue("reader2")), "team-a", may("CN=reader2", "team-a")},
		"the beginning of a subject":     {mutual(ours, callers.issue("read")), "team-a", may("CN=read", "team-a")},
		"a subject with more":            {mutual(ours, callers.issue("reader\x00")), "team-a", may("CN=reader\x00", "team-a")},
		"a wildcard":                     {mutual(ours, callers.issue("*")), "team-a", may("CN=*", "team-a")},
		"two names in one":               {mutual(ours, callers.issue("x CN=reader")), "team-a", may("CN=x CN=reader", "team-a")},
		"a URI below":                    {mutual(ours, callers.issue("", withURI(manager+"/x"))), "team-a", may("URI="+manager+"/x", "team-a")},
		"a URI above":                    {mutual(ours, callers.issue("", withURI("spiffe://cluster.local"))), "team-a", may("URI=spiffe://cluster.local", "team-a")},
		"a name of the type DNS": {mutual(ours, callers.issue("", func(c *x509.Certificate) { c.DNSNames = []string{"reader", "*"} })), "team-a",
			"PermissionDenied: the certificate has neither a URI nor a common name: rights are given to those"},
		"an address for mail": {mutual(ours, callers.issue("", func(c *x509.Certificate) { c.EmailAddresses = []string{"reader"} })), "team-a",
			"PermissionDenied: the certificate has neither a URI nor a common name: rights are given to those"},
		"an organisation": {mutual(ours, callers.issue("", func(c *x509.Certificate) { c.Subject.Organization = []string{"reader"} })), "team-a",
			"PermissionDenied: the certificate has neither a URI nor a common name: rights are given to those"},
		"a namespace that begins the same": {mutual(ours, callers.issue("reader")), "team-a-b", may("CN=reader", "team-a-b")},
		"a way out of the namespace":       {mutual(ours, callers.issue("reader")), "team-a/../team-b", may("CN=reader", "team-a/../team-b")},
		"any namespace":                    {mutual(ours, callers.issue("reader")), "*", may("CN=reader", "*")},
		"no namespace": {mutual(ours, callers.issue("reader")), "",
			"InvalidArgument: namespace: must be the name of a namespace, 1 to 63 small letters, digits and inner hyphens, not \"\""},
		"no name at all": {mutual(ours, callers.issue("")), "team-a",
			"PermissionDenied: the certificate has neither a URI nor a common name: rights are given to those"},
		"another namespace": {mutual(ours, callers.issue("reader")), "team-b",
			may("CN=reader", "team-b")},
		"a namespace that is not there": {mutual(ours, callers.issue("reader")), "team-c",
			may("CN=reader", "team-c")},
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
	ours := w.serveNetwork(1000)
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
	ours := w.serveNetwork(1000)
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

// An authority of callers that follows another one is trusted beside it, and alone when the other one is over. That it is over is said.
func TestAuthoritiesOfCallersRotate(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	daemon, before, after := newAuthority(w, "daemon"), newAuthority(w, "before", ends(time.Now().Add(-time.Minute))), newAuthority(w, "after")
	dir := w.network(daemon.issue("daemon"), before)
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.start()
	asked := func(by *authority) string {
		return outcome(get(w.remote(mutual(daemon, by.issue("reader"))), "team-a", "web"))
	}
	w.Eventually(w.told.String).Should(MatchRegexp(`^ServiceCertificate service.clientCAFile: the last authority ended at .*Z: every caller is refused, add the one that follows it\n$`))
	w.Expect(asked(before)).To(HavePrefix("Unavailable"))
	w.Expect(asked(after)).To(HavePrefix("Unavailable"))
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))

	w.replace(filepath.Join(dir, "ca.crt"), append(before.pem(), after.pem()...))
	w.Expect(asked(before)).To(HavePrefix("Unavailable"), "it is over, whatever stands beside it")
	w.Expect(asked(after)).To(Equal("OK"))
	const begin, end = "ws_daemon_service_certificate_begin_timestamp_seconds", "ws_daemon_service_certificate_end_timestamp_seconds"
	w.Eventually(func() map[string]float64 { return measured(w, end) }).Should(And(
		HaveKeyWithValue("callers", float64(after.cert.NotAfter.Unix())), HaveKeyWithValue("daemon", BeNumerically("~", time.Now().Add(time.Hour).Unix(), 60)),
	))
	w.Expect(measured(w, begin)).To(HaveKeyWithValue("callers", float64(after.cert.NotBefore.Unix())))

	for text, want := range map[string]string{
		"":                        "there is no certificate in PEM format in it",
		string(after.pem()[:100]): "there is no certificate in PEM format in it",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n":           "x509: malformed certificate",
		"-----BEGIN " + "PRIVATE KEY-----\nAAAA\n-----END " + "PRIVATE KEY-----\n": "there is a PRIVATE KEY in it, where only certificates should be",
	} {
		w.replace(filepath.Join(dir, "ca.crt"), []byte(text))
		w.Eventually(w.told.String).Should(ContainSubstring("ServiceCertificate service.clientCAFile: " + filepath.Join(dir, "ca.crt") + ": " + want))
		w.Expect(asked(after)).To(Equal("OK"), "the last ones that were good stay in use")
	}
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
