// Package storetest holds the tests that every object store passes, and stores that fail on request.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// Run tests the stores that create returns. Each is new, empty and not initialized.
func Run(t *testing.T, create func(t *testing.T) store.Store) {
	t.Helper()
	t.Run("identity", func(t *testing.T) { testIdentity(t, create(t)) })
	t.Run("uninitialized", func(t *testing.T) { testUninitialized(t, create(t)) })
	tests := map[string]func(*testing.T, store.Store){
		"create only":     testCreateOnly,
		"racing writers":  testRace,
		"ranges":          testRanges,
		"empty object":    testEmptyObject,
		"large object":    testLargeObject,
		"listing":         testListing,
		"paging":          testPaging,
		"delete":          testDelete,
		"not found":       testNotFound,
		"hostile keys":    testHostileKeys,
		"cancelled":       testCancelled,
		"clock":           testClock,
		"message has URL": testString,
		"probe":           testProbe,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := create(t)
			_, err := store.Init(t.Context(), s)
			gomega.NewWithT(t).Expect(err).NotTo(gomega.HaveOccurred())
			test(t, s)
		})
	}
}

func testIdentity(t *testing.T, s store.Store) {
	t.Helper()
	g := gomega.NewWithT(t)
	_, err := store.Identity(t.Context(), s)
	g.Expect(err).To(gomega.MatchError(store.ErrNotInitialized))
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("`ws-daemon archive init --store '" + s.String() + "'`")))
	id, err := store.Init(t.Context(), s)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(id).To(gomega.MatchRegexp(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`))
	g.Expect(store.Init(t.Context(), s)).To(gomega.Equal(id), "a second time changes nothing")
	g.Expect(store.Identity(t.Context(), s)).To(gomega.Equal(id))
}

func testUninitialized(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(s.Put(ctx, "a", nil)).To(gomega.MatchError(store.ErrNotInitialized))
	g.Expect(s.Delete(ctx, "a")).To(gomega.MatchError(store.ErrNotInitialized))
	for name, err := range map[string]error{
		"get":  second(s.Get(ctx, "a", 64<<20)),
		"read": s.Read(ctx, "a", 0, nil),
		"stat": second(s.Stat(ctx, "a")),
		"list": second(s.List(ctx, "", "", 0)),
		"now":  second(s.Now(ctx)),
	} {
		g.Expect(err).To(gomega.MatchError(store.ErrNotInitialized), name)
		g.Expect(err).NotTo(gomega.MatchError(store.ErrNotFound), name)
	}
}

func testCreateOnly(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(s.Put(ctx, "a/b", []byte("first"))).To(gomega.Succeed())
	err := s.Put(ctx, "a/b", []byte("second"))
	g.Expect(err).To(gomega.MatchError(store.ErrExists))
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("a/b")))
	g.Expect(s.Get(ctx, "a/b", 64<<20)).To(gomega.Equal([]byte("first")))
	g.Expect(s.Delete(ctx, "a/b")).To(gomega.Succeed())
	g.Expect(s.Put(ctx, "a/b", []byte("second"))).To(gomega.Succeed())
	g.Expect(s.Get(ctx, "a/b", 64<<20)).To(gomega.Equal([]byte("second")))
}

func testRace(t *testing.T, s store.Store) {
	t.Helper()
	const writers, rounds, size = 16, 20, 100_000
	g, ctx := gomega.NewWithT(t), t.Context()
	for round := range rounds {
		key := fmt.Sprintf("race/%d/%d", round%3, round)
		var won, failed atomic.Int32
		var winner atomic.Int32
		var group sync.WaitGroup
		start := make(chan struct{})
		for w := range writers {
			group.Go(func() {
				<-start
				err := s.Put(ctx, key, bytes.Repeat([]byte{byte('a' + w)}, size))
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(int32('a' + w))
				case !errors.Is(err, store.ErrExists):
					failed.Add(1)
				}
			})
		}
		close(start)
		group.Wait()
		g.Expect(failed.Load()).To(gomega.BeZero(), "errors other than ErrExists")
		g.Expect(won.Load()).To(gomega.Equal(int32(1)), "exactly one writer wins")
		data, err := s.Get(ctx, key, 64<<20)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		want := bytes.Repeat([]byte{byte(winner.Load())}, size)
		g.Expect(bytes.Equal(data, want)).To(gomega.BeTrue(), "the object is the winner's, whole")
	}
}

func testRanges(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(s.Put(ctx, "o", []byte("0123456789"))).To(gomega.Succeed())
	for _, c := range []struct {
		offset int64
		want   string
	}{{0, "0123456789"}, {3, "3456"}, {9, "9"}, {10, ""}, {5, ""}, {0, ""}} {
		data := make([]byte, len(c.want))
		g.Expect(s.Read(ctx, "o", c.offset, data)).To(gomega.Succeed())
		g.Expect(string(data)).To(gomega.Equal(c.want), "%d bytes from %d on", len(data), c.offset)
	}
	for _, c := range [][2]int64{{0, 11}, {10, 1}, {11, 0}, {11, 1}, {-1, 2}, {1 << 62, 1}} {
		err := s.Read(ctx, "o", c[0], make([]byte, c[1]))
		g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("read o ")), "%d bytes from %d on", c[1], c[0])
		g.Expect(err).NotTo(gomega.MatchError(store.ErrNotFound))
	}
	g.Expect(s.Get(ctx, "o", 10)).To(gomega.Equal([]byte("0123456789")))
	for _, limit := range []int64{9, 0} {
		_, err := s.Get(ctx, "o", limit)
		g.Expect(err).To(gomega.MatchError(store.ErrTooLarge))
		g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("get o ")))
	}
}

func testEmptyObject(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	g.Expect(s.Put(ctx, "empty", nil)).To(gomega.Succeed())
	g.Expect(s.Put(ctx, "empty", []byte("x"))).To(gomega.MatchError(store.ErrExists))
	g.Expect(s.Get(ctx, "empty", 64<<20)).To(gomega.BeEmpty())
	o, err := s.Stat(ctx, "empty")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(o.Size).To(gomega.BeZero())
	g.Expect(keys(s.List(ctx, "empty", "", 0))).To(gomega.Equal([]string{"empty"}))
}

func testLargeObject(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	data := make([]byte, 32<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	g.Expect(s.Put(ctx, "large", data)).To(gomega.Succeed())
	got, err := s.Get(ctx, "large", 64<<20)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(bytes.Equal(got, data)).To(gomega.BeTrue())
	got = make([]byte, 1<<20)
	g.Expect(s.Read(ctx, "large", 17<<20+3, got)).To(gomega.Succeed())
	g.Expect(bytes.Equal(got, data[17<<20+3:18<<20+3])).To(gomega.BeTrue())
	o, err := s.Stat(ctx, "large")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(o.Size).To(gomega.Equal(int64(32 << 20)))
}

// awkward names sort differently as paths and as bytes, or look like something else.
func awkward() []string {
	return []string{
		"a", "a-", "a.b", "a!", "a0", "a~", "aa", "ab/a", "ab/a-", "ab/a.d/x", "ab/a/x", "ab/a0", "ab-c/x", "ab.c/x", "ab0/x",
		"sp ace/and more", "a+b=c&d;e,f@g$h^i`j{k}l|m<n>o", "%2e%2e", "%", "+", "*", "?", "[x]", "~", "-rf", "#", "quote\"'", "back\\slash", "...", ".hidden",
		"a1/" + strings.Repeat("n", 255), strings.Repeat("d/", 300) + "deep", "z+", "z/y", "z:",
	}
}

