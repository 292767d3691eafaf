package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores/proxy"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// patience is enough for a fault that passes, and short for one that does not.
func patience() store.Patience { return store.Patience{Attempt: 10 * time.Second, Total: time.Minute} }

// Proxied starts a proxy before a server for the time of a test.
func Proxied(t *testing.T, endpoint string) *proxy.Proxy {
	t.Helper()
	p, err := proxy.Start(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Passing are the faults after which a request that is made again succeeds.
func Passing() map[string]proxy.Fault {
	return map[string]proxy.Fault{
		"refused":            {Refuse: true},
		"500":                {Answer: http.StatusInternalServerError},
		"503":                {Answer: http.StatusServiceUnavailable, Body: "<html>try later</html>"},
		"429":                {Answer: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}},
		"502 of a proxy":     {Answer: http.StatusBadGateway, Body: "<html>bad gateway</html>"},
		"409":                {Answer: http.StatusConflict, Body: "<Error><Code>ConditionalRequestConflict</Code></Error>"},
		"reply lost":         {LoseReply: true},
		"cut at once":        {Cut: -1},
		"cut":                {Cut: 5},
		"late":               {Delay: 20 * time.Millisecond},
		"request corrupted":  {CorruptRequest: true},
		"range disregarded":  {WithoutRange: true},
		"done twice, denied": {Duplicate: true, LoseReply: true},
	}
}

// RunBroken tests what a store behind a server makes of faults between the two. Create opens a new and empty one at an endpoint.
func RunBroken(t *testing.T, endpoint string, create func(t *testing.T, endpoint string) store.Store) {
	t.Helper()
	for name, fault := range Passing() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := Proxied(t, endpoint)
			testPassing(t, p, create(t, p.URL), fault)
		})
	}
	for name, test := range map[string]func(*testing.T, *proxy.Proxy, store.Store){
		"corrupt reply":    testCorruptReply,
		"stall":            testStall,
		"ambiguous":        testAmbiguous,
		"refused for good": testRefused,
		"absence":          testAbsence,
		"foreign":          testForeign,
		"truncated":        testTruncated,
		"no length":        testNoLength,
		"probe":            testProbeCost,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := Proxied(t, endpoint)
			test(t, p, create(t, p.URL))
		})
	}
}

// testNoLength has something on the way leave out how long a reply is.
func testNoLength(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g := gomega.NewWithT(t)
	g.Expect(second(store.Init(t.Context(), inner))).To(gomega.Succeed())
	g.Expect(inner.Put(t.Context(), "key", []byte("content"))).To(gomega.Succeed())
	p.Break(func(proxy.Request) proxy.Fault { return proxy.Fault{Chunked: true} })
	_, err := inner.Get(t.Context(), "key", 100)
	g.Expect(err).To(gomega.MatchError(gomega.And(
		gomega.ContainSubstring("get key from "+inner.String()), gomega.ContainSubstring("the reply does not say how long it is"))))
	p.Break(nil)
	g.Expect(inner.Get(t.Context(), "key", 100)).To(gomega.Equal([]byte("content")))
}

// testPassing breaks each request of a round of calls once, the first, the second and so on. Every call must succeed all the same.
func testPassing(t *testing.T, p *proxy.Proxy, inner store.Store, fault proxy.Fault) {
	t.Helper()
	g := gomega.NewWithT(t)
	s := store.WithPatience(inner, patience())
	g.Expect(second(store.Init(t.Context(), s))).To(gomega.Succeed())
	p.Break(nil)
	round(t, s, "healthy")
	count := len(p.Requests())
	g.Expect(count).To(gomega.BeNumerically(">=", 9), "each call makes a request")
	for n := 1; n <= count; n++ {
		p.Break(func(r proxy.Request) proxy.Fault {
			if r.N == n {
				return fault
			}
			return proxy.Fault{}
		})
		round(t, s, fmt.Sprintf("broken-%d", n))
	}
}

