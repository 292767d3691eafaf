package content_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// tenants are two domains that store the same content, sealed with keys from one file, and what each asks of the store.
type tenants struct {
	Gomega
	t     *testing.T
	store store.Store

	mu    sync.Mutex
	asked map[string][]string // keys by domain
}

func (x *tenants) open(domain string) content.Standalone {
	x.t.Helper()
	ring, err := format.ParseKey([]byte(strings.Repeat("7f", 32)))
	x.Expect(err).NotTo(HaveOccurred())
	key, err := ring.For(domain)
	x.Expect(err).NotTo(HaveOccurred())
	d, err := history.OpenDomain(x.t.Context(), storetest.Faulty(x.store, func(_, k string) error {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.asked[domain] = append(x.asked[domain], k)
		return nil
	}), domain, cluster, false)
	x.Expect(err).NotTo(HaveOccurred())
	return content.Standalone{Domain: d, Namespace: domain, Workspace: "web", Key: key}
}

// Domains share no object, no id and no bytes, and whoever works in one asks for nothing outside of it but which store it is.
func TestDomainsShareNothing(t *testing.T) {
	t.Parallel()
	x := &tenants{Gomega: NewWithT(t), t: t, store: storetest.Filesystem(t), asked: map[string][]string{}}
	dir := t.TempDir()
	x.Expect(os.WriteFile(filepath.Join(dir, "file"), []byte(strings.Repeat("the same content ", 100)), 0o600)).To(Succeed())
	commits := map[string]history.Commit{}
	for _, domain := range []string{"one", "two"} {
		a := x.open(domain)
		made, err := a.Create(t.Context(), dir, "", "")
		x.Expect(err).NotTo(HaveOccurred())
		commits[domain] = made.Commit
		x.Expect(a.Verify(t.Context(), made.Commit, true)).To(Succeed())
		_, err = a.Restore(t.Context(), made.Commit, filepath.Join(t.TempDir(), "out"), nil, false, "")
		x.Expect(err).NotTo(HaveOccurred())
		x.Expect(a.Domain.Pin(t.Context(), "snap", made.Commit, history.Pin{Kind: history.PinSnapshot})).To(Succeed())
		for range 2 {
			x.Expect(a.Domain.Collect(t.Context(), history.CollectOptions{Delete: true})).Error().NotTo(HaveOccurred())
		}
		for _, key := range x.asked[domain] {
			x.Expect(key).To(Or(BeEmpty(), HavePrefix("d/"+domain+"/"), Equal(store.IdentityKey)))
		}
	}
	one, two := commits["one"], commits["two"]
	x.Expect(one.ID).NotTo(Equal(two.ID))
	x.Expect(one.Packs[0].ID).NotTo(Equal(two.Packs[0].ID))
	x.Expect(one.Packs[0].CRC32C).NotTo(Equal(two.Packs[0].CRC32C))
	x.Expect(one.Table).NotTo(Equal(two.Table))
	x.noSharedNames()

	stranger := x.open("one")
	x.Expect(stranger.Verify(t.Context(), two, true)).To(MatchError(store.ErrNotFound), "its packs are not here")
	pack := make([]byte, two.Packs[0].Size)
	x.Expect(x.open("two").Domain.ReadPack(t.Context(), two.Packs[0].ID, 0, pack)).To(Succeed())
	x.Expect(stranger.Domain.PutPack(t.Context(), two.Packs[0].ID, pack)).To(Succeed())
	x.Expect(stranger.Verify(t.Context(), two, true)).To(MatchError(format.ErrKey), "and if they were, they would not open")
}

// noSharedNames compares the last parts of all keys: ids are chosen anew in each domain.
func (x *tenants) noSharedNames() {
	objects, err := x.store.List(x.t.Context(), "d/one/p/", "", 0)
	x.Expect(err).NotTo(HaveOccurred())
	others, err := x.store.List(x.t.Context(), "d/two/p/", "", 0)
	x.Expect(err).NotTo(HaveOccurred())
	x.Expect(objects).To(HaveLen(1))
	x.Expect(others).To(HaveLen(1))
	x.Expect(filepath.Base(objects[0].Key)).NotTo(Equal(filepath.Base(others[0].Key)))
}
