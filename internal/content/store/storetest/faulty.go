package storetest

import (
	"context"
	"errors"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// ErrReplyLost is what a Put answers through [LostReply] although it was done.
var ErrReplyLost = errors.New("the reply was lost")

// Faulty asks hook before every call and fails with its error, if any, without calling s. The op is the method in lower
// case ("put", "get", "stat", "list", "delete", "now"); the key of a list is its prefix, that of a delete each one in turn.
func Faulty(s store.Store, hook func(op, key string) error) store.Store {
	return &faulty{Store: s, before: hook}
}

// LostReply does every Put and then fails those for which lost returns true with [ErrReplyLost]: applied, but the writer
// cannot know.
func LostReply(s store.Store, lost func(key string) bool) store.Store {
	return &lostReply{Store: s, lost: lost}
}

// Filesystem returns an initialized store in a new temporary directory of the test.
func Filesystem(t TB) store.Store {
	t.Helper()
	s, err := store.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatalf("make a store: %v", err)
	}
	if _, err := store.Init(t.Context(), s); err != nil {
		t.Fatalf("initialize the store: %v", err)
	}
	return s
}

// TB is what [Filesystem] needs of a test, benchmark or fuzz target.
type TB interface {
	Helper()
	TempDir() string
	Context() context.Context
	Fatalf(format string, args ...any)
}

type lostReply struct {
	store.Store
	lost func(string) bool
}

func (l *lostReply) Put(ctx context.Context, key string, data []byte) error {
	if err := l.Store.Put(ctx, key, data); err != nil {
		return err
	}
	if l.lost(key) {
		return ErrReplyLost
	}
	return nil
}

type faulty struct {
	store.Store
	before func(op, key string) error
}

func (f *faulty) Put(ctx context.Context, key string, data []byte) error {
	if err := f.before("put", key); err != nil {
		return err
	}
	return f.Store.Put(ctx, key, data)
}

func (f *faulty) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	if err := f.before("get", key); err != nil {
		return nil, err
	}
	return f.Store.Get(ctx, key, limit)
}

func (f *faulty) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	if err := f.before("get", key); err != nil {
		return err
	}
	return f.Store.Read(ctx, key, offset, buf)
}

func (f *faulty) Stat(ctx context.Context, key string) (store.Object, error) {
	if err := f.before("stat", key); err != nil {
		return store.Object{}, err
	}
	return f.Store.Stat(ctx, key)
}

func (f *faulty) List(ctx context.Context, prefix, after string, limit int) ([]store.Object, error) {
	if err := f.before("list", prefix); err != nil {
		return nil, err
	}
	return f.Store.List(ctx, prefix, after, limit)
}

func (f *faulty) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := f.before("delete", key); err != nil {
			return err
		}
	}
	return f.Store.Delete(ctx, keys...)
}

func (f *faulty) Now(ctx context.Context) (time.Time, error) {
	if err := f.before("now", ""); err != nil {
		return time.Time{}, err
	}
	return f.Store.Now(ctx)
}
