package content

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// recoverTime is how long a start waits for all disks to be brought in order. What takes longer goes on, while the others are served.
const recoverTime = 2 * time.Minute

// recovered is what became of a class at a start.
type recovered struct {
	class string
	found []Subject
	err   error
}

// Recover makes the node whole after a start, from what is on its disk alone: half-removed volumes go, the journal learns of
// volumes it does not know, and finished content that a crash kept from its users is published. It returns everything that
// lies on the node. A volume that cannot be read is reported, and so is a disk that hangs; neither keeps the others from their users.
func (k *Keeper) Recover(ctx context.Context) ([]Subject, error) {
	if err := k.CheckArea(ctx); err != nil {
		return nil, err
	}
	pending, ended := map[string]bool{}, make(chan recovered, len(k.Volumes))
	for class, driver := range k.Volumes {
		pending[class] = true
		turn := make(chan struct{}, 1)
		turn <- struct{}{}
		k.arriving.Store(class, turn)
		go func() {
			defer func() { <-turn }()
			found, err := k.recoverDisk(ctx, class, driver)
			ended <- recovered{class, found, err}
		}()
	}
	found, errs := gather(pending, ended)
	k.sweepIndexes()
	return found, errors.Join(append(errs, k.sweepTemplates(ctx))...)
}

// gather waits for the classes, but not for ever.
func gather(pending map[string]bool, ended <-chan recovered) (found []Subject, errs []error) {
	patience := time.NewTimer(recoverTime)
	defer patience.Stop()
	for len(pending) > 0 {
		select {
		case r := <-ended:
			delete(pending, r.class)
			found, errs = append(found, r.found...), append(errs, r.err)
		case <-patience.C:
			for _, class := range slices.Sorted(maps.Keys(pending)) {
				errs = append(errs, fmt.Errorf("volume class %s: its volumes are not in order after %s, the others are served meanwhile: %w", class, recoverTime, ErrHangs))
			}
			return found, errs
		}
	}
	return found, errs
}

// recoverDisk brings a class in order if its disk is there. Else whoever asks for it first does that, once it is.
func (k *Keeper) recoverDisk(ctx context.Context, class string, driver volume.Driver) ([]Subject, error) {
	if _, done := k.identified.Load(class); !done {
		if err := k.recognize(ctx, class, driver); err != nil {
			return nil, err // an empty disk in place of ours is no evidence
		}
	}
	found, err := k.recoverClass(ctx, class, driver)
	k.identified.Store(class, true)
	k.arriving.Delete(class)
	return found, err
}

// recoverClass does for one class what Recover does.
func (k *Keeper) recoverClass(ctx context.Context, class string, driver volume.Driver) (found []Subject, err error) {
	var errs []error
	if err := driver.Sweep(ctx); err != nil {
		errs = append(errs, fmt.Errorf("volume class %s: %w", class, err))
	}
	infos, err := driver.List(ctx)
	if err != nil {
		return nil, errors.Join(append(errs, fmt.Errorf("volume class %s: %w", class, err))...)
	}
	present := make(map[string]bool, len(infos))
	for _, info := range infos {
		s, err := k.recoverVolume(ctx, class, driver, info)
		errs = append(errs, err)
		present[info.ID] = s.UID != "" || err != nil
		if s.UID != "" {
			found = append(found, s)
		}
	}
	k.forgetAbsent(class, present)
	return found, errors.Join(errs...)
}

// arrive brings a class in order whose disk was not there when the daemon started. Nobody has worked on it before: everybody has to
// come by here. A volume that cannot be brought in order says so when somebody asks for it.
func (k *Keeper) arrive(ctx context.Context, class string, driver volume.Driver, late any) error {
	if turn, ok := late.(chan struct{}); ok {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return fmt.Errorf("volume class %s: its volumes are still being brought in order: %w", class, context.Cause(ctx))
		}
	}
	if _, done := k.identified.Load(class); done {
		return nil // somebody else did it
	}
	_, err := k.recoverClass(ctx, class, driver)
	if ctx.Err() != nil {
		return fmt.Errorf("volume class %s: its volumes are still being brought in order: %w", class, context.Cause(ctx))
	}
	if _, listed := driver.List(ctx); listed != nil {
		return fmt.Errorf("volume class %s: %w", class, errors.Join(err, listed))
	}
	k.identified.Store(class, true)
	return k.sweepTemplates(ctx)
}

func (k *Keeper) recoverVolume(ctx context.Context, class string, driver volume.Driver, info volume.Info) (Subject, error) {
	m, err := volume.ReadMarker(info)
	if errors.Is(err, volume.ErrNotFound) {
		return k.unmarked(ctx, driver, info)
	}
	if err != nil {
		return Subject{}, err
	}
	s := Subject{UID: m.UID, Namespace: m.Namespace, Name: m.Name, Class: class, Claim: m.Claim}
	if err := k.record(s, func(*state.Entry) {}); err != nil {
		return s, err
	}
	position, err := driver.Position(ctx, info.ID)
	if err != nil {
		return s, err
	}
	if m.Content != nil && m.Released == "" && position == volume.Staged {
		return s, driver.Publish(ctx, info.ID)
	}
	return s, nil
}

// unmarked removes a volume that was made an instant before its marker would have been written: nothing can be in it.
func (k *Keeper) unmarked(ctx context.Context, driver volume.Driver, info volume.Info) (Subject, error) {
	if err := bare(driver, info); err != nil {
		return Subject{}, err
	}
	return Subject{}, driver.Remove(ctx, info.ID)
}

// forgetAbsent drops journal entries of volumes that are not there and never held anything worth a question. Only a class
// whose volumes were listed can lack one.
func (k *Keeper) forgetAbsent(class string, present map[string]bool) {
	for _, e := range k.Area.Journal().List() {
		if e.Class == class && !present[e.UID] && e.Backup.Name == "" && len(e.Uses) == 0 {
			_ = k.Area.Journal().Delete(e.UID) // a cache: what stays is looked at again at the next start
		}
	}
}
