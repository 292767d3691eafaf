package harness

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

const (
	// DaemonAccount is the service account of daemons.
	DaemonAccount = account
	// ControllerAccount is that of the cluster controller.
	ControllerAccount = controllerAccount
	// DaemonRoles is the file with the roles of daemons.
	DaemonRoles = "config/rbac/role.yaml"
	// ControllerRoles is that of the cluster controller.
	ControllerRoles = "config/controller/role.yaml"
)

// request is what the API server has recorded of one.
type request struct {
	Verb           string
	User           struct{ Username string }
	ObjectRef      struct{ APIGroup, Resource, Subresource string }
	ResponseStatus struct{ Code int }
	RequestURI     string
}

// right tells verb, group and resource.
func (r request) right() string {
	return right(r.Verb, r.ObjectRef.APIGroup, strings.TrimSuffix(r.ObjectRef.Resource+"/"+r.ObjectRef.Subresource, "/"))
}

func right(verb, group, resource string) string { return verb + " " + resource + " of " + group }

// requests are those that a service account has made of the world's API server.
func (w *World) requests(account string) []request {
	w.t.Helper()
	var all []request
	lines := bufio.NewScanner(strings.NewReader(w.read(w.Cluster.AuditLog())))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r request
		// A line may be just about to be written.
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.User.Username == "system:serviceaccount:"+system+":"+account {
			all = append(all, r)
		}
	}
	return all
}

// rights are those that a file of roles gives.
func (w *World) rights(file string) []string {
	w.t.Helper()
	var all []string
	for part := range bytes.SplitSeq([]byte(w.read(filepath.Join(w.Env.Root, file))), []byte("\n---\n")) {
		var role rbacv1.Role // a ClusterRole has the same fields, and more
		w.must(yaml.Unmarshal(part, &role))
		for _, rule := range role.Rules {
			for _, verb := range rule.Verbs {
				all = append(all, right(verb, rule.APIGroups[0], rule.Resources[0]))
			}
		}
	}
	return all
}

// AwaitRightsUsed waits until a service account has used all rights that a file of roles gives it, and fails the test if it was refused
// anything: what is left over is not needed, and what is missing would be found by users. The world must be on its own cluster.
func (w *World) AwaitRightsUsed(account, file string) {
	w.t.Helper()
	w.Eventually("every right is used", func() error {
		var used []string
		for _, r := range w.requests(account) {
			used = append(used, r.right())
			if r.Verb == "watch" {
				r.Verb = "list" // API servers before 1.34 are asked for a list first
				used = append(used, r.right())
			}
		}
		left := slices.DeleteFunc(w.rights(file), func(right string) bool { return slices.Contains(used, right) })
		if len(left) > 0 {
			return fmt.Errorf("not used: %q", left)
		}
		return nil
	})
	refused := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity}
	for _, r := range w.requests(account) {
		w.g.Expect(refused).NotTo(gomega.ContainElement(r.ResponseStatus.Code), "%s: %s", r.right(), r.RequestURI)
	}
}

// FreeAddress finds an address of this machine, for a server that others than this machine could reach as well.
func (w *World) FreeAddress() string {
	w.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "0.0.0.0:0")
	w.must(err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Scrape asks for metrics with a token that is good for nothing, until the API server has judged it.
func (w *World) Scrape(address string) {
	w.t.Helper()
	_, access, err := w.Cluster.AddPod(w.t.Context(), w.Namespace, "curious", "curious", "")
	w.must(err)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	w.Eventually("the metrics are refused", func() error {
		r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
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
