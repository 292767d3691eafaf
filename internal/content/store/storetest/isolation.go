package storetest

import (
	"fmt"
	"testing"

	"github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// IsolationDomain is the domain that the credentials of [RunIsolation] are for.
const IsolationDomain = "team-a"

// RunIsolation tests that credentials reach the domain that they are for, and no other one. open returns the store as it is with them;
// denied expects the error of what they may not do. What is admin's is initialized and filled first.
func RunIsolation(t *testing.T, admin store.Store, open func() store.Store, denied func(t *testing.T, what string, err error)) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(store.Init(ctx, admin)).Error().NotTo(gomega.HaveOccurred())
	for _, key := range []string{"d/team-a/domain.json", "d/team-b/domain.json", "d/team-b/p/00/pack"} {
		g.Expect(admin.Put(ctx, key, []byte(key))).To(gomega.Succeed())
	}
	node := open()
	expectAtHome(t, node)

	_, err := node.Get(ctx, "d/team-b/domain.json", 100)
	denied(t, "get", err)
	denied(t, "read", node.Read(ctx, "d/team-b/p/00/pack", 0, make([]byte, 1)))
	_, err = node.Stat(ctx, "d/team-b/p/00/pack")
	denied(t, "stat", err)
	denied(t, "put", node.Put(ctx, "d/team-b/p/00/other", []byte("x")))
	for _, list := range []string{"", "d/", "d/team-b/", "d/team-"} {
		_, err = node.List(ctx, list, "", 0)
		denied(t, fmt.Sprintf("list %q", list), err)
	}
	denied(t, "delete", node.Delete(ctx, "d/team-b/p/00/pack"))
	denied(t, "delete several", node.Delete(ctx, "d/team-b/p/00/pack", "d/team-b/domain.json"))
	denied(t, "replace the identity", node.Put(ctx, store.IdentityKey, []byte("x")))
	for _, key := range []string{"d/team-b/p/00/pack", "d/team-b/domain.json"} {
		g.Expect(admin.Get(ctx, key, 100)).To(gomega.Equal([]byte(key)), "nothing was touched")
	}
}

// expectAtHome expects everything to be allowed in the domain.
func expectAtHome(t *testing.T, node store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(node.Get(ctx, "d/team-a/domain.json", 100)).To(gomega.Equal([]byte("d/team-a/domain.json")))
	g.Expect(node.Put(ctx, "d/team-a/p/00/pack", []byte("pack"))).To(gomega.Succeed())
	g.Expect(node.Put(ctx, "d/team-a/p/00/pack", []byte("pack"))).To(gomega.MatchError(store.ErrExists))
	objects, err := node.List(ctx, "d/team-a/", "", 0)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(objects).To(gomega.HaveLen(2))
	g.Expect(node.Delete(ctx, "d/team-a/p/00/pack")).To(gomega.Succeed())
	g.Expect(store.Probe(ctx, node)).Error().NotTo(gomega.HaveOccurred())
	g.Expect(node.Get(ctx, "d/team-a/p/00/pack", 100)).Error().To(gomega.MatchError(store.ErrNotFound), "it was deleted")
	_, err = node.Stat(ctx, "d/team-a/p/00/pack")
	g.Expect(err).To(gomega.MatchError(store.ErrNotFound))
}
