package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// request is what the API server records of one.
type request struct {
	Verb           string
	User           struct{ Username string }
	ObjectRef      struct{ APIGroup, Resource, Subresource string }
	ResponseStatus struct{ Code int }
	RequestURI     string
}

// String tells verb, group and resource.
func (r request) String() string {
	return describe(r.Verb, r.ObjectRef.APIGroup, strings.TrimSuffix(r.ObjectRef.Resource+"/"+r.ObjectRef.Subresource, "/"))
}

func describe(verb, group, resource string) string {
	return strings.TrimSpace(verb + " " + group + " " + resource)
}

// requests reads what the daemons of a cluster have asked for.
func requests(t *testing.T, file string) []request {
	t.Helper()
	g := NewWithT(t)
	text, err := os.ReadFile(filepath.Clean(file))
	g.Expect(err).NotTo(HaveOccurred())
	var all []request
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r request
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.User.Username == "system:serviceaccount:ws-daemon-system:ws-daemon" {
			all = append(all, r)
		}
	}
	return all
}

// rights are those that the daemons are deployed with.
func rights(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(env.Root, "config/rbac/role.yaml"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	var role rbacv1.ClusterRole
	NewWithT(t).Expect(yaml.UnmarshalStrict(text, &role)).To(Succeed())
	var all []string
	for _, rule := range role.Rules {
		for _, verb := range rule.Verbs {
			all = append(all, describe(verb, rule.APIGroups[0], rule.Resources[0]))
		}
	}
	return all
}

// A life in which the daemon needs each of its rights, with the service account, the role and the policies that it is deployed with:
// none is left over, and none is missing.
func TestEveryRightIsUsed(t *testing.T) {
	t.Parallel()
	g, w := NewWithT(t), env.World(t, harness.OnOwnCluster())
	address := freeAddress(t)
	sockets, err := os.MkdirTemp("", "ws-service-") //nolint:usetesting // the path of a socket must be short
	g.Expect(err).NotTo(HaveOccurred())
	defer os.RemoveAll(sockets)
	socket := filepath.Join(sockets, "service", "socket")
	a := w.Node("a", func(c *config.Config) { c.Metrics.Address, c.Service.Socket = address, socket }).Start()
	g.Expect(w.Client.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.Name}})).To(Succeed())

	ws := w.Workspace("web", a, harness.WithGit(w.GitServer()))
	ws.Ready()
	pod := w.Pod("shell", ws, a)
	ws.Backup("one")
	ws.Write("file", "two")
	ws.Backup("two") // the same event once more
	w.Keep("kept", ws)
	ask(t, socket, &daemonv1.SnapshotRequest{Namespace: w.Namespace, Name: "web"})
	again := w.Workspace("again", a, func(o *v1.Workspace) {
		o.Spec.Initializer = v1.Initializer{Snapshot: &v1.SnapshotInitializer{Name: "kept"}}
	})
	g.Expect(again.Ready().Status.Content.Source).To(Equal(v1.SourceSnapshot))
	w.RemovePod(pod)
	ws.Stop().Stopped()
	again.Delete().Gone()
	scrape(t, w, address)

	w.Eventually("every right is used", func() error {
		var used []string
		for _, r := range requests(t, w.Cluster.AuditLog()) {
			if r.ResponseStatus.Code < http.StatusBadRequest {
				used = append(used, r.String())
			}
		}
		left := slices.DeleteFunc(rights(t), func(right string) bool { return slices.Contains(used, right) })
		if len(left) > 0 {
			return fmt.Errorf("not used: %q", left)
		}
		return nil
	})
	for _, r := range requests(t, w.Cluster.AuditLog()) {
		refused := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity}
		g.Expect(refused).NotTo(ContainElement(r.ResponseStatus.Code), "%s: %s", r, r.RequestURI)
	}
}

// freeAddress finds an address of this machine at which others would reach it as well.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "0.0.0.0:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// ask has the daemon's service make a snapshot.
func ask(t *testing.T, socket string, request *daemonv1.SnapshotRequest) {
	t.Helper()
	g := NewWithT(t)
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	made, err := daemonv1.NewWorkspaceServiceClient(c).Snapshot(ctx, request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(made.GetSnapshot().GetId()).To(HavePrefix("web-"))
}

// scrape asks for metrics with a token that is good for nothing: the daemon has the API server judge it.
func scrape(t *testing.T, w *harness.World, address string) {
	t.Helper()
	_, access, err := w.Cluster.AddPod(t.Context(), w.Namespace, "curious", "curious", "")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	w.Eventually("the metrics are refused", func() error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+access.BearerToken)
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode != http.StatusForbidden {
			return fmt.Errorf("the answer is %s", answer.Status)
		}
		return nil
	})
}
