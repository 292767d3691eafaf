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

// Measure takes the usage of a volume into the journal, if the disk has counted it all along, and returns the entry. What changed
// little stays as it was: an entry costs a write to the disk. Whether content has got round its limit is left to backups, which
// read the tree anyway.
func (k *Keeper) Measure(ctx context.Context, s Subject) (state.Entry, error) {
	usage, err := inTime(ctx, k, k.diskOf(s.Class, s.UID), func(ctx context.Context) (volume.Usage, error) {
		driver, err := k.driver(ctx, s)
		if err != nil {
			return volume.Usage{}, err
		}
		return driver.Usage(ctx, s.UID)
	})
	if err != nil {
		return state.Entry{}, err
	}
	return k.Area.Journal().Update(s.UID, func(e *state.Entry, found bool) bool {
		if !found || e.Claim != s.Claim || !differs(e.Usage, usage) {
			return false
		}
		e.Usage.Bytes, e.Usage.Inodes, e.Usage.At = usage.Bytes, usage.Inodes, k.Now()
		return true
	})
}

// differs says whether usage is worth an entry: it changed by more than one in 256.
func differs(before state.Usage, now volume.Usage) bool {
	far := func(a, b int64) bool { return max(a-b, b-a) > max(a, b)>>8 }
	return before.At.IsZero() || far(before.Bytes, now.Bytes) || far(before.Inodes, now.Inodes)
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
