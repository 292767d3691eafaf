package s3_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/hack/stores/proxy"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// A bucket has one policy: tests that set it do not run side by side.
func setPolicy(t *testing.T, policy string) {
	t.Helper()
	g := NewWithT(t)
	u, err := url.Parse(server.Endpoint)
	g.Expect(err).NotTo(HaveOccurred())
	admin, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(stores.AccessKey, stores.SecretKey, "")})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(admin.SetBucketPolicy(t.Context(), stores.Bucket, policy)).To(Succeed())
}

// user makes one whom a policy names USER, and returns the store as it is for that user.
func user(t *testing.T, name, policy string) store.Store {
	t.Helper()
	g := NewWithT(t)
	g.Expect(server.AddUser(t.Context(), name, name+"-secret")).To(Succeed())
	setPolicy(t, strings.NewReplacer("BUCKET", stores.Bucket, "PREFIX", prefix(t), "DOMAIN", storetest.IsolationDomain, "USER", name).Replace(policy))
	return open(t, "", "credentials-dir="+secret(t, name, name+"-secret"))
}

func denied(t *testing.T, what string, err error) {
	t.Helper()
	g := NewWithT(t)
	var refused *store.RefusedError
	g.Expect(errors.As(err, &refused)).To(BeTrue(), "%s: %v", what, err)
	g.Expect(refused.Advice).To(HavePrefix("allow these credentials s3:ListBucket on the bucket "+stores.Bucket), what)
	g.Expect(err).NotTo(MatchError(store.ErrNotFound), "S10: %s", what)
}

// discreet is a server that tells nobody that an object is absent.
type discreet struct{ inner http.Handler }

func (d *discreet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := httptest.NewRecorder()
	d.inner.ServeHTTP(reply, r)
	maps.Copy(w.Header(), reply.Header())
	if reply.Code == http.StatusNotFound {
		w.Header().Del("Content-Length")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
		return
	}
	w.WriteHeader(reply.Code)
	_, _ = w.Write(reply.Body.Bytes())
}

// With the policy of the documentation, the credentials of a node reach the domain they are for, and no other one.
func TestS3PolicyKeepsDomainsApart(t *testing.T) {
	g := NewWithT(t)
	policy, err := os.ReadFile("../../../../config/samples/store/s3/bucket-policy.json")
	g.Expect(err).NotTo(HaveOccurred())
	// Where the server would say that an object is absent, Amazon denies it to whoever may list under a condition only.
	amazon := httptest.NewServer(&discreet{inner: storetest.Proxied(t, server.Endpoint)})
	t.Cleanup(amazon.Close)
	storetest.RunIsolation(t, openAsAdmin(t), func() store.Store {
		user(t, "node-a", string(policy))
		return open(t, amazon.URL, "credentials-dir="+secret(t, "node-a", "node-a-secret"))
	}, denied)
}

// Without the right to list, Amazon answers a request for an object that is missing like one that may not be read: that is no proof of
// absence.
func TestS10_S3WithoutListRight(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	p := storetest.Proxied(t, server.Endpoint)
	blind := open(t, p.URL, "credentials-dir="+secret(t, stores.AccessKey, stores.SecretKey))
	g.Expect(store.Init(ctx, blind)).Error().NotTo(HaveOccurred())
	p.Break(func(r proxy.Request) proxy.Fault {
		if strings.Contains(r.Target, "/missing") || strings.Contains(r.Target, "list-type") {
			return proxy.Fault{Answer: http.StatusForbidden, Body: "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"}
		}
		return proxy.Fault{}
	})
	g.Expect(blind.Put(ctx, "there", []byte("x"))).To(Succeed())
	g.Expect(blind.Get(ctx, "there", 10)).To(Equal([]byte("x")))
	_, err := blind.Get(ctx, "missing", 10)
	denied(t, "get", err)
	denied(t, "read", blind.Read(ctx, "missing", 0, make([]byte, 1)))
	_, err = blind.Stat(ctx, "missing")
	denied(t, "stat", err)
	_, err = store.Probe(ctx, blind)
	denied(t, "probe", err)
}