func testListing(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	all := append(awkward(), store.IdentityKey)
	put(t, s, awkward()...)
	// "ab/a" is an object and "ab/a/x" lies below it: not every store can have both.
	all = slices.DeleteFunc(all, func(key string) bool { return second(s.Stat(ctx, key)) != nil })
	slices.Sort(all)
	g.Expect(keys(s.List(ctx, "", "", 0))).To(gomega.Equal(all))
	prefixes := []string{"", "a", "ab", "ab/", "ab/a", "ab/a.", "ab/a/", "b", "d/d/", "z", "nothing/", "a-", "\xff", "a1/n", "store"}
	afters := append([]string{"", "a", "ab", "ab/", "ab/a", "ab/a.d", "ab/a.d/", "ab/a.d/x", "ab0", "zzz", "\xff\xff", "\x00"}, all...)
	for _, prefix := range prefixes {
		for _, after := range afters {
			var want []string
			for _, key := range all {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			g.Expect(keys(s.List(ctx, prefix, after, 0))).To(gomega.Equal(want), "prefix %q after %q", prefix, after)
			want = want[:min(len(want), 2)]
			g.Expect(keys(s.List(ctx, prefix, after, 2))).To(gomega.Equal(want), "prefix %q after %q limit 2", prefix, after)
		}
	}
	for _, prefix := range []string{"../", "a//", "/", "./a", "a/../b", ".tmp/"} {
		g.Expect(second(s.List(ctx, prefix, "", 0))).To(gomega.HaveOccurred(), "prefix %q", prefix)
	}
}

func testPaging(t *testing.T, s store.Store) {
	t.Helper()
	const count = 1050
	g, ctx := gomega.NewWithT(t), t.Context()
	want := make([]string, 0, count)
	for i := range count {
		want = append(want, fmt.Sprintf("p/%02x/%d", i%7, i))
	}
	put(t, s, want...)
	put(t, s, "o", "p-", "p0")
	slices.Sort(want)
	for _, limit := range []int{1, 7, 100, 1000, 1050, 2000} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page := keys(s.List(ctx, "p/", after, limit))
			g.Expect(len(page)).To(gomega.BeNumerically("<=", limit))
			got = append(got, page...)
			if len(page) < limit || limit == 1 && len(got) > 20 {
				break
			}
		}
		g.Expect(got).To(gomega.Equal(want[:len(got)]))
		g.Expect(limit == 1 || len(got) == count).To(gomega.BeTrue())
	}
}

