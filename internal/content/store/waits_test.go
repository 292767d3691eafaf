package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// waiting makes a request on behalf of the workspace "web" to a store that answers by a script, with one attempt every ten seconds.
func waiting(t *testing.T, waits *store.Waits, r *remote, request func(context.Context, store.Store) error) {
	t.Helper()
	s := store.WithPatience(r, store.Patience{Attempt: 10 * time.Second, Total: time.Minute, Waits: waits})
	go func() { _ = request(fair.With(t.Context(), "web", fair.Urgent), s) }()
}

func get(ctx context.Context, s store.Store) error {
	_, err := s.Get(ctx, "key", 10)
	return err
}

// after is when it is looked, by the time that has passed.
func after(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

// It is told which request waits, since when, and what it failed of, until the store has answered.
func TestS7_WaitsTellWhatIsWaitedFor(t *testing.T) {
	const todo = ": see that it runs and can be reached from here; it is asked again by itself"
	put := func(size int) func(context.Context, store.Store) error {
		return func(ctx context.Context, s store.Store) error { return s.Put(ctx, "key", make([]byte, size)) }
	}
	for name, c := range map[string]struct {
		answers []error
		request func(context.Context, store.Store) error
		at      time.Duration
		want    string // "" if nobody waits
	}{
		"most requests":     {[]error{errHangs}, get, 4 * time.Second, ""},
		"the first attempt": {[]error{errHangs}, get, 6 * time.Second, "the store s3://bucket/ has not answered since 2000-01-01 00:00:00" + todo},
		"the second": {
			[]error{errHangs}, get, 12 * time.Second,
			"the store s3://bucket/ has failed since 2000-01-01 00:00:00 (get key in s3://bucket/: no answer within 10s: context deadline exceeded)" + todo,
		},
		"soon after a failure":    {[]error{errMoment}, get, time.Second, ""},
		"failures":                {[]error{errMoment}, get, 7 * time.Second, "the store s3://bucket/ has failed since 2000-01-01 00:00:00 (internal error): see that"},
		"a body that may be slow": {[]error{errHangs}, put(64 << 10 * 20), 24 * time.Second, ""},
		"one that takes too long": {[]error{errHangs}, put(64 << 10 * 20), 26 * time.Second, "the store s3://bucket/ has not answered since 2000-01-01 00:00:00" + todo},
		"answered":                {[]error{errHangs, nil}, get, 12 * time.Second, ""},
		"not there":               {[]error{errHangs, store.ErrNotFound}, get, 12 * time.Second, ""},
		"given up":                {[]error{errHangs}, get, 3 * time.Minute, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, waits := NewWithT(t), &store.Waits{}
				waiting(t, waits, &remote{answers: c.answers}, c.request)
				after(c.at)
				for _, wait := range []*store.Wait{waits.Of("web"), waits.Any()} {
					if c.want == "" {
						g.Expect(wait).To(BeNil())
						continue
					}
					g.Expect(wait).NotTo(BeNil())
					g.Expect(wait.String()).To(HavePrefix(c.want))
				}
				g.Expect(waits.Of("other")).To(BeNil())
				after(3 * time.Minute) // until all is given up
			})
		})
	}
}

// A store that answers somebody keeps nobody waiting whose turn has not come.
func TestWaitsOfAStoreThatAnswersOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, waits := NewWithT(t), &store.Waits{}
		waiting(t, waits, &remote{answers: []error{errHangs}}, get)
		after(6 * time.Second)
		g.Expect(waits.Any()).NotTo(BeNil())
		waiting(t, waits, &remote{answers: []error{nil}}, get)
		after(time.Second)
		g.Expect(waits.Any()).To(BeNil())
		g.Expect(waits.Of("web")).To(HaveField("Since", time.Now().Add(-7*time.Second)))
		after(3 * time.Minute)
	})
}

// Who may not ask yet, because those who ask get no answer, waits for the store as well.
func TestWaitsOfWhoMayNotAskYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, waits := NewWithT(t), &store.Waits{}
		s := store.WithLimits(
			store.WithPatience(&remote{answers: []error{errHangs}}, store.Patience{Attempt: 10 * time.Second, Total: time.Minute, Waits: waits}),
			store.Limits{Requests: fair.NewQueue("requests", 1), Waits: waits})
		go func() { _ = get(fair.With(t.Context(), "web", fair.Urgent), s) }()
		after(time.Second)
		next, cancel := context.WithCancel(fair.With(t.Context(), "next", fair.Urgent))
		go func() { _ = get(next, s) }()
		after(5 * time.Second)
		g.Expect(waits.Of("next")).To(And(Not(BeNil()), Equal(waits.Of("web"))))
		g.Expect(waits.Of("other")).To(BeNil())
		cancel()
		after(time.Second)
		g.Expect(waits.Of("next")).To(BeNil())
		after(3 * time.Minute)
	})
}

// The oldest of several requests is told of: what is said does not change from one to the other.
func TestWaitsTellTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := &store.Waits{}
		for range 5 {
			waiting(t, waits, &remote{answers: []error{errHangs}}, get)
			after(time.Second)
		}
		after(time.Second)
		NewWithT(t).Expect(waits.Of("web")).To(Equal(&store.Wait{Store: "s3://bucket/", Since: time.Now().Add(-6 * time.Second), Attempt: 1}))
		after(3 * time.Minute)
	})
}

// A directory on a network that is gone keeps its callers waiting, too.
func TestWaitsOfADirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, waits := NewWithT(t), &store.Waits{}
		s := store.WithPatience(dead{}, store.Patience{Attempt: 10 * time.Second, Waits: waits})
		go func() { _ = get(fair.With(t.Context(), "web", fair.Urgent), s) }()
		after(6 * time.Second)
		g.Expect(waits.Of("web")).To(HaveField("Store", "file:///gone"))
		after(5 * time.Second)
		g.Expect(waits.Of("web")).To(BeNil(), "the call was given up")
	})
}

// A directory on a network that many packs share is given time for them, but not until the attempt is over.
func TestWaitsOfADirectoryThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, waits := NewWithT(t), &store.Waits{}
		s := store.WithPatience(dead{}, store.Patience{Attempt: time.Minute, Waits: waits})
		go func() { _ = s.Put(fair.With(t.Context(), "web", fair.Urgent), "key", make([]byte, 32<<20)) }()
		after(29 * time.Second)
		g.Expect(waits.Of("web")).To(BeNil())
		after(2 * time.Second)
		g.Expect(waits.Of("web")).To(HaveField("Store", "file:///gone"))
		after(time.Minute)
	})
}

// dead is a directory whose calls end with their context.
type dead struct{ store.Store }

func (dead) String() string { return "file:///gone" }

func (dead) Get(ctx context.Context, _ string, _ int64) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (dead) Put(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}