// round makes every call of a store.
func round(t *testing.T, s store.Store, name string) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	data := bytes.Repeat([]byte(name+" "), 5000)
	a, b := name+"/a", name+"/b"
	g.Expect(s.Put(ctx, a, data)).To(gomega.Succeed(), name)
	g.Expect(s.Put(ctx, b, nil)).To(gomega.Succeed(), name)
	got, err := s.Get(ctx, a, 1<<20)
	g.Expect(err).NotTo(gomega.HaveOccurred(), name)
	g.Expect(bytes.Equal(got, data)).To(gomega.BeTrue(), name)
	part := make([]byte, 7000)
	g.Expect(s.Read(ctx, a, 1234, part)).To(gomega.Succeed(), name)
	g.Expect(bytes.Equal(part, data[1234:1234+7000])).To(gomega.BeTrue(), name)
	o, err := s.Stat(ctx, a)
	g.Expect(err).NotTo(gomega.HaveOccurred(), name)
	g.Expect(o.Size).To(gomega.Equal(int64(len(data))), name)
	g.Expect(keys(s.List(ctx, name+"/", "", 0))).To(gomega.Equal([]string{a, b}), name)
	g.Expect(second(s.Now(ctx))).To(gomega.Succeed(), name)
	g.Expect(s.Delete(ctx, a, b)).To(gomega.Succeed(), name)
	g.Expect(keys(s.List(ctx, name+"/", "", 0))).To(gomega.BeEmpty(), name)
}

// testCorruptReply reads an object of which a bit was flipped on the way. A whole one has a checksum; of a part the format has one.
func testCorruptReply(t *testing.T, p *proxy.Proxy, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, s))).To(gomega.Succeed())
	put(t, s, "object")
	p.Break(func(r proxy.Request) proxy.Fault { return proxy.Fault{CorruptReply: r.N <= 2} })
	_, err := s.Get(ctx, "object", 100)
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("does not have the checksum that the store sent with it")))
	g.Expect(store.WithPatience(s, patience()).Get(ctx, "object", 100)).To(gomega.Equal([]byte("object")))
}

// testStall gives up a body that makes no progress at the deadline of the attempt, and reads it again.
func testStall(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, inner))).To(gomega.Succeed())
	put(t, inner, "object")
	s := store.WithPatience(inner, store.Patience{Attempt: 300 * time.Millisecond, Total: time.Minute})
	for _, fault := range []proxy.Fault{{Stall: 3}, {Stall: -1}, {Delay: time.Hour}} {
		p.Break(func(r proxy.Request) proxy.Fault {
			if r.N == 1 {
				return fault
			}
			return proxy.Fault{}
		})
		buf := make([]byte, 6)
		g.Expect(s.Read(ctx, "object", 0, buf)).To(gomega.Succeed())
		g.Expect(string(buf)).To(gomega.Equal("object"))
	}
	p.Break(func(proxy.Request) proxy.Fault { return proxy.Fault{Stall: 3} })
	s = store.WithPatience(inner, store.Patience{Attempt: 50 * time.Millisecond, Total: time.Millisecond})
	err := s.Read(ctx, "object", 0, make([]byte, 6))
	g.Expect(err).To(gomega.MatchError(context.DeadlineExceeded))
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("read object in " + s.String() + ": no answer within 50ms")))
}

// testAmbiguous loses the reply to writes that were done.
func testAmbiguous(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, inner))).To(gomega.Succeed())
	s := store.WithPatience(inner, patience())
	lose := func() {
		lost := false
		p.Break(func(r proxy.Request) proxy.Fault {
			if lost || r.Method != http.MethodPut && r.Method != http.MethodPost {
				return proxy.Fault{}
			}
			lost = true
			return proxy.Fault{LoseReply: true}
		})
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 600_000) // more than is compared at once
	for _, data := range [][]byte{[]byte("commit"), nil, big} {
		lose()
		key := fmt.Sprintf("ours-%d", len(data))
		g.Expect(s.Put(ctx, key, data)).To(gomega.Succeed(), "S2: it is our own")
	}
	g.Expect(s.Put(ctx, "ours-6", []byte("commit"))).To(gomega.MatchError(store.ErrExists), "told once")
	for i, theirs := range []string{"theirs!", "longer than ours", ""} {
		key := fmt.Sprintf("theirs-%d", i)
		g.Expect(inner.Put(ctx, key, []byte(theirs))).To(gomega.Succeed())
		lose()
		g.Expect(s.Put(ctx, key, []byte("our own"))).To(gomega.MatchError(store.ErrExists), "S2: nothing is overwritten")
		g.Expect(s.Get(ctx, key, 100)).To(gomega.Equal([]byte(theirs)))
	}
}

// testRefused answers everything with 403. That is final, it names what is missing, and is not taken for absence.
func testRefused(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, inner))).To(gomega.Succeed())
	s := store.WithPatience(inner, patience())
	for name, call := range calls(ctx, s) {
		p.Break(func(proxy.Request) proxy.Fault { return proxy.Fault{Answer: http.StatusForbidden} })
		err := call()
		var refused *store.RefusedError
		g.Expect(errors.As(err, &refused)).To(gomega.BeTrue(), "%s: %v", name, err)
		g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("is also the answer for an object that is missing")), name)
		g.Expect(err).NotTo(gomega.MatchError(store.ErrNotFound), "S10")
		g.Expect(len(p.Requests())).To(gomega.BeNumerically("<=", 4), "%s is not repeated, but for newer credentials and a listing", name)
	}
}