func testDelete(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	put(t, s, "d/a", "d/b", "d/c", "e")
	g.Expect(s.Delete(ctx)).To(gomega.Succeed())
	g.Expect(s.Delete(ctx, "d/b", "missing", "no/such/dir", "e/below", "d")).To(gomega.Succeed())
	g.Expect(s.Delete(ctx, "d/b")).To(gomega.Succeed(), "again")
	g.Expect(keys(s.List(ctx, "", "", 0))).To(gomega.Equal([]string{"d/a", "d/c", "e", store.IdentityKey}))
	g.Expect(s.Delete(ctx, "d/a", "d/c")).To(gomega.Succeed())
	g.Expect(keys(s.List(ctx, "d/", "", 0))).To(gomega.BeEmpty())
	g.Expect(s.Put(ctx, "d/a", nil)).To(gomega.Succeed())
}

func testNotFound(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	put(t, s, "dir/file")
	for _, key := range []string{"missing", "no/such/dir", "dir", "dir/file/below", "dir/other"} {
		for _, err := range []error{second(s.Get(ctx, key, 64<<20)), s.Read(ctx, key, 0, nil), second(s.Stat(ctx, key))} {
			g.Expect(err).To(gomega.MatchError(store.ErrNotFound), key)
			g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring(key)), "the message names the object")
			g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring(s.String())), "the message names the store")
		}
	}
	g.Expect(s.List(ctx, "no/such/dir/", "", 0)).To(gomega.BeEmpty())
	g.Expect(s.List(ctx, "dir/file/", "", 0)).To(gomega.BeEmpty())
}

