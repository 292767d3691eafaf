package cmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// freeAddress is one of this machine that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer l.Close()
	return l.Addr().String()
}

type page struct {
	Code int
	Body string
	Err  error
}

// fetch reads a page, whatever certificate it comes with.
func fetch(t *testing.T, url string, header ...string) page {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return page{Err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return page{response.StatusCode, string(body), err}
}

// scraper makes a service account, which may read metrics or not, and returns its token.
func scraper(t *testing.T, name string, allowed bool) string {
	t.Helper()
	g := NewWithT(t)
	api, err := kubernetes.NewForConfig(apiServer.Config())
	g.Expect(err).NotTo(HaveOccurred())
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	_, err = api.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	if allowed {
		allow(t, api, name)
	}
	token, err := api.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	return "Bearer " + token.Status.Token
}

// allow gives a service account the right that config/rbac/metrics_reader.yaml is.
func allow(t *testing.T, api kubernetes.Interface, name string) {
	t.Helper()
	g := NewWithT(t)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}}}
	_, err := api.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = api.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: "default"}},
	}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
}

// On an address that others reach, only those read the metrics whom the API server allows it.
func TestMetricsAreForThoseWhoMayReadThem(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	_, port, err := net.SplitHostPort(freeAddress(t))
	n.Expect(err).NotTo(HaveOccurred())
	n.edit(func(c *config.Config) { c.Metrics.Address = ":" + port })
	name := unique("protected")
	n.daemon(t, name)
	url := "https://127.0.0.1:" + port + "/metrics"
	reader, stranger := scraper(t, unique("reader"), true), scraper(t, unique("stranger"), false)
	n.Eventually(func() page { return fetch(t, url) }, "30s").Should(Equal(page{Code: 401, Body: "Unauthorized\n"}), "nobody in particular")
	n.Expect(fetch(t, url, "Authorization", "Bearer nonsense")).To(HaveField("Body", Equal("Authentication failed\n")))
	n.Expect(fetch(t, url, "Authorization", stranger)).To(And(HaveField("Code", 403), HaveField("Body", HavePrefix("Authorization denied"))))
	n.Expect(fetch(t, url, "Authorization", reader)).To(And(HaveField("Code", 200), HaveField("Body", ContainSubstring("ws_daemon_build_info"))))
	n.Expect(fetch(t, "http://127.0.0.1:"+port+"/metrics", "Authorization", reader).Code).To(Equal(400), "without TLS a token could be read on the way")

	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
	_, err = (&tls.Dialer{Config: old}).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
	n.Expect(err).To(MatchError(ContainSubstring("protocol version")))
}

// A port that another program has stops nothing else, and is taken as soon as it is free.
func TestAMetricsPortThatIsTakenStopsNothing(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	n.Expect(err).NotTo(HaveOccurred())
	defer taken.Close()
	n.edit(func(c *config.Config) { c.Metrics.Address = taken.Addr().String() })
	name := unique("taken")
	n.daemon(t, name)
	api, err := kubernetes.NewForConfig(apiServer.Config())
	n.Expect(err).NotTo(HaveOccurred())
	n.Eventually(func() string {
		all, err := api.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		for _, e := range all.Items {
			if e.Regarding.Name == name && e.Reason == eventMetricsUnavailable {
				return e.Note
			}
		}
		return ""
	}, "30s").Should(And(HavePrefix("nobody can read the metrics: metrics.address: "), HaveSuffix("bind: address already in use")))
	n.Eventually(n.condition(t.Context(), name, "Ready"), "30s").Should(HavePrefix("True "))
	n.Expect(taken.Close()).To(Succeed())
	n.Eventually(func() int { return fetch(t, "http://"+taken.Addr().String()+"/metrics").Code }, "60s").Should(Equal(200))
}

// The daemon lives, and says so, while it waits for an API server.
func TestLivenessNeedsNoAPIServer(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	at := freeAddress(t)
	n.edit(func(c *config.Config) { c.Health.Address = at })
	nowhere := filepath.Join(t.TempDir(), "kubeconfig")
	text, err := os.ReadFile(apiServer.Kubeconfig())
	n.Expect(err).NotTo(HaveOccurred())
	text = bytes.ReplaceAll(text, []byte(hostOf(t, apiServer.Config().Host)), []byte(freeAddress(t)))
	n.Expect(os.WriteFile(nowhere, text, 0o600)).To(Succeed())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := call(ctx, "", "run", "--config="+n.config, "--node="+unique("alone"), "--kubeconfig="+nowhere)
		ended <- err
	}()
	n.Eventually(func() page { return fetch(t, "http://"+at+"/healthz") }, "30s").Should(Equal(page{Code: 200, Body: "ok\n"}))
	n.Expect(fetch(t, "http://"+at+"/readyz")).To(Equal(page{Code: 503, Body: "start failed\n"}))
	n.Expect(ended).NotTo(Receive())
	cancel()
	n.Eventually(ended, "30s").Should(Receive(MatchError(context.Canceled)))
}

func hostOf(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	NewWithT(t).Expect(errors.Join(err)).NotTo(HaveOccurred())
	return request.URL.Host
}

// A port for profiles that is taken is named and waited for.
func TestAPortForProfilesThatIsTakenStopsNothing(t *testing.T) {
	noLeaks(t)
	g := NewWithT(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	defer taken.Close()
	lines := make(chan string, 10)
	p := profiles{funcr.New(func(_, args string) { lines <- args }, funcr.Options{}), taken.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	g.Eventually(lines, "10s").Should(Receive(And(ContainSubstring("nobody can read profiles; trying again"),
		ContainSubstring("--pprof: listen tcp "+p.address+": bind: address already in use"))))
	g.Expect(taken.Close()).To(Succeed())
	g.Eventually(func() int { return fetch(t, "http://"+p.address+"/debug/pprof/cmdline").Code }, "60s").Should(Equal(200))
	cancel()
	g.Eventually(ended, "10s").Should(Receive(BeNil()))
	g.Expect(profiles{}.run(t.Context())).To(Succeed(), "nobody wants any")
}
