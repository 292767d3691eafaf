package format

import (
	"errors"
	"fmt"
)

// Errors of reading. All others are mistakes of the caller.
var (
	// ErrDamaged says that stored bytes are not what was written, or break a rule of the format.
	ErrDamaged = errors.New("damaged")
	// ErrUnsupported says that a newer version wrote this.
	ErrUnsupported = errors.New("not supported by this version: update ws-daemon")
	// ErrKey says that a key is missing, or is not the one that was used.
	ErrKey = errors.New("wrong key")
)

func damaged(what, message string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", what, fmt.Sprintf(message, args...), ErrDamaged)
}

func unsupported(what, message string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", what, fmt.Sprintf(message, args...), ErrUnsupported)
}
