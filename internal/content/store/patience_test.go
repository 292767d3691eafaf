package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// remote is a store that is no directory, and answers by a script.
type remote struct {
	store.Store

	answers []error // of one call after the other; the last one stays
	calls   int
	holds   string
	times   []time.Time
}

func (r *remote) String() string { return "s3://bucket/" }

func (r *remote) answer(ctx context.Context) error {
	at := min(r.calls, len(r.answers)-1)
	r.calls++
	r.times = append(r.times, time.Now())
	if errors.Is(r.answers[at], errHangs) {
		<-ctx.Done()
		return ctx.Err()
	}
	return r.answers[at]
}

func (r *remote) Put(ctx context.Context, _ string, _ []byte) error { return r.answer(ctx) }

func (r *remote) Get(ctx context.Context, _ string, _ int64) ([]byte, error) {
	return []byte(r.holds), r.answer(ctx)
}

func (r *remote) Stat(context.Context, string) (store.Object, error) {
	return store.Object{Size: int64(len(r.holds))}, nil
}

func (r *remote) Read(_ context.Context, _ string, offset int64, buf []byte) error {
	copy(buf, r.holds[offset:])
	return nil
}

var (
	errMoment = errors.New("internal error")
	errHangs  = errors.New("no answer at all")
)

func patient(r *remote) store.Store {
	return store.WithPatience(r, store.Patience{Attempt: 10 * time.Second, Total: time.Minute})
}

func TestPatienceRepeatsWhatMayPass(t *testing.T) {
	refused := &store.RefusedError{Err: errMoment, Advice: "do something"}
	for name, c := range map[string]struct {
		answers []error
		calls   int
		err     error
	}{
		"at once":        {[]error{nil}, 1, nil},
		"the third time": {[]error{errMoment, errMoment, nil}, 3, nil},
		"after a hang":   {[]error{errHangs, nil}, 2, nil},
		"refused":        {[]error{refused}, 1, refused},
		"then refused":   {[]error{errMoment, refused}, 2, refused},
		"wrapped":        {[]error{fmt.Errorf("get key: %w", refused)}, 1, refused},
		"absent":         {[]error{store.ErrNotFound}, 1, store.ErrNotFound},
		"too large":      {[]error{store.ErrTooLarge}, 1, store.ErrTooLarge},
		"too short":      {[]error{store.ErrTooShort}, 1, store.ErrTooShort},
		"no store":       {[]error{store.ErrNotInitialized}, 1, store.ErrNotInitialized},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				r := &remote{answers: c.answers, holds: "x"}
				got, err := patient(r).Get(t.Context(), "key", 10)
				g.Expect(r.calls).To(Equal(c.calls))
				if c.err != nil {
					g.Expect(err).To(MatchError(c.err))
					return
				}
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(got).To(Equal([]byte("x")))
			})
		})
	}
}

// The pauses double up to a limit, half of each is random, and the total is a deadline for the beginning of the last attempt.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		r := &remote{answers: []error{errMoment}}
		began := time.Now()
		_, err := patient(r).Get(t.Context(), "key", 10)
		g.Expect(err).To(MatchError(errMoment))
		g.Expect(err).To(MatchError(MatchRegexp(`^internal error \(after \d+ attempts in \S+\)$`)))
		g.Expect(time.Since(began)).To(BeNumerically("<=", time.Minute))
		g.Expect(time.Since(began)).To(BeNumerically(">=", 45*time.Second))
		for i, milliseconds := range []int{200, 400, 800, 1600, 3200, 6400, 12800, 15000} {
			longest := time.Duration(milliseconds) * time.Millisecond
			pause := r.times[i+1].Sub(r.times[i])
			g.Expect(pause).To(BeNumerically(">=", longest/2), "pause %d", i)
			g.Expect(pause).To(BeNumerically("<=", longest), "pause %d", i)
		}
	})
}

func TestPatienceWaitsAsLongAsTheStoreAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		busy := func(after time.Duration) error {
			return fmt.Errorf("put: %w", &store.BusyError{Err: errMoment, After: after})
		}
		r := &remote{answers: []error{busy(20 * time.Second), nil}}
		g.Expect(patient(r).Put(t.Context(), "key", nil)).To(Succeed())
		g.Expect(r.times[1].Sub(r.times[0])).To(BeNumerically("~", 20*time.Second, 200*time.Millisecond))

		r = &remote{answers: []error{busy(2 * time.Minute)}}
		began := time.Now()
		g.Expect(patient(r).Put(t.Context(), "key", nil)).To(MatchError(errMoment))
		g.Expect(time.Since(began)).To(BeZero(), "longer than anybody waits: it is not worth beginning")
	})
}

func TestPatienceHonoursTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		for _, answer := range []error{errMoment, errHangs} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("shutting down"))
			began := time.Now()
			err := patient(&remote{answers: []error{answer}}).Put(ctx, "key", nil)
			cancel()
			g.Expect(err).To(MatchError(ContainSubstring("put key in s3://bucket/: shutting down")))
			g.Expect(time.Since(began)).To(Equal(time.Second))
		}
	})
}

// An attempt that hangs ends before the next one begins: it must not write to the buffer of that.
func TestPatienceBoundsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		r := &remote{answers: []error{errHangs}}
		err := patient(r).Put(t.Context(), "key", make([]byte, 64<<10*20))
		g.Expect(err).To(MatchError(context.DeadlineExceeded))
		g.Expect(err).To(MatchError(ContainSubstring("put key in s3://bucket/: no answer within 30s")), "20 s are for the body")
		g.Expect(r.times[1].Sub(r.times[0])).To(BeNumerically(">", 30*time.Second))
	})
}

// A key that is found taken after an attempt failed is our own if the content is.
func TestS2_PatienceSettlesAmbiguousWrites(t *testing.T) {
	for name, c := range map[string]struct {
		answers []error
		holds   string
		err     error
	}{
		"our own":               {[]error{errMoment, store.ErrExists}, "data", nil},
		"our own after a hang":  {[]error{errHangs, store.ErrExists}, "data", nil},
		"another's":             {[]error{errMoment, store.ErrExists}, "daTa", store.ErrExists},
		"another's, longer":     {[]error{errMoment, store.ErrExists}, "data!", store.ErrExists},
		"another's, empty":      {[]error{errMoment, store.ErrExists}, "", store.ErrExists},
		"taken before we began": {[]error{store.ErrExists}, "data", store.ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := patient(&remote{answers: c.answers, holds: c.holds}).Put(t.Context(), "key", []byte("data"))
				if c.err == nil {
					NewWithT(t).Expect(err).NotTo(HaveOccurred())
					return
				}
				NewWithT(t).Expect(err).To(MatchError(c.err))
			})
		})
	}
}
