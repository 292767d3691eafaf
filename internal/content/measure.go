package content

import (
	"context"
	"errors"

	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// measure takes the volume's usage into the journal, and whether content has got round its limit. It is a service to people: a
// failure stops nothing. seen is what a backup has just seen of the content, nil if there was none.
func (k *Keeper) measure(ctx context.Context, driver volume.Driver, s Subject, seen *volume.Usage) {
	usage, err := driver.Usage(ctx, s.UID)
	if err != nil {
		return
	}
	escaped, known := audit(ctx, driver, s, seen)
	_ = k.record(s, func(e *state.Entry) {
		if !known {
			escaped = e.Usage.Escaped
		}
		e.Usage = state.Usage{Bytes: usage.Bytes, Inodes: usage.Inodes, At: k.Now(), Escaped: escaped}
	})
}

// audit returns what was found, and whether the driver could look.
func audit(ctx context.Context, driver volume.Driver, s Subject, seen *volume.Usage) (escaped string, known bool) {
	auditor, ok := driver.(volume.Auditor)
	if !ok {
		return "", true
	}
	err := auditor.Audit(ctx, s.UID, seen)
	if e, ok := errors.AsType[*volume.EscapedError](err); ok {
		return e.Error(), true
	}
	return "", err == nil
}
