package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// WithTimeout bounds every call of s. A call that hangs in the kernel, as on a dead network file system, is abandoned: it
// goes on in its goroutine, and what it does after all is the caller's to expect (see [Store] on errors of Put and Read). waits is told of
// calls that wait; it may be nil.
func WithTimeout(s Store, d time.Duration, waits *Waits) Store {
	return &timed{inner: s, limit: d, waits: waits}
}

type timed struct {
	inner Store
	limit time.Duration
	waits *Waits
}

func (t *timed) String() string { return t.inner.String() }

func (t *timed) Put(ctx context.Context, key string, data []byte) error {
	_, err := bounded(ctx, t, "put "+key, len(data), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.inner.Put(ctx, key, data)
	})
	return err
}

func (t *timed) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	return bounded(ctx, t, "get "+key, int(min(limit, maxBody)), func(ctx context.Context) ([]byte, error) {
		return t.inner.Get(ctx, key, limit)
	})
}

func (t *timed) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	_, err := bounded(ctx, t, "read "+key, len(buf), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.inner.Read(ctx, key, offset, buf)
	})
	return err
}

func (t *timed) Stat(ctx context.Context, key string) (Object, error) {
	return bounded(ctx, t, "stat "+key, 0, func(ctx context.Context) (Object, error) {
		return t.inner.Stat(ctx, key)
	})
}

func (t *timed) List(ctx context.Context, prefix, after string, limit int) ([]Object, error) {
	return bounded(ctx, t, "list "+prefix, 0, func(ctx context.Context) ([]Object, error) {
		return t.inner.List(ctx, prefix, after, limit)
	})
}

func (t *timed) Delete(ctx context.Context, keys ...string) error {
	_, err := bounded(ctx, t, fmt.Sprintf("delete %d objects", len(keys)), 0, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.inner.Delete(ctx, keys...)
	})
	return err
}

func (t *timed) Now(ctx context.Context) (time.Time, error) {
	return bounded(ctx, t, "read the clock", 0, t.inner.Now)
}

func (t *timed) Sweep(ctx context.Context) error {
	_, err := bounded(ctx, t, "sweep", 0, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, Sweep(ctx, t.inner)
	})
	return err
}

// directoryBody is the largest body that a directory is given time for before it is said to be waited for. Nobody sees how far it is: a
// network that many packs share is slow, and one that has moved none in half a minute is more than that.
const directoryBody = 25 * slowestRate

func bounded[T any](parent context.Context, t *timed, what string, body int, call func(context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	ctx, cancel := context.WithTimeout(parent, t.limit)
	defer cancel()
	wait := t.waits.begin(ctx, t.inner, min(body, directoryBody))
	answers := make(chan answer, 1) // buffered: an abandoned call must be able to end
	go func() {
		value, err := call(ctx)
		answers <- answer{value, err}
	}()
	got := answer{err: context.DeadlineExceeded}
	select {
	case got = <-answers:
	case <-ctx.Done():
	}
	wait.end(got.err)
	if got.err == nil {
		return got.value, nil
	}
	return got.value, explain(parent, ctx, t, what, got.err)
}

// explain says what timed out where the error itself cannot know.
func explain(parent, ctx context.Context, t *timed, what string, err error) error {
	switch {
	case parent.Err() != nil:
		return fmt.Errorf("%s in %s: %w", what, t.inner, context.Cause(parent))
	case ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s in %s: no answer within %s: %w", what, t.inner, t.limit, context.DeadlineExceeded)
	}
	return err
}
