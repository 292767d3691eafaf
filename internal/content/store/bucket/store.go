package bucket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// identityTTL is how long a store that was seen is not looked for again. A bucket that is emptied meanwhile is noticed after that.
const identityTTL = 10 * time.Second

// maxIdentity is more than store.json ever has, in bytes.
const maxIdentity = 64 << 10

// Client makes the requests of one bucket. Its keys are those in the bucket, prefix included. It answers with the errors of package
// store: [store.ErrExists], [store.ErrNotFound], [store.ErrTooLarge] and [store.ErrTooShort] where those are meant,
// [*store.RefusedError] where a repetition is in vain, [*store.BusyError] where the store asks for a pause. It repeats nothing itself.
type Client interface {
	// Create writes an object by one request, unless the key is taken. The store compares the checksum of what it got.
	Create(ctx context.Context, key string, data []byte) error
	// Fetch reads a whole object of at most limit bytes by one request, and compares its checksum where the store has one.
	Fetch(ctx context.Context, key string, limit int64) ([]byte, error)
	// FetchRange fills buf, which is not empty, by one request.
	FetchRange(ctx context.Context, key string, offset int64, buf []byte) error
	// Head describes an object.
	Head(ctx context.Context, key string) (store.Object, error)
	// Page lists objects with the prefix and after a key, in ascending order, at most limit if that is positive, by one request. More
	// says that there may be more of them, and is never true of an empty page.
	Page(ctx context.Context, prefix, after string, limit int) (objects []store.Object, more bool, err error)
	// Remove deletes objects; one that is absent is no error.
	Remove(ctx context.Context, keys []string) error
}

// keyed is a store below a prefix of a bucket.
type keyed struct {
	client Client
	prefix string // with a slash at its end, or empty
	url    string
	seen   atomic.Pointer[time.Time] // when the identity was there
}

// New returns the store below a prefix in the client's bucket; url is its name in messages.
func New(client Client, prefix, url string) store.Store {
	if prefix != "" {
		prefix += "/"
	}
	return &keyed{client: client, prefix: prefix, url: url}
}

func (k *keyed) String() string { return k.url }

func (k *keyed) Put(ctx context.Context, key string, data []byte) error {
	return k.about("put "+key+" into", k.put(ctx, key, data))
}

func (k *keyed) put(ctx context.Context, key string, data []byte) error {
	if err := k.check(key); err != nil {
		return err
	}
	if key == store.IdentityKey {
		return k.client.Create(ctx, k.prefix+key, data)
	}
	if err := k.confirm(ctx); err != nil {
		return err
	}
	return k.client.Create(ctx, k.prefix+key, data)
}

func (k *keyed) Get(ctx context.Context, key string, limit int64) (data []byte, err error) {
	err = k.read(ctx, key, func() (err error) {
		data, err = k.client.Fetch(ctx, k.prefix+key, limit)
		return err
	})
	return data, k.about("get "+key+" from", err)
}

func (k *keyed) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	return k.about("read "+key+" from", k.read(ctx, key, func() error {
		if offset < 0 {
			return fmt.Errorf("%w: it has no byte %d", store.ErrTooShort, offset)
		}
		if len(buf) > 0 {
			return k.client.FetchRange(ctx, k.prefix+key, offset, buf)
		}
		o, err := k.client.Head(ctx, k.prefix+key)
		if err == nil && o.Size < offset {
			err = TooShort(o.Size, offset, 0)
		}
		return err
	}))
}

func (k *keyed) Stat(ctx context.Context, key string) (o store.Object, err error) {
	err = k.read(ctx, key, func() (err error) {
		o, err = k.client.Head(ctx, k.prefix+key)
		o.Key = key
		return err
	})
	return o, k.about("stat "+key+" in", err)
}

// read makes a request for one object. That it is absent is believed only of a store that is there.
func (k *keyed) read(ctx context.Context, key string, request func() error) error {
	if err := k.check(key); err != nil {
		return err
	}
	err := request()
	if key != store.IdentityKey {
		err = Unlisted(ctx, k.client, k.prefix+key, err)
	}
	if !errors.Is(err, store.ErrNotFound) || key == store.IdentityKey {
		return err
	}
	if lost := k.confirm(ctx); lost != nil {
		return lost
	}
	return err
}

