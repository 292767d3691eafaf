package content

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Recover makes the node whole after a start, from what is on its disk alone: half-removed volumes go, the journal learns of
// volumes it does not know, and finished content that a crash kept from its users is published. It returns everything that
// lies on the node. A volume that cannot be read is reported and does not keep the others from their users.
func (k *Keeper) Recover(ctx context.Context) ([]Subject, error) {
	if err := k.Area.Check(); err != nil {
		return nil, err
	}
	var found []Subject
	var errs []error
	for class, driver := range k.Volumes {
		if err := k.identify(ctx, class, driver); err != nil {
			k.arriving.Store(class, &sync.Mutex{})
			errs = append(errs, err)
			continue // an empty disk in place of ours is no evidence
		}
		subjects, err := k.recoverClass(ctx, class, driver)
		found, errs = append(found, subjects...), append(errs, err)
	}
	k.sweepIndexes()
	errs = append(errs, k.sweepTemplates(ctx))
	return found, errors.Join(errs...)
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
	if lock, ok := late.(*sync.Mutex); ok {
		lock.Lock()
		defer lock.Unlock()
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
