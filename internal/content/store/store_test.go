package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// record is a JSON object with its checksum; what is none stays what it is.
func record(content string) []byte {
	if !strings.HasSuffix(content, "}") {
		return []byte(content)
	}
	return store.AppendSum([]byte(content))
}

// Every bit of a record counts, and none may be missing.
func TestEveryBitOfARecordCounts(t *testing.T) {
	g := NewWithT(t)
	whole := store.AppendSum([]byte(`{"format":1,"id":"x"}`))
	g.Expect(store.CheckSum(whole)).To(Succeed())
	g.Expect(json.Valid(whole)).To(BeTrue())
	for i := range whole {
		for bit := range 8 {
			changed := bytes.Clone(whole)
			changed[i] ^= 1 << bit
			g.Expect(store.CheckSum(changed)).NotTo(Succeed(), "bit %d of byte %d", bit, i)
		}
		g.Expect(store.CheckSum(whole[:i])).NotTo(Succeed())
		g.Expect(store.CheckSum(whole[i+1:])).NotTo(Succeed())
	}
	g.Expect(store.CheckSum(append(whole, '\n'))).NotTo(Succeed())
}

func TestIdentityDamaged(t *testing.T) {
	for content, want := range map[string]string{
		"":                             "damaged",
		"{":                            "damaged",
		`{"format":1,"id":"x"}` + "\n": "does not end with its checksum",
		`{"format":1}`:                 "format or id is missing",
		`{"id":"x"}`:                   "format or id is missing",
		`{"format":2,"id":"x"}`:        "format 2, this version knows 1: update ws-daemon",
		string(make([]byte, 1<<20)):    "damaged",
	} {
		g := NewWithT(t)
		dir := t.TempDir()
		g.Expect(os.WriteFile(filepath.Join(dir, store.IdentityKey), record(content), 0o600)).To(Succeed())
		s, err := store.NewFilesystem(dir)
		g.Expect(err).NotTo(HaveOccurred())
		_, err = store.Identity(t.Context(), s)
		g.Expect(err).To(MatchError(ContainSubstring(want)))
		_, err = store.Init(t.Context(), s)
		g.Expect(err).To(MatchError(ContainSubstring(want)), "init does not overwrite it")
	}
}

func TestWithTimeoutAbandonsHangingCalls(t *testing.T) {
	defer goleak.VerifyNone(t)
	g := NewWithT(t)
	hang := make(chan struct{})
	ended := make(chan struct{}, 6)
	s := store.WithTimeout(storetest.Faulty(storetest.Filesystem(t), func(string, string) error {
		<-hang // deaf to its context, like a system call on a dead mount
		ended <- struct{}{}
		return errors.New("too late")
	}), 20*time.Millisecond, nil)
	ctx := t.Context()
	_, getErr := s.Get(ctx, "key", 64<<20)
	_, statErr := s.Stat(ctx, "key")
	_, listErr := s.List(ctx, "key", "", 0)
	_, nowErr := s.Now(ctx)
	for what, err := range map[string]error{
		"put key": s.Put(ctx, "key", nil), "get key": getErr, "stat key": statErr, "list key": listErr,
		"delete 1 objects": s.Delete(ctx, "key"), "read the clock": nowErr,
	} {
		g.Expect(err).To(MatchError(context.DeadlineExceeded))
		g.Expect(err).To(MatchError(Equal(what + " in " + s.String() + ": no answer within 20ms: context deadline exceeded")))
	}
	close(hang)
	for range 6 {
		<-ended
	}
}

func TestWithTimeoutPassesCancellation(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	hang := make(chan struct{})
	defer close(hang)
	s := store.WithTimeout(storetest.Faulty(storetest.Filesystem(t), func(string, string) error {
		cancel(errors.New("shutting down"))
		<-hang
		return nil
	}), time.Hour, nil)
	g.Expect(s.Put(ctx, "key", nil)).To(MatchError(ContainSubstring("put key in " + s.String() + ": shutting down")))
}

// A Put that was given up does not publish what its caller may have changed since.
func TestS2_AbandonedPutPublishesNothing(t *testing.T) {
	g := NewWithT(t)
	inner := storetest.Filesystem(t)
	hang, ended := make(chan struct{}), make(chan error, 1)
	s := store.WithTimeout(observed{Store: storetest.Faulty(inner, func(string, string) error {
		<-hang
		return nil
	}), ended: ended}, 10*time.Millisecond, nil)
	g.Expect(s.Put(t.Context(), "key", []byte("x"))).To(MatchError(context.DeadlineExceeded))
	close(hang)
	g.Expect(<-ended).To(HaveOccurred())
	_, err := inner.Stat(t.Context(), "key")
	g.Expect(err).To(MatchError(store.ErrNotFound))
}

type observed struct {
	store.Store
	ended chan error
}

func (o observed) Put(ctx context.Context, key string, data []byte) error {
	err := o.Store.Put(ctx, key, data)
	o.ended <- err
	return err
}

func TestFaulty(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	inner := storetest.Filesystem(t)
	broken := errors.New("broken")
	var seen []string
	s := storetest.Faulty(inner, func(op, key string) error {
		seen = append(seen, op+" "+key)
		if key == "bad" {
			return broken
		}
		return nil
	})
	g.Expect(s.Put(ctx, "bad", nil)).To(MatchError(broken))
	g.Expect(s.Put(ctx, "good", nil)).To(Succeed())
	g.Expect(s.Delete(ctx, "good", "bad")).To(MatchError(broken))
	g.Expect(seen).To(Equal([]string{"put bad", "put good", "delete good", "delete bad"}))
	g.Expect(second(inner.Stat(ctx, "good"))).To(Succeed(), "nothing was removed")
	lost := storetest.LostReply(inner, func(key string) bool { return key == "lost" })
	g.Expect(lost.Put(ctx, "lost", []byte("x"))).To(MatchError(storetest.ErrReplyLost))
	g.Expect(inner.Get(ctx, "lost", 64<<20)).To(Equal([]byte("x")))
	g.Expect(lost.Put(ctx, "lost", nil)).To(MatchError(store.ErrExists))
	g.Expect(lost.Put(ctx, "kept", nil)).To(Succeed())
}

func second[T any](_ T, err error) error { return err }
