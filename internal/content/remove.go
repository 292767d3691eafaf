package content

import (
	"context"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
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
	if o.Position != volume.None { // content that is lost has nothing to be taken away
		if _, err := k.withdraw(ctx, driver, o, inUse); err != nil {
			return err
		}
	}
	return k.markReleased(s, o, "", Discarded)
}

// markReleased writes into the journal what the tree looked like before it was compared with its backup, "" if nothing is
// to be concluded from that, and into the marker that the volume may go.
func (k *Keeper) markReleased(s Subject, o Observation, sum, name string) error {
	if err := k.record(s, func(e *state.Entry) { e.Released = sum }); err != nil {
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
func (k *Keeper) Remove(ctx context.Context, s Subject, consent Consent, inUse func(context.Context) error) (string, error) {
	ctx = fair.With(ctx, s.UID, fair.Urgent)
	if err := k.Area.Check(); err != nil {
		return "", err
	}
	driver, err := k.driver(ctx, s)
	if err != nil {
		return "", err
	}
	if err := k.unlent(s.UID); err != nil { // also if nothing of it can be found any more
		return "", err
	}
	o, err := k.Observe(ctx, s)
	if err != nil {
		return "", err
	}
	stray := ""
	switch {
	case o.Finished():
		stray, err = k.free(ctx, driver, o, consent, inUse)
	case o.Exists() && o.Marker.UID == "":
		err = bare(driver, o.Volume)
	}
	if err != nil {
		return "", err
	}
	faults.Point("remove.free")
	if err := driver.Remove(ctx, s.UID); err != nil {
		return "", err
	}
	faults.Point("remove.removed")
	k.saveIndex(s, nil)
	k.familiar.Delete(s.UID)
	return stray, k.Area.Journal().Delete(s.UID)
}

// free makes sure that finished content may go: it was released and has not changed since, or it is saved now.
func (k *Keeper) free(
	ctx context.Context, driver volume.Driver, o Observation, consent Consent, inUse func(context.Context) error,
) (string, error) {
	if err := k.vacant(ctx, o.Volume.ID, inUse); err != nil {
		return "", err
	}
	owner := Subject{
		UID: o.Marker.UID, Namespace: o.Marker.Namespace, Name: o.Marker.Name, Class: o.Class, Claim: o.Marker.Claim,
	}
	if o.Marker.Released == Discarded || owner.Claim == consent.Discard {
		return "", k.Discard(ctx, owner, inUse)
	}
	if o.Position == volume.None {
		return "", fmt.Errorf("%w: the content that the marker in %s promises is not there", ErrNotOurs, o.Volume.Dir)
	}
	sum, err := k.steady(ctx, driver.Path(o.Volume.ID, o.Position))
	if err == nil {
		err = volume.CheckWriters(ctx, driver.Path(o.Volume.ID, o.Position))
	}
	if err != nil {
		return "", err
	}
	if o.Marker.Released != "" && sum != "" && sum == o.Journal.Released {
		return "", nil
	}
	path, err := k.withdraw(ctx, driver, o, inUse)
	if err != nil {
		return "", err
	}
	stray, sum, err := k.saveUnchanged(ctx, owner, path, consent, nil)
	if err != nil {
		return "", err
	}
	return stray, k.markReleased(owner, o, sum, strayMark(stray, o.Marker.Released))
}

// saveUnchanged saves a tree as a stray snapshot, unless a backup has it, and makes sure that it did not change meanwhile: it
// goes next. So what holds the tree is read back.
func (k *Keeper) saveUnchanged(
	ctx context.Context, s Subject, path string, consent Consent, progress archive.Progress,
) (stray, sum string, err error) {
	if err = volume.CheckWriters(ctx, path); err != nil {
		return "", "", err
	}
	if sum, err = k.steady(ctx, path); err != nil {
		return "", "", err
	}
	if stray, err = k.keepStray(ctx, s, path, consent, progress, k.readAgain); err != nil {
		return stray, "", err
	}
	again, err := k.steady(ctx, path)
	if err == nil && again != sum {
		err = fmt.Errorf("%w: %s changed while it was saved", ErrChanging, path)
	}
	if err == nil {
		err = volume.CheckWriters(ctx, path)
	}
	return stray, sum, err
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
