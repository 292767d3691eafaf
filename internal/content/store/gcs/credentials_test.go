package gcs_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores/proxy"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// secured is the server behind TLS and tokens: it issues them to accounts that it knows, and asks for them.
type secured struct {
	*httptest.Server

	inner  http.Handler
	mu     sync.Mutex
	known  bool   // whether accounts are known
	valid  string // the token that is accepted
	issued int
	late   time.Duration // how far the clock of this server is ahead
}

func secure(t *testing.T) (*secured, string) {
	t.Helper()
	s := &secured{inner: storetest.Proxied(t, server.Endpoint), known: true}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	NewWithT(t).Expect(os.WriteFile(ca, block, 0o600)).To(Succeed())
	return s, ca
}

func (s *secured) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	token := r.URL.Path == "/token"
	denied := token && !s.known || !token && r.Header.Get("Authorization") != "Bearer "+s.valid
	if token && !denied {
		s.issued++
		s.valid = fmt.Sprintf("token-%d", s.issued)
	}
	valid := s.valid
	if s.late > 0 {
		w.Header().Set("Date", time.Now().Add(s.late).UTC().Format(http.TimeFormat))
	}
	s.mu.Unlock()
	switch {
	case denied && token:
		http.Error(w, `{"error": "invalid_grant", "error_description": "no account with the key SECRET"}`, http.StatusBadRequest)
	case denied:
		http.Error(w, `{"error": {"code": 401, "message": "Invalid Credentials"}}`, http.StatusUnauthorized)
	case token:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": valid, "token_type": "Bearer", "expires_in": 3600})
	default:
		s.inner.ServeHTTP(w, r)
	}
}

// set changes whether accounts are known, and takes the tokens that were issued back.
func (s *secured) set(known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.valid = known, "none"
}

// account writes a service account's key.
func account(t *testing.T, file, tokenURL string) {
	t.Helper()
	g := NewWithT(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	g.Expect(err).NotTo(HaveOccurred())
	private, err := x509.MarshalPKCS8PrivateKey(key)
	g.Expect(err).NotTo(HaveOccurred())
	data, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "node@example.com", "private_key_id": "1", "token_uri": tokenURL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(file, data, 0o600)).To(Succeed())
}

func TestGCSCredentials(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	s, ca := secure(t)
	file := filepath.Join(t.TempDir(), "key.json")
	account(t, file, s.URL+"/token")
	at := open(t, s.URL, "ca-file="+ca, "credentials-file="+file)
	g.Expect(store.Init(ctx, at)).Error().NotTo(HaveOccurred())
	g.Expect(at.Put(ctx, "key", []byte("x"))).To(Succeed())
	g.Expect(s.issued).To(Equal(1), "a token is used until it expires")

	s.set(true)
	g.Expect(at.Get(ctx, "key", 10)).To(Equal([]byte("x")), "a token that was taken back is replaced")
	g.Expect(s.issued).To(Equal(2))

	s.set(false)
	for range 2 {
		_, err := at.Get(ctx, "key", 10)
		var refused *store.RefusedError
		g.Expect(errors.As(err, &refused)).To(BeTrue(), "%v", err)
		g.Expect(err).To(MatchError(ContainSubstring("replace them: the key may have been deleted")))
		g.Expect(err).NotTo(MatchError(ContainSubstring("SECRET")), "S8: what the server said may repeat what it was sent")
	}
	s.set(true)
	account(t, file, s.URL+"/token")
	g.Expect(at.Get(ctx, "key", 10)).To(Equal([]byte("x")), "a key that is replaced is used at once")
}

func TestGCSRefusalsSayWhatToDo(t *testing.T) {
	s, ca := secure(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		NewWithT(t).Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
		return path
	}
	good := filepath.Join(dir, "good.json")
	account(t, good, s.URL+"/token")
	for name, c := range map[string]struct {
		settings []string
		want     string
	}{
		"no authority": {[]string{"credentials-file=" + good}, "give the store's certificate authority as ca-file"},
		"no file":      {[]string{"ca-file=" + ca, "credentials-file=" + dir + "/missing"}, "put a service account's key, or "},
		"no JSON":      {[]string{"ca-file=" + ca, "credentials-file=" + write("text", "SECRET")}, "put a service account's key, or "},
		"no type":      {[]string{"ca-file=" + ca, "credentials-file=" + write("type", `{"x": "SECRET"}`)}, "put a service account's key, or "},
		"other type":   {[]string{"ca-file=" + ca, "credentials-file=" + write("kind", `{"type": "SECRET"}`)}, "put a service account's key, or "},
		"no key":       {[]string{"ca-file=" + ca, "credentials-file=" + write("key", `{"type": "service_account", "private_key": "SECRET"}`)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := open(t, s.URL, c.settings...).Now(t.Context())
			g.Expect(err).To(MatchError(ContainSubstring(c.want)))
			g.Expect(err).NotTo(MatchError(store.ErrNotInitialized), "S10")
			g.Expect(err).NotTo(MatchError(ContainSubstring("SECRET")), "S8")
		})
	}
}

