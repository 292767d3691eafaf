package store

import (
	"errors"
	"fmt"
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
	// ErrTooShort says that an object has fewer bytes than were asked for: it was cut off, or is another one.
	ErrTooShort = errors.New("object is too short")
	// ErrNotInitialized says that there is no store at that place: it was never made, or it is not mounted.
	ErrNotInitialized = errors.New("store is not initialized")
)

// RefusedError is an answer that no repetition changes: somebody has to change the configuration, a permission or the store.
type RefusedError struct {
	// Advice says what to do.
	Advice string
	// Err is what the store said.
	Err error
	// Denied says that a right is missing, maybe only that of being told that an object is absent.
	Denied bool
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%v: %s", e.Err, e.Advice) }

func (e *RefusedError) Unwrap() error { return e.Err }

// BusyError is an answer by which the store asks for a pause.
type BusyError struct {
	// After is how long the store wants to be left alone.
	After time.Duration
	// Err is what the store said.
	Err error
}

func (e *BusyError) Error() string { return e.Err.Error() }

func (e *BusyError) Unwrap() error { return e.Err }

// final says whether a call is not to be repeated after an error. Whatever is not known to be final is.
func final(err error) bool {
	if _, refused := errors.AsType[*RefusedError](err); refused {
		return true
	}
	for _, known := range []error{ErrExists, ErrNotFound, ErrTooLarge, ErrTooShort, ErrNotInitialized} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
