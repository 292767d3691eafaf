package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	firstPause = 200 * time.Millisecond
	longPause  = 15 * time.Second
	// slowestRate is the slowest transfer of a body, in bytes a second, that is not called hanging.
	slowestRate = 64 << 10
	// compareChunk is how much of an object is read at once to be compared, in bytes.
	compareChunk = 4 << 20
)

// Patience bounds the calls of a store in time.
type Patience struct {
	// Attempt is the deadline of one request, without the time that its body takes at 64 KiB a second.
	Attempt time.Duration
	// Total is how long after its beginning a call is still repeated. An attempt that has begun is not cut off by it.
	Total time.Duration
	// Retried is called when a request is made again, with what it is: put, get, read, stat, list or delete. It may be nil.
	Retried func(request string)
	// Waits is told of requests that wait; it may be nil.
	Waits *Waits
}

// WithPatience bounds every call of s in time, and repeats those that failed in a way that may pass, with growing pauses of random
// length, or the one that the store asks for. A Put that was repeated and then finds its key taken compares what is there: it
// was an earlier attempt whose reply got lost if that is equal.
//
// A directory is not asked again: its file system has done that, or says that it is full or broken.
func WithPatience(s Store, p Patience) Store {
	if IsLocal(s) {
		return WithTimeout(s, p.Attempt, p.Waits)
	}
	return &patient{Store: s, p: p}
}

// patient hands on the methods that make no request.
type patient struct {
	Store
	p Patience
}

func (p *patient) Put(ctx context.Context, key string, data []byte) error {
	repeated := false
	return p.repeat(ctx, "put "+key, len(data), func(ctx context.Context) error {
		err := p.Store.Put(ctx, key, data)
		if repeated && errors.Is(err, ErrExists) {
			return p.settle(ctx, key, data, err)
		}
		repeated = true
		return err
	})
}

// settle finds out who took the key of a Put of which earlier attempts failed: maybe one of them did, and its reply was lost.
func (p *patient) settle(ctx context.Context, key string, data []byte, exists error) error {
	o, err := p.Store.Stat(ctx, key)
	if err != nil {
		return err
	}
	if o.Size != int64(len(data)) {
		return exists
	}
	buf := make([]byte, min(compareChunk, len(data)))
	for offset := 0; offset < len(data); offset += len(buf) {
		buf = buf[:min(len(buf), len(data)-offset)]
		if err := p.Store.Read(ctx, key, int64(offset), buf); err != nil {
			return err
		}
		if !bytes.Equal(buf, data[offset:offset+len(buf)]) {
			return exists
		}
	}
	return nil
}

func (p *patient) Get(ctx context.Context, key string, limit int64) (data []byte, err error) {
	err = p.repeat(ctx, "get "+key, int(min(limit, maxBody)), func(ctx context.Context) (err error) {
		data, err = p.Store.Get(ctx, key, limit)
		return err
	})
	return data, err
}

// maxBody bounds what a limit adds to a deadline: objects are at most twice a pack.
const maxBody = 64 << 20

func (p *patient) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	return p.repeat(ctx, "read "+key, len(buf), func(ctx context.Context) error { return p.Store.Read(ctx, key, offset, buf) })
}

func (p *patient) Stat(ctx context.Context, key string) (o Object, err error) {
	err = p.repeat(ctx, "stat "+key, 0, func(ctx context.Context) (err error) {
		o, err = p.Store.Stat(ctx, key)
		return err
	})
	return o, err
}

func (p *patient) List(ctx context.Context, prefix, after string, limit int) (objects []Object, err error) {
	// What was listed before an attempt failed is kept: a long listing must not begin anew.
	for {
		var page []Object
		err = p.repeat(ctx, "list "+prefix, 0, func(ctx context.Context) (err error) {
			page, err = p.Store.List(ctx, prefix, after, pageSize(limit, len(objects)))
			return err
		})
		if err != nil {
			return nil, err
		}
		objects = append(objects, page...)
		if len(page) < listPage || limit > 0 && len(objects) >= limit {
			return objects, nil
		}
		after = page[len(page)-1].Key
	}
}

// listPage is how many objects one attempt lists: what S3 lists by one request.
const listPage = 1000

func pageSize(limit, have int) int {
	if limit <= 0 {
		return listPage
	}
	return min(listPage, limit-have)
}

// deletePage is how many objects one attempt deletes.
const deletePage = 1000

func (p *patient) Delete(ctx context.Context, keys ...string) error {
	for len(keys) > 0 {
		page := keys[:min(len(keys), deletePage)]
		err := p.repeat(ctx, fmt.Sprintf("delete %d objects", len(page)), 0, func(ctx context.Context) error {
			return p.Store.Delete(ctx, page...)
		})
		if err != nil {
			return err
		}
		keys = keys[len(page):]
	}
	return ctx.Err()
}

func (p *patient) Now(ctx context.Context) (now time.Time, err error) {
	err = p.repeat(ctx, "read the clock", 0, func(ctx context.Context) (err error) {
		now, err = p.Store.Now(ctx)
		return err
	})
	return now, err
}

func (p *patient) Sweep(ctx context.Context) error { return Sweep(ctx, p.Store) }

// repeat makes a call until it succeeds, fails for good, or has had its time. Calls end before they are repeated, because the one
// that was given up could still write to the buffer of the next one.
func (p *patient) repeat(ctx context.Context, what string, body int, call func(context.Context) error) (err error) {
	began, wait := time.Now(), p.p.Waits.begin(ctx, p.Store, body)
	defer func() { wait.end(err) }()
	limit := p.p.Attempt + time.Duration(body/slowestRate)*time.Second
	for attempt := 1; ; attempt++ {
		err = p.attempt(ctx, what, limit, call)
		if err == nil || final(err) || ctx.Err() != nil {
			return err
		}
		wait.failed(err)
		pause := pauseAfter(attempt, err)
		if time.Since(began)+pause > p.p.Total {
			return fmt.Errorf("%w (after %d attempts in %s)", err, attempt, time.Since(began).Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s in %s: %w; before that: %w", what, p.Store, context.Cause(ctx), err)
		case <-time.After(pause):
		}
		if p.p.Retried != nil {
			request, _, _ := strings.Cut(what, " ")
			p.p.Retried(request)
		}
	}
}

func (p *patient) attempt(parent context.Context, what string, limit time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	err := call(ctx)
	switch {
	case err == nil:
		return nil
	case parent.Err() != nil:
		return fmt.Errorf("%s in %s: %w", what, p.Store, context.Cause(parent))
	case ctx.Err() != nil:
		return fmt.Errorf("%s in %s: no answer within %s: %w", what, p.Store, limit, context.DeadlineExceeded)
	}
	return err
}

// pauseAfter doubles from attempt to attempt. Its random half keeps many nodes from coming back together.
func pauseAfter(attempt int, err error) time.Duration {
	pause := min(firstPause<<min(attempt-1, 16), longPause)
	pause = pause/2 + rand.N(pause/2) //nolint:gosec // nobody gains by guessing it
	if busy, ok := errors.AsType[*BusyError](err); ok {
		pause = max(pause, busy.After+rand.N(firstPause)) //nolint:gosec // nobody gains by guessing it
	}
	return pause
}
