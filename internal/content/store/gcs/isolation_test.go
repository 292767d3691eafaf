package gcs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// policed is the server behind a bucket's IAM policy, of which it knows as much as the one in the samples needs. The server
// itself has none.
type policed struct {
	inner  http.Handler
	policy policy
}

type policy struct {
	Bindings []struct {
		Role      string
		Condition struct{ Expression string }
	}
}

// permissions are those of the roles that matter here.
var permissions = map[string][]string{
	"roles/storage.objectViewer": {"get", "list"},
	"roles/storage.objectUser":   {"get", "list", "create", "delete"},
}

// term is one that an expression may consist of.
var term = regexp.MustCompile(`^(resource\.name|api\.getAttribute\("storage\.googleapis\.com/objectListPrefix", ""\))(?: == |\.startsWith\()"([^"]*)"\)?$`)

// ServeHTTP answers 403 to what the policy does not allow, before anything else is looked at.
func (p *policed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	permission, resource, list := asked(r)
	if !p.allows(permission, resource, list) {
		p.deny(w, permission, resource)
		return
	}
	reply := httptest.NewRecorder()
	p.inner.ServeHTTP(reply, r)
	if reply.Code == http.StatusNotFound && !p.allows("list", "projects/_/buckets/"+stores.Bucket, "") {
		p.deny(w, "list", resource) // who may not list is not told that an object is absent
		return
	}
	maps.Copy(w.Header(), reply.Header())
	w.WriteHeader(reply.Code)
	_, _ = w.Write(reply.Body.Bytes())
}

func (p *policed) deny(w http.ResponseWriter, permission, resource string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_, _ = fmt.Fprintf(w, `{"error": {"code": 403, "message": "the account does not have storage.objects.%s access to %s"}}`, permission, resource)
}

func (p *policed) allows(permission, resource, list string) bool {
	for _, b := range p.policy.Bindings {
		if slices.Contains(permissions[b.Role], permission) && holds(b.Condition.Expression, resource, list) {
			return true
		}
	}
	return false
}

// holds evaluates an expression: terms joined by "or".
func holds(expression, resource, list string) bool {
	for text := range strings.SplitSeq(expression, " || ") {
		parts := term.FindStringSubmatch(text)
		if parts == nil {
			panic("the policy has a term that this test does not understand: " + text)
		}
		value := list
		if parts[1] == "resource.name" {
			value = resource
		}
		if value == parts[2] || strings.Contains(text, ".startsWith(") && strings.HasPrefix(value, parts[2]) {
			return true
		}
	}
	return false
}

// asked tells what a request needs: a permission, on an object or the bucket, and the prefix if it is a listing.
func asked(r *http.Request) (permission, resource, list string) {
	bucket := "projects/_/buckets/" + stores.Bucket
	_, object, named := strings.Cut(r.URL.Path, "/o/")
	switch {
	case r.Method == http.MethodPost:
		return "create", bucket + "/objects/" + r.URL.Query().Get("name"), ""
	case r.Method == http.MethodDelete:
		return "delete", bucket + "/objects/" + object, ""
	case named:
		return "get", bucket + "/objects/" + object, ""
	}
	return "list", bucket, r.URL.Query().Get("prefix")
}

func denied(t *testing.T, what string, err error) {
	t.Helper()
	g := NewWithT(t)
	var refused *store.RefusedError
	g.Expect(errors.As(err, &refused)).To(BeTrue(), "%s: %v", what, err)
	g.Expect(refused.Advice).To(HavePrefix("give this account storage.objects.get, create, delete and list on the bucket "+stores.Bucket), what)
	g.Expect(err).NotTo(MatchError(store.ErrNotFound), "S10: %s", what)
}

// With the policy of the documentation, the credentials of a node reach the domain they are for, and no other one.
func TestGCSPolicyKeepsDomainsApart(t *testing.T) {
	g := NewWithT(t)
	text, err := os.ReadFile("../../../../config/samples/store/gcs/bucket-policy.json")
	g.Expect(err).NotTo(HaveOccurred())
	filled := strings.NewReplacer("BUCKET", stores.Bucket, "PREFIX", prefix(t), "DOMAIN", storetest.IsolationDomain).Replace(string(text))
	p := &policed{inner: storetest.Proxied(t, server.Endpoint)}
	g.Expect(json.Unmarshal([]byte(filled), &p.policy)).To(Succeed())
	behind := httptest.NewServer(p)
	t.Cleanup(behind.Close)
	storetest.RunIsolation(t, open(t, ""), func() store.Store { return open(t, behind.URL) }, denied)
}