func TestGCSWrongBucket(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	p := storetest.Proxied(t, server.Endpoint)
	at := open(t, p.URL)
	const gone = `{"error": {"code": 404, "message": "The specified bucket does not exist."}}`
	p.Break(func(proxy.Request) proxy.Fault { return proxy.Fault{Answer: http.StatusNotFound, Body: gone} })
	_, identityErr := store.Identity(ctx, at)
	_, listErr := at.List(ctx, "d/", "", 1)
	for _, err := range []error{identityErr, listErr, at.Put(ctx, store.IdentityKey, nil)} {
		g.Expect(err).To(MatchError(ContainSubstring("there is no bucket ws-daemon: create it, or correct the bucket")))
		g.Expect(err).NotTo(MatchError(store.ErrNotInitialized), "S10")
	}
}

// Too many requests are sometimes answered like a lack of rights. They are not the same.
func TestGCSLimitsAreNoRefusals(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	p := storetest.Proxied(t, server.Endpoint)
	at := store.WithPatience(open(t, p.URL), store.Patience{Attempt: 1 << 33, Total: 1 << 35})
	g.Expect(store.Init(ctx, at)).Error().NotTo(HaveOccurred())
	const limited = `{"error": {"code": 403, "message": "slow down", "errors": [{"reason": "rateLimitExceeded"}]}}`
	p.Break(func(r proxy.Request) proxy.Fault {
		if r.N == 1 {
			return proxy.Fault{Answer: http.StatusForbidden, Body: limited, Header: http.Header{"Content-Type": {"application/json"}}}
		}
		return proxy.Fault{}
	})
	g.Expect(at.Put(ctx, "key", nil)).To(Succeed())
}

// A store that confirms another checksum than it was sent is not trusted.
func TestGCSStoreThatCorrupts(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	p := storetest.Proxied(t, server.Endpoint)
	s := store.WithPatience(open(t, p.URL), store.Patience{Attempt: 10 * time.Second, Total: time.Minute})
	g.Expect(store.Init(ctx, s)).Error().NotTo(HaveOccurred())
	reply := fmt.Sprintf(`{"name": %q, "crc32c": "AAAAAA=="}`, prefix(t)+"/key")
	p.Break(func(r proxy.Request) proxy.Fault {
		if r.Method != http.MethodPost {
			return proxy.Fault{}
		}
		return proxy.Fault{Answer: http.StatusOK, Body: reply, Header: http.Header{"Content-Type": {"application/json"}}}
	})
	err := s.Put(ctx, "key", []byte("data"))
	g.Expect(err).To(MatchError(ContainSubstring(`put key into ` + s.String() + `: the store has other bytes than it was given: their CRC32C is "AAAAAA=="`)))
	g.Expect(err).To(MatchError(ContainSubstring("what it holds cannot be trusted")))
}

// A clock that is wrong makes every token request void. The keys are not to blame.
func TestGCSClockSkew(t *testing.T) {
	g := NewWithT(t)
	s, ca := secure(t)
	s.set(false)
	s.late = 10 * time.Minute
	file := filepath.Join(t.TempDir(), "key.json")
	account(t, file, s.URL+"/token")
	at := store.WithPatience(open(t, s.URL, "ca-file="+ca, "credentials-file="+file), store.Patience{Attempt: time.Minute, Total: time.Hour})
	_, err := at.Get(t.Context(), "key", 10)
	var refused *store.RefusedError
	g.Expect(errors.As(err, &refused)).To(BeTrue(), "it is final: %v", err)
	g.Expect(refused.Advice).To(MatchRegexp(`^the clocks differ: it is \S+Z here and \S+Z at the store; set the clock of this node$`))
}
