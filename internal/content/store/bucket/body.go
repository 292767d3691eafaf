package bucket

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// ErrChecksum says that an object arrived with other bytes than those it was sent with.
var ErrChecksum = errors.New("its content does not have the checksum that the store sent with it")

// ErrForeign says that something else has answered, with success, and that nobody knows what was done: a proxy with a page of its own, or a
// cache with the reply to another request.
var ErrForeign = errors.New("the reply is not that of an object store: is there a proxy that answers for it?")

// CheckSize refuses an object of more than limit bytes, and one whose reply does not say how many there are, which is a negative size: a
// proxy that changes replies on their way may leave that out.
func CheckSize(size, limit int64) error {
	switch {
	case size < 0:
		return errors.New("the reply does not say how long it is: is there a proxy that changes it?")
	case size > limit:
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", store.ErrTooLarge, size, limit)
	}
	return nil
}

// CheckRange compares the Content-Range of a reply with what was asked for. Without one the reply is the whole object.
func CheckRange(header string, offset int64, length int) error {
	if header == "" {
		return errors.New("the reply is a whole object, not the range that was asked for: is there a proxy that cannot do ranges?")
	}
	var first, last, size int64
	if _, err := fmt.Sscanf(header, "bytes %d-%d/%d", &first, &last, &size); err != nil {
		return fmt.Errorf("the reply is of the range %q, which cannot be read", header)
	}
	if size < offset+int64(length) {
		return TooShort(size, offset, length)
	}
	if first != offset || last != offset+int64(length)-1 {
		return fmt.Errorf("the reply is of the range %q, %d bytes from %d on were asked for", header, length, offset)
	}
	return nil
}

// CheckEncoding refuses content that something on the way has changed.
func CheckEncoding(header http.Header) error {
	encoding := header.Get("Content-Encoding")
	if encoding == "" || encoding == "identity" {
		return nil
	}
	return fmt.Errorf("its content arrived in the encoding %q: something between the store and this node changes it", encoding)
}

// Fill reads a body into a buffer of its length.
func Fill(body io.Reader, buf []byte) error {
	if n, err := io.ReadFull(body, buf); err != nil {
		return fmt.Errorf("its content ended after %d of %d bytes: %w", n, len(buf), err)
	}
	return nil
}

// TooShort says what was asked for, and what there is.
func TooShort(size, offset int64, length int) error {
	return fmt.Errorf("it has %d bytes, %d from %d on were asked for: %w", size, length, offset, store.ErrTooShort)
}

// Corrupt says that a store has confirmed other bytes than it was given.
func Corrupt(has, given string) error {
	return &store.RefusedError{
		Err:    fmt.Errorf("the store has other bytes than it was given: their CRC32C is %q, not %q", has, given),
		Advice: "what it holds cannot be trusted; check its disks and what is between it and this node",
	}
}

// MaxSkew is how far the clocks of node and store may be apart before requests that are signed with the time are refused.
const MaxSkew = 5 * time.Minute

// ClocksDiffer is the advice for a node whose clock is not the store's.
func ClocksDiffer(store time.Time) string {
	return fmt.Sprintf("the clocks differ: it is %s here and %s at the store; set the clock of this node",
		time.Now().UTC().Format(time.RFC3339), store.UTC().Format(time.RFC3339))
}
