package store

import (
	"context"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
)

// Limits are what all requests of a node share. See [fair.With] for who comes first.
type Limits struct {
	// Requests that run at once.
	Requests *fair.Queue
	// Upload and Download pace the bytes of objects; nil lets them pass as fast as they can.
	Upload, Download *fair.Pace
	// Waits is told of requests that wait until they may run; it may be nil.
	Waits *Waits
}

// WithLimits makes all calls of s share limits. A call first waits until its bytes may pass and then until it may run, which counts
// towards no deadline but its context's: put what bounds requests in time inside.
func WithLimits(s Store, l Limits) Store { return &limited{inner: s, Limits: l} }

type limited struct {
	inner Store
	Limits
}

func (l *limited) String() string { return l.inner.String() }

func (l *limited) Put(ctx context.Context, key string, data []byte) error {
	if err := l.Upload.Wait(ctx, len(data)); err != nil {
		return err
	}
	return l.run(ctx, func() error { return l.inner.Put(ctx, key, data) })
}

// Get knows only afterwards how much it was.
func (l *limited) Get(ctx context.Context, key string, limit int64) (data []byte, err error) {
	err = l.run(ctx, func() (err error) {
		data, err = l.inner.Get(ctx, key, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, l.Download.Wait(ctx, len(data))
}

func (l *limited) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	if err := l.Download.Wait(ctx, len(buf)); err != nil {
		return err
	}
	return l.run(ctx, func() error { return l.inner.Read(ctx, key, offset, buf) })
}

func (l *limited) Stat(ctx context.Context, key string) (o Object, err error) {
	err = l.run(ctx, func() (err error) {
		o, err = l.inner.Stat(ctx, key)
		return err
	})
	return o, err
}

func (l *limited) List(ctx context.Context, prefix, after string, limit int) (objects []Object, err error) {
	err = l.run(ctx, func() (err error) {
		objects, err = l.inner.List(ctx, prefix, after, limit)
		return err
	})
	return objects, err
}

func (l *limited) Delete(ctx context.Context, keys ...string) error {
	return l.run(ctx, func() error { return l.inner.Delete(ctx, keys...) })
}

func (l *limited) Now(ctx context.Context) (now time.Time, err error) {
	err = l.run(ctx, func() (err error) {
		now, err = l.inner.Now(ctx)
		return err
	})
	return now, err
}

func (l *limited) Sweep(ctx context.Context) error {
	return l.run(ctx, func() error { return Sweep(ctx, l.inner) })
}

func (l *limited) run(ctx context.Context, call func() error) error {
	arrived := l.Waits.queue(ctx)
	release, err := l.Requests.Acquire(ctx, 1)
	arrived()
	if err != nil {
		return err
	}
	defer release()
	return call()
}
