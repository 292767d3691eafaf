package content

import (
	"context"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Discarded stands in a marker, in place of a backup's name, when a person or the spec gave the content up.
const Discarded = "discarded"

// Discard takes the content away from its users and marks it as given up.
func (k *Keeper) Discard(ctx context.Context, s Subject, inUse func(context.Context) error) error {
	driver, o, err := k.own(ctx, s)
	if err != nil || o.Marker.Released != "" {
		return err
	}
	path, err := k.withdraw(ctx, driver, o, inUse)
	if err != nil {
		return err
	}
	return k.markReleased(ctx, s, o, path, Discarded)
}

// markReleased writes into the marker that the volume may go, and into the journal what the tree looked like.
func (k *Keeper) markReleased(ctx context.Context, s Subject, o Observation, path, name string) error {
	print, _, err := archive.Fingerprint(ctx, path)
	if err != nil {
		return fmt.Errorf("scan %s: %w", path, err)
	}
	if err := k.record(s, func(e *state.Entry) { e.Released = print }); err != nil {
		return err
	}
	o.Marker.Released = name
	if err := volume.WriteMarker(o.Volume, o.Marker); err != nil {
		return err
	}
	faults.Point("release.marked")
	return nil
}

// Remove removes a volume whose content is safe elsewhere, was given up, or was never finished. Content that is none of
// these, or that changed after it was released, is saved as a stray snapshot first; its id is returned.
func (k *Keeper) Remove(ctx context.Context, s Subject, inUse func(context.Context) error) (string, error) {
	if err := k.Area.Check(); err != nil {
		return "", err
	}
	driver, err := k.driver(s)
	if err != nil {
		return "", err
	}
	o, err := k.Observe(ctx, s)
	if err != nil {
		return "", err
	}
	stray := ""
	if o.Finished() {
		if stray, err = k.free(ctx, driver, o, inUse); err != nil {
			return "", err
		}
	}
	faults.Point("remove.free")
	if err := driver.Remove(ctx, s.UID); err != nil {
		return "", err
	}
	faults.Point("remove.removed")
	return stray, k.Area.Journal().Delete(s.UID)
}

// free makes sure that finished content may go: it was released and has not changed since, or it is saved now.
func (k *Keeper) free(ctx context.Context, driver volume.Driver, o Observation, inUse func(context.Context) error) (string, error) {
	path := driver.Path(o.Volume.ID, o.Position)
	if o.Position == volume.None {
		return "", fmt.Errorf("%w: the content that the marker in %s promises is not there", ErrNotOurs, o.Volume.Dir)
	}
	if o.Marker.Released == Discarded {
		return "", nil
	}
	if o.Marker.Released != "" && o.Journal.Released != "" {
		print, _, err := archive.Fingerprint(ctx, path)
		if err != nil {
			return "", fmt.Errorf("scan %s: %w", path, err)
		}
		if print == o.Journal.Released {
			return "", nil
		}
	}
	path, err := k.withdraw(ctx, driver, o, inUse)
	if err != nil {
		return "", err
	}
	owner := Subject{
		UID: o.Marker.UID, Namespace: o.Marker.Namespace, Name: o.Marker.Name, Class: o.Journal.Class, Claim: o.Marker.Claim,
	}
	stray, err := k.keepStray(ctx, owner, path, nil)
	if err != nil {
		return "", err
	}
	return stray, k.markReleased(ctx, owner, o, path, strayMark(stray, o.Marker.Released))
}

func strayMark(stray, released string) string {
	switch {
	case stray != "":
		return stray
	case released != "":
		return released
	default:
		return "saved"
	}
}
