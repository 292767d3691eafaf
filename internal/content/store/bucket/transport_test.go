package bucket

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
)

// slow is a body of which a byte comes every so often; after the last one it stays silent, or ends.
type slow struct {
	ctx    context.Context //nolint:containedctx // it is a part of a request
	pause  time.Duration
	bytes  int
	silent bool
}

func (s *slow) Read(p []byte) (int, error) {
	if s.bytes == 0 && !s.silent {
		return 0, io.EOF
	}
	pause := s.pause
	if s.bytes == 0 {
		pause = time.Hour
	}
	select {
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	case <-time.After(pause):
	}
	s.bytes--
	p[0] = 'x'
	return 1, nil
}

func (s *slow) Close() error { return nil }

type trip func(*http.Request) (*http.Response, error)

func (t trip) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func get(t *testing.T, body io.Reader, inner trip) ([]byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://store/", body)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	resp, err := (&watched{inner: inner, limit: 30 * time.Second}).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func answer(body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Body: body, Request: &http.Request{Method: http.MethodGet}}
}

// However long a request takes, it goes on as long as something moves, and ends half a minute after nothing does.
func TestS7_RequestsThatStallEnd(t *testing.T) {
	for name, c := range map[string]struct {
		inner   trip
		after   time.Duration
		stalled bool
	}{
		"slow reply": {func(r *http.Request) (*http.Response, error) {
			return answer(&slow{ctx: r.Context(), pause: 29 * time.Second, bytes: 10}), nil
		}, 290 * time.Second, false},
		"reply that stops": {func(r *http.Request) (*http.Response, error) {
			return answer(&slow{ctx: r.Context(), pause: 29 * time.Second, bytes: 3, silent: true}), nil
		}, 117 * time.Second, true},
		"no reply": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, 30 * time.Second, true},
		"slow upload": {func(r *http.Request) (*http.Response, error) {
			for part := make([]byte, 1); ; time.Sleep(20 * time.Second) {
				if _, err := r.Body.Read(part); err != nil {
					return answer(io.NopCloser(strings.NewReader(""))), nil //nolint:nilerr // it has ended
				}
			}
		}, 80 * time.Second, false},
		"upload that stops": {func(r *http.Request) (*http.Response, error) {
			_, _ = r.Body.Read(make([]byte, 1))
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, 30 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				began := time.Now()
				_, err := get(t, strings.NewReader("data"), c.inner)
				g.Expect(errors.Is(err, errStalled)).To(Equal(c.stalled), "%v", err)
				g.Expect(c.stalled || err == nil).To(BeTrue(), "%v", err)
				g.Expect(time.Since(began)).To(Equal(c.after))
			})
		})
	}
}

func TestReplyIsNoted(t *testing.T) {
	date := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		header http.Header
		want   Reply
	}{
		"nothing": {http.Header{}, Reply{}},
		"date":    {http.Header{"Date": {date.Format(http.TimeFormat)}}, Reply{Date: date}},
		"seconds": {http.Header{"Retry-After": {"7"}}, Reply{After: 7 * time.Second}},
		"a time": {http.Header{
			"Date": {date.Format(http.TimeFormat)}, "Retry-After": {date.Add(time.Minute).Format(http.TimeFormat)},
		}, Reply{Date: date, After: time.Minute}},
		"the past": {http.Header{
			"Date": {date.Format(http.TimeFormat)}, "Retry-After": {date.Add(-time.Minute).Format(http.TimeFormat)},
		}, Reply{Date: date}},
		"negative": {http.Header{"Retry-After": {"-7"}}, Reply{}},
		"rubbish":  {http.Header{"Retry-After": {"soon"}, "Date": {"today"}}, Reply{}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			ctx, reply := Traced(t.Context())
			again, same := Traced(ctx)
			g.Expect(again).To(Equal(ctx))
			g.Expect(same).To(BeIdenticalTo(reply), "whoever asks first hears it, too")
			resp := answer(http.NoBody)
			resp.Header = c.header
			note(ctx, resp)
			c.want.Status, c.want.Method = http.StatusOK, http.MethodGet
			g.Expect(*reply).To(Equal(c.want))
		})
	}
}

func TestCheckRange(t *testing.T) {
	for header, want := range map[string]string{
		"bytes 10-14/100": "",
		"bytes 10-14/15":  "",
		"bytes 10-12/13":  "it has 13 bytes, 5 from 10 on were asked for: object is too short",
		"bytes 9-13/100":  `the reply is of the range "bytes 9-13/100", 5 bytes from 10 on were asked for`,
		"bytes 10-15/100": `the reply is of the range "bytes 10-15/100", 5 bytes from 10 on were asked for`,
		"bytes 10-14/*":   `the reply is of the range "bytes 10-14/*", which cannot be read`,
		"":                "the reply is a whole object, not the range that was asked for: is there a proxy that cannot do ranges?",
	} {
		err := CheckRange(header, 10, 5)
		if want == "" {
			NewWithT(t).Expect(err).NotTo(HaveOccurred(), header)
			continue
		}
		NewWithT(t).Expect(err).To(MatchError(want), header)
	}
}

func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a/b": "a/b", "a\x00b": "a", "\x1f": "", "a\xffb": "a\x7f", "a\x7f": "a\x7f", "é": "\x7f",
	} {
		NewWithT(t).Expect(clip(text)).To(Equal(want), "%q", text)
	}
}