// Unlisted finds out what a denial means: stores deny an object that is absent to whoever may list a part of the bucket only. If the key
// is in that part, a listing tells.
func Unlisted(ctx context.Context, c Client, key string, err error) error {
	refused, ok := errors.AsType[*store.RefusedError](err)
	if !ok || !refused.Denied {
		return err
	}
	objects, _, listErr := c.Page(ctx, key, "", 1)
	if listErr != nil || len(objects) > 0 && objects[0].Key == key {
		return err
	}
	return fmt.Errorf("%w: it is not listed, either: %w", store.ErrNotFound, refused.Err)
}

func (k *keyed) Delete(ctx context.Context, keys ...string) error {
	return k.about(fmt.Sprintf("delete %d objects from", len(keys)), k.delete(ctx, keys))
}

func (k *keyed) delete(ctx context.Context, keys []string) error {
	whole := make([]string, 0, len(keys))
	for _, key := range keys {
		if err := k.check(key); err != nil {
			return err
		}
		whole = append(whole, k.prefix+key)
	}
	if len(keys) == 0 {
		return ctx.Err()
	}
	if err := k.confirm(ctx); err != nil {
		return err
	}
	return k.client.Remove(ctx, whole)
}

// Now reads the identity: its reply carries the clock, and shows that there is a store.
func (k *keyed) Now(ctx context.Context) (time.Time, error) {
	ctx, reply := Traced(ctx)
	err := k.identify(ctx)
	if err == nil && reply.Date.IsZero() {
		err = errors.New("its replies have no Date header: it is no object store, or a proxy removes them")
	}
	return reply.Date, k.about("read the clock of", err)
}

func (k *keyed) check(key string) error {
	if err := store.CheckKey(key); err != nil {
		return &store.RefusedError{Err: err, Advice: "another key is needed"}
	}
	return nil
}

// confirm tells an initialized store from an empty bucket, a wrong prefix, or a server that is no store.
func (k *keyed) confirm(ctx context.Context) error {
	if seen := k.seen.Load(); seen != nil && time.Since(*seen) < identityTTL {
		return ctx.Err()
	}
	return k.identify(ctx)
}

func (k *keyed) identify(ctx context.Context) error {
	data, err := k.client.Fetch(ctx, k.prefix+store.IdentityKey, maxIdentity)
	if errors.Is(err, store.ErrNotFound) {
		return store.NotInitialized(k.url)
	}
	if err == nil {
		err = store.CheckIdentity(data)
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", store.IdentityKey, err)
	}
	now := time.Now()
	k.seen.Store(&now)
	return nil
}

func (k *keyed) about(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, k.url, err)
}

func (k *keyed) List(ctx context.Context, prefix, after string, limit int) ([]store.Object, error) {
	objects, err := k.list(ctx, prefix, after, limit)
	if err != nil {
		return nil, k.about(fmt.Sprintf("list %q in", prefix), err)
	}
	return objects, nil
}

func (k *keyed) list(ctx context.Context, prefix, after string, limit int) (found []store.Object, err error) {
	if err := store.CheckPrefix(prefix); err != nil {
		return nil, &store.RefusedError{Err: err, Advice: "another prefix is needed"}
	}
	from := k.prefix + clip(after)
	for more := clip(prefix) == prefix; more; {
		var page []store.Object
		page, more, err = k.client.Page(ctx, k.prefix+prefix, from, missing(limit, len(found)))
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			if o.Key <= from {
				return nil, unfit(fmt.Sprintf("its listing has %q after %q, which is not in order", o.Key, from))
			}
			if !strings.HasPrefix(o.Key, k.prefix+prefix) {
				return nil, unfit(fmt.Sprintf("its listing of %q has %q", k.prefix+prefix, o.Key))
			}
			from = o.Key
			o.Key = strings.TrimPrefix(o.Key, k.prefix)
			if o.Key > after && store.CheckKey(o.Key) == nil {
				found = append(found, o)
			}
		}
		more = more && (limit <= 0 || len(found) < limit)
	}
	if len(found) == 0 {
		return nil, k.confirm(ctx)
	}
	return found, nil
}

// unfit is what a listing is good for that names an object again, goes back, or is of something else: whoever counts what is listed would
// count wrongly, whoever asks for what comes next would never come to an end, and what is not listed would be taken for absent.
func unfit(what string) error {
	return &store.RefusedError{Err: errors.New(what), Advice: "the store does not list as is needed: use one of the tested stores"}
}

func missing(limit, have int) int {
	if limit <= 0 {
		return 0
	}
	return limit - have
}

// clip replaces what no key has, from its first byte on, such that the same keys come after the text as before.
func clip(text string) string {
	for i := range len(text) {
		switch {
		case text[i] < ' ':
			return text[:i]
		case text[i] > '~':
			return text[:i] + "\x7f"
		}
	}
	return text
}