func testHostileKeys(t *testing.T, s store.Store) {
	t.Helper()
	g, ctx := gomega.NewWithT(t), t.Context()
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "./a", "a/.", "a\x00b", "\x00", ".tmp", ".tmp/a", ".tmp-a", "a/.tmp-b",
		"new\nline", "a\x01", "a\x7f", "ünï/cödé", "\xff\xfe",
		strings.Repeat("n", 256), "a/" + strings.Repeat("n", 256), strings.Repeat("d/", 600) + "x",
	} {
		g.Expect(s.Put(ctx, key, []byte("x"))).To(gomega.HaveOccurred(), "put %q", key)
		g.Expect(s.Delete(ctx, key)).To(gomega.HaveOccurred(), "delete %q", key)
		for _, err := range []error{second(s.Get(ctx, key, 64<<20)), s.Read(ctx, key, 0, nil), second(s.Stat(ctx, key))} {
			g.Expect(err).To(gomega.HaveOccurred(), "read %q", key)
			g.Expect(err).NotTo(gomega.MatchError(store.ErrNotFound), "%q", key)
		}
	}
	g.Expect(keys(s.List(ctx, "", "", 0))).To(gomega.Equal([]string{store.IdentityKey}))
}

func testCancelled(t *testing.T, s store.Store) {
	t.Helper()
	g := gomega.NewWithT(t)
	put(t, s, "there")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(s.Put(ctx, "new", nil)).To(gomega.MatchError(context.Canceled))
	g.Expect(s.Delete(ctx, "there")).To(gomega.MatchError(context.Canceled))
	g.Expect(second(s.Get(ctx, "there", 64<<20))).To(gomega.MatchError(context.Canceled))
	g.Expect(s.Read(ctx, "there", 0, nil)).To(gomega.MatchError(context.Canceled))
	g.Expect(second(s.Stat(ctx, "there"))).To(gomega.MatchError(context.Canceled))
	g.Expect(second(s.List(ctx, "", "", 0))).To(gomega.MatchError(context.Canceled))
	g.Expect(second(s.Now(ctx))).To(gomega.MatchError(context.Canceled))
	g.Expect(keys(s.List(t.Context(), "", "", 0))).To(gomega.Equal([]string{store.IdentityKey, "there"}))
}

func testClock(t *testing.T, s store.Store) {
	t.Helper()
	const slack = 2 * time.Second // object stores stamp in whole seconds
	g, ctx := gomega.NewWithT(t), t.Context()
	before, err := s.Now(ctx)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	put(t, s, "o")
	o, err := s.Stat(ctx, "o")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	after, err := s.Now(ctx)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(o.Modified).To(gomega.BeTemporally(">=", before.Add(-slack)))
	g.Expect(o.Modified).To(gomega.BeTemporally("<=", after.Add(slack)))
	g.Expect(after).To(gomega.BeTemporally(">=", before))
	listed, err := s.List(ctx, "o", "", 0)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(listed).To(gomega.Equal([]store.Object{o}), "listed as it is described")
	g.Expect(keys(s.List(ctx, "", "", 0))).To(gomega.Equal([]string{"o", store.IdentityKey}), "reading the clock leaves nothing")
}

func testString(t *testing.T, s store.Store) {
	t.Helper()
	gomega.NewWithT(t).Expect(s.String()).To(gomega.MatchRegexp(`^(file|s3|gs)://`))
}

// testProbe finds a store fit, and nothing of the probe after it.
func testProbe(t *testing.T, s store.Store) {
	t.Helper()
	g := gomega.NewWithT(t)
	fitness, err := store.Probe(t.Context(), store.WithPatience(s, store.Patience{Attempt: time.Minute, Total: time.Minute}))
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(fitness.String()).To(gomega.HavePrefix("store " + s.String() + ": ok ("))
	g.Expect(keys(s.List(t.Context(), "", "", 0))).To(gomega.Equal([]string{store.IdentityKey}))
}

// put creates objects whose content is their key. Those below an object are passed over: not every store can have them.
func put(t *testing.T, s store.Store, names ...string) {
	t.Helper()
	for _, key := range names {
		err := s.Put(t.Context(), key, []byte(key))
		if err != nil && !strings.HasPrefix(key, "ab/a") {
			t.Fatal(err)
		}
	}
}

func keys(objects []store.Object, err error) []string {
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for _, o := range objects {
		names = append(names, o.Key)
	}
	return names
}

func second[T any](_ T, err error) error { return err }
