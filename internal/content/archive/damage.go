package archive

import (
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// PackError says which pack an error is about, for those who cannot read that in its text.
type PackError struct {
	Pack format.PackID
	Err  error
}

func (e *PackError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PackError) Unwrap() error { return e.Err }

// ofFrame says which frame an error is about.
func ofFrame(f *format.Frame, err error) error {
	return &PackError{f.Pack, fmt.Errorf("frame %d of pack %v: %w", f.Index, f.Pack, err)}
}
