package store_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// lax is a store that does not do what it should.
type lax struct {
	store.Store

	put  func(ctx context.Context, key string, data []byte) error
	get  func(data []byte) []byte
	list func(objects []store.Object) []store.Object
	stat func(o store.Object, err error) (store.Object, error)
	del  func(ctx context.Context, keys ...string) error
	read func(buf []byte)
}

func (l lax) Put(ctx context.Context, key string, data []byte) error {
	if l.put != nil {
		return l.put(ctx, key, data)
	}
	return l.Store.Put(ctx, key, data)
}

func (l lax) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	data, err := l.Store.Get(ctx, key, limit)
	if l.get != nil {
		data = l.get(data)
	}
	return data, err
}

func (l lax) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	err := l.Store.Read(ctx, key, offset, buf)
	if l.read != nil {
		l.read(buf)
	}
	return err
}

func (l lax) List(ctx context.Context, prefix, after string, limit int) ([]store.Object, error) {
	objects, err := l.Store.List(ctx, prefix, after, limit)
	if l.list != nil {
		objects = l.list(objects)
	}
	return objects, err
}

func (l lax) Stat(ctx context.Context, key string) (store.Object, error) {
	o, err := l.Store.Stat(ctx, key)
	if l.stat != nil {
		return l.stat(o, err)
	}
	return o, err
}

func (l lax) Delete(ctx context.Context, keys ...string) error {
	if l.del != nil {
		return l.del(ctx, keys...)
	}
	return l.Store.Delete(ctx, keys...)
}

// overwrite puts an object in the place of another one.
func overwrite(s store.Store) func(context.Context, string, []byte) error {
	return func(ctx context.Context, key string, data []byte) error {
		return errors.Join(s.Delete(ctx, key), s.Put(ctx, key, data))
	}
}

func TestProbeRefuses(t *testing.T) {
	isRace := func(key string) bool { return strings.Contains(key, "race") }
	for name, c := range map[string]struct {
		make func(s store.Store) lax
		want string
	}{
		"overwrites": {func(s store.Store) lax {
			return lax{Store: s, put: overwrite(s)}
		}, "it overwrites an object although it was told to create it only if it is absent"},
		"refuses and overwrites": {func(s store.Store) lax {
			return lax{Store: s, put: func(ctx context.Context, key string, data []byte) error {
				_, err := s.Stat(ctx, key)
				return errors.Join(overwrite(s)(ctx, key, data), map[bool]error{true: store.ErrExists}[err == nil])
			}}
		}, "after a write that it refused, it has not the object that was there before"},
		"lets several through": {func(s store.Store) lax {
			return lax{Store: s, put: func(ctx context.Context, key string, data []byte) error {
				if err := s.Put(ctx, key, data); err != nil && !isRace(key) {
					return err
				}
				return nil
			}}
		}, "of writers that create the same object at once, it lets more than one through"},
		"lets none through": {func(s store.Store) lax {
			return lax{Store: s, put: func(ctx context.Context, key string, data []byte) error {
				if isRace(key) {
					return store.ErrExists
				}
				return s.Put(ctx, key, data)
			}}
		}, "of writers that create the same object at once, it lets none through"},
		"keeps another's": {func(s store.Store) lax {
			return lax{Store: s, put: func(ctx context.Context, key string, data []byte) error {
				if isRace(key) {
					data = []byte("nobody")
				}
				return s.Put(ctx, key, data)
			}}
		}, "of writers that create the same object at once, it keeps another one's than it says"},
		"lists late": {func(s store.Store) lax {
			return lax{Store: s, list: func(objects []store.Object) []store.Object { return objects[:max(0, len(objects)-1)] }}
		}, "it lists 3 objects where 4 were just written"},
		"lists in another order": {func(s store.Store) lax {
			return lax{Store: s, list: func(objects []store.Object) []store.Object {
				if len(objects) > 2 {
					objects[1], objects[2] = objects[2], objects[1]
				}
				return objects
			}}
		}, "it does not list objects in the order of their keys"},
		"lists something else": {func(s store.Store) lax {
			return lax{Store: s, list: func(objects []store.Object) []store.Object {
				for i := range objects {
					objects[i].Size++
				}
				return objects
			}}
		}, "create with 6 bytes where "},
		"reads another range": {func(s store.Store) lax {
			return lax{Store: s, read: func(buf []byte) { buf[0] ^= 1 }}
		}, "asked for a range of an object, it gives something else"},
		"does not delete": {func(s store.Store) lax {
			return lax{Store: s, del: func(context.Context, ...string) error { return nil }}
		}, "it still has an object that was just deleted"},
		"another clock": {func(s store.Store) lax {
			return lax{Store: s, stat: func(o store.Object, err error) (store.Object, error) {
				o.Modified = o.Modified.Add(-time.Hour)
				return o, err
			}}
		}, "but an object written just now is from"},
		"corrupts": {func(s store.Store) lax {
			return lax{Store: s, get: func(data []byte) []byte { data[0] ^= 1; return data }}
		}, "after a write that it refused, it has not the object that was there before"},
	} {
		t.Run(name, func(t *testing.T) {
			g, ctx := NewWithT(t), t.Context()
			s := c.make(storetest.Filesystem(t))
			_, err := store.Probe(ctx, s)
			var unfit *store.UnfitError
			g.Expect(errors.As(err, &unfit)).To(BeTrue(), "%v", err)
			g.Expect(unfit.Failed).To(ContainSubstring(c.want))
			g.Expect(err).To(MatchError(HavePrefix("the store " + s.String() + " cannot be used: ")))
			g.Expect(err).To(MatchError(ContainSubstring(". Use one of these: " + store.Tested)))

			guard := store.NewGuard(s)
			g.Expect(errors.As(guard.Put(ctx, "key", nil), &unfit)).To(BeTrue(), "nothing is written to it")
			g.Expect(errors.As(guard.Delete(ctx, "key"), &unfit)).To(BeTrue(), "nor deleted")
			g.Expect(second(s.Stat(ctx, "key"))).To(MatchError(store.ErrNotFound))
			g.Expect(guard.Get(ctx, store.IdentityKey, 1000)).NotTo(BeEmpty(), "reading may be the only way out")
		})
	}
}

// A store that cannot be asked is not called unfit, and is asked again.
func TestGuardProbesUntilItKnows(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	inner := storetest.Filesystem(t)
	down := true
	var calls atomic.Int64
	guard := store.NewGuard(storetest.Faulty(inner, func(string, string) error {
		calls.Add(1)
		if down {
			return errMoment
		}
		return nil
	}))
	g.Expect(guard.Put(ctx, "key", nil)).To(MatchError(errMoment))
	down = false
	g.Expect(guard.Put(ctx, "key", nil)).To(Succeed())
	calls.Store(0)
	g.Expect(guard.Put(ctx, "other", nil)).To(Succeed())
	g.Expect(guard.Delete(ctx, "other")).To(Succeed())
	g.Expect(calls.Load()).To(Equal(int64(2)), "once is enough")
	fitness, err := guard.Probe(ctx)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(fitness.String()).To(HavePrefix("store " + inner.String() + ": ok ("))
}

func TestProbeSaysHowFarTheClockIs(t *testing.T) {
	g := NewWithT(t)
	g.Expect(store.Fitness{Store: "s3://b", Skew: 6 * time.Minute}.String()).To(HaveSuffix("; but its clock is 6m0s from this node's"))
	g.Expect(store.Fitness{Store: "s3://b", Skew: time.Minute}.String()).To(HaveSuffix("deletes)"))
}
