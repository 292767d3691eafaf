package volume

import (
	"errors"
	"fmt"
)

var (
	// ErrCapacity means that the disk has no room for what was asked.
	ErrCapacity = errors.New("insufficient capacity")
	// ErrNoGroup means that the volume group or the thin pool of a class is not there.
	ErrNoGroup = errors.New("volume group or thin pool not found")
)

// SizeError means that a volume was asked for that is too small for its class.
type SizeError struct {
	// Size that was asked for, and Minimum of the class, in bytes.
	Size, Minimum int64
}

// Error says which size is needed.
func (e *SizeError) Error() string {
	return fmt.Sprintf("a volume of %d bytes is too small: this class needs at least %d", e.Size, e.Minimum)
}
