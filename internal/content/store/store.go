// Package store keeps immutable objects under flat, slash separated keys.
//
// An object is created once and never changed: what a writer was told is stored stays what readers see. That is all the
// layers above need to be safe against other nodes, and all that file systems and object stores have in common.
package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The errors callers tell apart with [errors.Is].
var (
	// ErrExists is the answer to a Put of a key that is taken. What is there is durable and was left untouched.
	ErrExists = errors.New("object exists")
	// ErrNotFound says that the store is there and the object is not.
	ErrNotFound = errors.New("object not found")
	// ErrTooLarge says that an object has more bytes than its reader allows.
	ErrTooLarge = errors.New("object is too large")
	// ErrNotInitialized says that there is no store at that place: it was never made, or it is not mounted.
	ErrNotInitialized = errors.New("store is not initialized")
)

// The limits of a key, in bytes. They are those of S3 and of Linux file systems.
const (
	maxKey       = 1024
	maxComponent = 255
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

// Open returns the store at a URL, of which file:///dir is supported. It reads nothing: see [Identity].
func Open(_ context.Context, rawURL string) (Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's own message repeats the URL, which may hold a secret.
		return nil, errors.New("open store: its URL cannot be parsed: write file:///directory")
	}
	switch u.Scheme {
	case "file":
		return openFile(u)
	case "s3", "gs":
		return nil, fmt.Errorf("open store: the scheme %s:// is not built into this version: use file:///directory", u.Scheme)
	default:
		return nil, fmt.Errorf("open store: unknown scheme %q: write file:///directory", u.Scheme)
	}
}

func openFile(u *url.URL) (Store, error) {
	if u.Host != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !strings.HasPrefix(u.Path, "/") {
		return nil, errors.New("open store: a file URL has an absolute path and nothing else: write file:///directory")
	}
	return NewFilesystem(u.Path)
}

// validKey refuses keys that are not portable between stores or could leave a directory.
func validKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("key of %d bytes: at most %d are allowed", len(key), maxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		if err := validComponent(part); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

func validComponent(part string) error {
	switch {
	case part == "", part == ".", part == "..":
		return fmt.Errorf("component %q is not allowed", part)
	case reserved(part):
		return fmt.Errorf("component %q is reserved for temporary files", part)
	case len(part) > maxComponent:
		return fmt.Errorf("a component of %d bytes: at most %d are allowed", len(part), maxComponent)
	case strings.ContainsRune(part, 0):
		return errors.New("zero bytes are not allowed")
	}
	return nil
}

// reserved names are those of the file system driver; every store refuses them so that stores can be copied.
func reserved(part string) bool {
	return part == tempDir || strings.HasPrefix(part, tempPrefix)
}

// splitPrefix cuts a prefix into the directory it fixes, with its slash, and the beginning of a name in there.
func splitPrefix(prefix string) (dir, name string, err error) {
	at := strings.LastIndexByte(prefix, '/') + 1
	dir, name = prefix[:at], prefix[at:]
	if dir == "" {
		return dir, name, nil
	}
	return dir, name, validKey(strings.TrimSuffix(dir, "/"))
}