func calls(ctx context.Context, s store.Store) map[string]func() error {
	return map[string]func() error{
		"put":    func() error { return s.Put(ctx, "key", []byte("x")) },
		"get":    func() error { return second(s.Get(ctx, "key", 100)) },
		"read":   func() error { return s.Read(ctx, "key", 0, make([]byte, 1)) },
		"stat":   func() error { return second(s.Stat(ctx, "key")) },
		"list":   func() error { return second(s.List(ctx, "", "", 0)) },
		"delete": func() error { return s.Delete(ctx, "key", "other") },
		"now":    func() error { return second(s.Now(ctx)) },
	}
}

// testAbsence answers everything with a 404 that is not a store's: absence is believed only of a store that is there.
func testAbsence(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, inner))).To(gomega.Succeed())
	p.Break(func(proxy.Request) proxy.Fault {
		return proxy.Fault{Answer: http.StatusNotFound, Body: "404 page not found\n"}
	})
	s := store.WithPatience(inner, store.Patience{Attempt: 10 * time.Second, Total: time.Millisecond})
	for name, call := range calls(ctx, s) {
		err := call()
		g.Expect(err).To(gomega.HaveOccurred(), name)
		g.Expect(err).NotTo(gomega.MatchError(store.ErrNotFound), "S10: %s", name)
		g.Expect(err).NotTo(gomega.MatchError(store.ErrNotInitialized), "S10: %s", name)
	}
}

// testForeign has something that is no store answer everything with success, as proxies do, and stores that meet an error while they answer:
// nothing of that is believed.
func testForeign(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, inner))).To(gomega.Succeed())
	s := store.WithPatience(inner, store.Patience{Attempt: 10 * time.Second, Total: time.Millisecond})
	for name, call := range calls(ctx, s) {
		for kind, body := range map[string]string{
			"":                 "",
			"text/html":        "<!doctype html><html><body>Welcome</body></html>",
			"application/xml":  `<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>later</Message></Error>`,
			"application/json": `{"error": {"code": 503, "message": "later"}}`,
		} {
			if name == "delete" && kind == "application/json" {
				continue // what is only said to be gone is found by whoever looks for what nobody needs
			}
			p.Break(func(proxy.Request) proxy.Fault {
				return proxy.Fault{Answer: http.StatusOK, Body: body, Header: http.Header{"Content-Type": {kind}}}
			})
			err := call()
			g.Expect(err).To(gomega.HaveOccurred(), "%s, answered by %q", name, kind)
			for _, other := range []error{store.ErrNotFound, store.ErrNotInitialized, store.ErrExists} {
				g.Expect(err).NotTo(gomega.MatchError(other), "S10: %s, answered by %q", name, kind)
			}
		}
	}
	p.Break(nil)
	g.Expect(keys(s.List(ctx, "", "", 0))).To(gomega.Equal([]string{store.IdentityKey}))
}

// testTruncated reads more than there is.
func testTruncated(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, inner))).To(gomega.Succeed())
	put(t, inner, "object")
	s := store.WithPatience(inner, patience())
	for offset, requests := range map[int64]int{0: 1, 5: 1, 6: 1, 100: 1} {
		p.Break(nil)
		err := s.Read(ctx, "object", offset, make([]byte, 7))
		g.Expect(err).To(gomega.MatchError(store.ErrTooShort), "from %d on", offset)
		g.Expect(p.Requests()).To(gomega.HaveLen(requests), "it is not repeated")
	}
}

// testProbeCost counts the requests of a probe, which every start of a daemon makes.
func testProbeCost(t *testing.T, p *proxy.Proxy, inner store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(second(store.Init(ctx, inner))).To(gomega.Succeed())
	p.Break(nil)
	g.Expect(second(store.Probe(ctx, store.WithPatience(inner, patience())))).To(gomega.Succeed())
	writing := 0
	for _, r := range p.Requests() {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			writing++
		}
	}
	t.Logf("a probe makes %d writing and %d reading requests", writing, len(p.Requests())-writing)
	g.Expect(writing).To(gomega.BeNumerically("<=", 40))
	g.Expect(len(p.Requests()) - writing).To(gomega.BeNumerically("<=", 20))
}
