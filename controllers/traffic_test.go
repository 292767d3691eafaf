package controllers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// traffic is everything that went between a daemon and its API server.
type traffic struct {
	mu       sync.Mutex
	requests []*request
}

// request is one call of the API server.
type request struct {
	verb, resource, sub, name string
	sent                      string
	mu                        sync.Mutex
	received                  bytes.Buffer
	status                    int
}

func (r *request) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%s %s/%s%s %s -> %d", r.verb, r.resource, r.name, r.sub, r.sent, r.status)
}

// transport counts what passes through the next one.
type transport struct {
	*traffic
	next http.RoundTripper
}

func (t *traffic) wrap(next http.RoundTripper) http.RoundTripper { return &transport{t, next} }

func (t *transport) RoundTrip(in *http.Request) (*http.Response, error) {
	r, err := newRequest(in)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.requests = append(t.requests, r)
	t.mu.Unlock()
	out, err := t.next.RoundTrip(in)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.status = out.StatusCode
	r.mu.Unlock()
	out.Body = &recorder{out.Body, r}
	return out, nil
}

// newRequest takes a request apart: /api/v1 or /apis/GROUP/VERSION, [namespaces/N], RESOURCE, [NAME, [SUBRESOURCE]].
func newRequest(in *http.Request) (*request, error) {
	r := &request{verb: in.Method}
	parts := strings.Split(strings.Trim(in.URL.Path, "/"), "/")
	if parts[0] == "apis" {
		parts = parts[1:]
	}
	parts = parts[min(2, len(parts)):]
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	for i, field := range []*string{&r.resource, &r.name, &r.sub} {
		if i < len(parts) {
			*field = parts[i]
		}
	}
	if r.sub != "" {
		r.sub = "/" + r.sub
	}
	if in.URL.Query().Get("watch") != "" {
		r.verb = "WATCH"
	}
	if in.Body == nil {
		return r, nil
	}
	body, err := io.ReadAll(in.Body)
	in.Body = io.NopCloser(bytes.NewReader(body))
	r.sent = string(body)
	return r, err
}

// recorder keeps what is read of a response.
type recorder struct {
	io.ReadCloser
	to *request
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.to.mu.Lock()
	defer r.to.mu.Unlock()
	r.to.received.Write(p[:n])
	return n, err
}

// all returns the requests that the filter lets through.
func (t *traffic) all(filter func(*request) bool) []*request {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*request
	for _, r := range t.requests {
		if filter(r) {
			out = append(out, r)
		}
	}
	return out
}

func (t *traffic) count() int { return len(t.all(func(*request) bool { return true })) }

// writes returns the changes of one object or of its status.
func (t *traffic) writes(resource, name string) []*request {
	return t.all(func(r *request) bool {
		return r.resource == resource && r.name == name && (r.verb == http.MethodPatch || r.verb == http.MethodPut || r.verb == http.MethodPost)
	})
}

// delivered counts how often each object of a resource was received by a watch or a list.
func (t *traffic) delivered(resource string) map[string]int {
	got := map[string]int{}
	for _, r := range t.all(func(r *request) bool { return r.resource == resource && r.name == "" }) {
		r.mu.Lock()
		body := bytes.Clone(r.received.Bytes())
		r.mu.Unlock()
		for _, name := range namesIn(body) {
			got[name]++
		}
	}
	return got
}

// namesIn decodes a list, or the events of a watch, as far as they have come.
func namesIn(body []byte) []string {
	type object struct {
		Metadata struct{ Name string }
	}
	var names []string
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		var message struct {
			Type   string
			Object object
			Items  []object
		}
		if d.Decode(&message) != nil {
			return names
		}
		for _, item := range message.Items {
			names = append(names, item.Metadata.Name)
		}
		if message.Type != "" && message.Type != "BOOKMARK" {
			names = append(names, message.Object.Metadata.Name)
		}
	}
}
