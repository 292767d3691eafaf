package store

import (
	"context"
	"sync/atomic"
	"time"
)

// Switch is a store whose limits and deadlines may change while it is used: every call goes to what was set last, and calls under way
// go on as they began.
type Switch struct {
	now atomic.Pointer[Store]
}

// NewSwitch returns a switch to s.
func NewSwitch(s Store) *Switch {
	w := &Switch{}
	w.Set(s)
	return w
}

// Set has calls from now on go to s, which must be the same store.
func (w *Switch) Set(s Store) { w.now.Store(&s) }

func (w *Switch) get() Store { return *w.now.Load() }

func (w *Switch) String() string { return w.get().String() }

// Put is that of the store.
func (w *Switch) Put(ctx context.Context, key string, data []byte) error {
	return w.get().Put(ctx, key, data)
}

// Get is that of the store.
func (w *Switch) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	return w.get().Get(ctx, key, limit)
}

// Read is that of the store.
func (w *Switch) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	return w.get().Read(ctx, key, offset, buf)
}

// Stat is that of the store.
func (w *Switch) Stat(ctx context.Context, key string) (Object, error) {
	return w.get().Stat(ctx, key)
}

// List is that of the store.
func (w *Switch) List(ctx context.Context, prefix, after string, limit int) ([]Object, error) {
	return w.get().List(ctx, prefix, after, limit)
}

// Delete is that of the store.
func (w *Switch) Delete(ctx context.Context, keys ...string) error {
	return w.get().Delete(ctx, keys...)
}

// Now is that of the store.
func (w *Switch) Now(ctx context.Context) (time.Time, error) { return w.get().Now(ctx) }

// Sweep is that of the store.
func (w *Switch) Sweep(ctx context.Context) error { return Sweep(ctx, w.get()) }
