package gcs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

const scope = "https://www.googleapis.com/auth/devstorage.read_write"

// authorized adds a token to requests. Credentials are read when the first one is made, when their file has changed, and when a token
// was refused.
type authorized struct {
	inner http.RoundTripper
	file  string // empty: whatever the environment has

	mu    sync.Mutex
	creds *auth.Credentials
	stamp string
}

func (a *authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	creds, err := a.credentials()
	var token *auth.Token
	if err == nil {
		token, err = creds.Token(req.Context())
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, a.explain(err)
	}
	req = req.Clone(req.Context())
	httptransport.SetAuthHeader(token, req)
	resp, err := a.inner.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		a.forget(creds)
	}
	return resp, err
}

func (a *authorized) credentials() (*auth.Credentials, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stamp := bucket.Stamp(a.file) // before reading, so that a change meanwhile is seen
	if a.creds != nil && stamp == a.stamp {
		return a.creds, nil
	}
	creds, err := a.read()
	if err != nil {
		return nil, err
	}
	a.creds, a.stamp = creds, stamp
	return creds, nil
}

func (a *authorized) read() (*auth.Credentials, error) {
	o := &credentials.DetectOptions{Scopes: []string{scope}, Client: &http.Client{Transport: a.inner}}
	if a.file == "" {
		creds, err := credentials.DetectDefault(o)
		if err != nil {
			return nil, &store.RefusedError{
				Err:    fmt.Errorf("find credentials for the store: %w", err),
				Advice: "give the workload a service account, or name a credentials file in the configuration",
			}
		}
		return creds, nil
	}
	data, err := os.ReadFile(a.file)
	if err != nil {
		return nil, a.bad(err)
	}
	var kind struct {
		Type credentials.CredType `json:"type"`
	}
	if json.Unmarshal(data, &kind) != nil || kind.Type == "" {
		return nil, a.bad(errors.New("it is no JSON with a type"))
	}
	creds, err := credentials.NewCredentialsFromJSON(kind.Type, data, o)
	if err != nil {
		return nil, a.bad(errors.New("it is not one of the files that Google issues")) // what was wrong may quote it
	}
	return creds, nil
}

func (a *authorized) bad(err error) error {
	return &store.RefusedError{
		Err:    fmt.Errorf("read the store's credentials file %s: %w", a.file, err),
		Advice: "put a service account's key, or a configuration of workload identity federation, there",
	}
}

func (a *authorized) forget(creds *auth.Credentials) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.creds == creds {
		a.creds = nil
	}
}

// explain tells credentials that are refused from a token server that cannot be reached. What the server said is left out: it may repeat
// what it was sent.
func (a *authorized) explain(err error) error {
	var refused *auth.Error
	if errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < http.StatusInternalServerError &&
		refused.Response.StatusCode != http.StatusTooManyRequests {
		advice := "replace them: the key may have been deleted, or the service account disabled"
		if date, err := http.ParseTime(refused.Response.Header.Get("Date")); err == nil && time.Since(date).Abs() > bucket.MaxSkew {
			advice = bucket.ClocksDiffer(date)
		}
		return &store.RefusedError{Err: fmt.Errorf("the credentials of the store were refused: %s", refused.Response.Status), Advice: advice}
	}
	return fmt.Errorf("get a token for the store: %w", err)
}
