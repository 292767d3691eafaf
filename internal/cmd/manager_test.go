package cmd

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// selections records which part of each resource is listed and watched.
type selections struct {
	mu   sync.Mutex
	seen map[string]string
	next http.RoundTripper
}

func (s *selections) RoundTrip(r *http.Request) (*http.Response, error) {
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	s.mu.Lock()
	if old, ok := s.seen[resource]; !ok || old == r.URL.Query().Get("fieldSelector") {
		s.seen[resource] = r.URL.Query().Get("fieldSelector")
	} else {
		s.seen[resource] = "different ones"
	}
	s.mu.Unlock()
	return s.next.RoundTrip(r)
}

func TestManagerAsksForThisNodesObjectsOnly(t *testing.T) {
	noLeaks(t)
	g := NewWithT(t)
	seen := &selections{seen: map[string]string{}}
	access := apiServer.Config()
	access.Wrap(func(next http.RoundTripper) http.RoundTripper {
		seen.next = next
		return seen
	})
	mgr, err := newManager(access, options{node: "node-cache"})
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	for _, kind := range []client.ObjectList{&v1.WorkspaceList{}, &v1.SnapshotList{}, &corev1.PodList{}, &corev1.NodeList{}} {
		g.Eventually(func() error { return mgr.GetClient().List(ctx, kind) }, "30s").Should(Succeed())
	}
	cancel()
	g.Eventually(ended, "30s").Should(Receive(BeNil()))
	seen.mu.Lock()
	defer seen.mu.Unlock()
	mine := "spec.nodeName=node-cache"
	for resource, want := range map[string]string{"workspaces": mine, "snapshots": mine, "pods": mine, "nodes": "metadata.name=node-cache"} {
		g.Expect(seen.seen).To(HaveKeyWithValue(resource, want))
	}
}
