// Package store keeps immutable objects under flat, slash separated keys.
//
// An object is created once and never changed: what a writer was told is stored stays what readers see. That is all the
// layers above need to be safe against other nodes, and all that file systems and object stores have in common.
package store

import (
	"context"
	"strings"
	"time"
)

// Object describes a stored object.
type Object struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // when it was written, by the store's clock
}

// Store is a flat namespace of immutable objects. Its methods may be called concurrently and end when ctx does.
//
// Except for [IdentityKey] nothing is read as absent, listed as empty or written in a place that holds no initialized
// store: all methods answer [ErrNotInitialized] there.
type Store interface {
	// Put creates an object, durable when nil is returned. It fails with [ErrExists] if the key is taken. After any other
	// error the object may exist or appear later, whole. The caller must not change data after an error, either.
	Put(ctx context.Context, key string, data []byte) error
	// Get reads a whole object by one request. It fails with [ErrNotFound], and with [ErrTooLarge] if the object has more than
	// limit bytes.
	Get(ctx context.Context, key string, limit int64) ([]byte, error)
	// Read fills buf with the bytes of an object from offset on. It fails with [ErrNotFound], and with an error that names the
	// object if that is too short. After an error the caller must forget buf: a call that was given up may still write to it.
	Read(ctx context.Context, key string, offset int64, buf []byte) error
	// Stat describes one object or fails with [ErrNotFound].
	Stat(ctx context.Context, key string) (Object, error)
	// List returns objects whose key begins with prefix and is greater than after, in ascending order of bytes, at most
	// limit of them if limit is positive.
	List(ctx context.Context, prefix, after string, limit int) ([]Object, error)
	// Delete removes objects. One that is absent is no error.
	Delete(ctx context.Context, keys ...string) error
	// Now reads the clock that stamps Object.Modified.
	Now(ctx context.Context) (time.Time, error)
	// String is the URL of the store without secrets, for messages.
	String() string
}

// IsLocal says whether a store is a directory, which answers at once: few requests at a time are as fast as many.
func IsLocal(s Store) bool { return strings.HasPrefix(s.String(), "file:") }

// sweeper is a store in which killed writers leave something that is no object.
type sweeper interface {
	Sweep(ctx context.Context) error
}

// Sweep removes what killed writers left in a store a day ago or longer, by the store's clock. In a store where nothing is ever
// left it does nothing.
func Sweep(ctx context.Context, s Store) error {
	if w, ok := s.(sweeper); ok {
		return w.Sweep(ctx)
	}
	return nil
}
