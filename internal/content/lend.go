package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Lend opens content for a mount that a pod is to have, and has written that down before it looks. Whoever takes content away first
// moves it out of its users' reach and then asks what is written down: one of the two always sees the other. So content is
// either lent, and stays until [Keeper.Return], or it is not there any more, which is [ErrNotLent].
//
// The caller mounts what it gets and closes it; if it cannot, it returns it. To lend the same target again is no error.
func (k *Keeper) Lend(ctx context.Context, s Subject, use state.Use) (*os.File, error) {
	if err := k.noteUse(s, use); err != nil {
		return nil, err
	}
	faults.Point("lend.noted")
	dir, err := k.openPublished(ctx, s)
	if err != nil {
		_, back := k.Return(use.Target)
		return nil, errors.Join(err, back)
	}
	return dir, nil
}

// noteUse writes a use into the entry that there is: a workspace that can be used has one.
func (k *Keeper) noteUse(s Subject, use state.Use) error {
	known := false
	_, err := k.Area.Journal().Update(s.UID, func(e *state.Entry, found bool) bool {
		if known = found && e.Claim == s.Claim; known {
			use.Since = k.Now()
			e.Begin(use)
		}
		return known
	})
	if err == nil && !known {
		err = fmt.Errorf("%w: the node knows nothing of workspace %s under claim %d", ErrNotLent, s, s.Claim)
	}
	return err
}

// openPublished opens what a subject's users see now.
func (k *Keeper) openPublished(ctx context.Context, s Subject) (*os.File, error) {
	driver, o, err := k.own(ctx, s)
	if errors.Is(err, ErrNotOurs) {
		return nil, fmt.Errorf("%w: %w", ErrNotLent, err)
	}
	if err != nil {
		return nil, err
	}
	if o.Marker.Released != "" {
		return nil, fmt.Errorf("%w: the content of workspace %s was released", ErrNotLent, s)
	}
	dir, err := driver.OpenPublished(ctx, s.UID)
	if errors.Is(err, volume.ErrNotFound) || errors.Is(err, volume.ErrUnfinished) {
		err = fmt.Errorf("%w: %w", ErrNotLent, err)
	}
	return dir, err
}

// Return ends the use of a target, once its mount is gone, and says whose content it was: nobody's, if no use was known. It looks at
// nothing but the journal.
func (k *Keeper) Return(target string) ([]Subject, error) {
	var returned []Subject
	for _, e := range k.Area.Journal().UsedAt(target) {
		faults.Point("lend.return")
		_, err := k.Area.Journal().Update(e.UID, func(e *state.Entry, found bool) bool { return found && e.End(target) })
		if err != nil {
			return returned, err
		}
		returned = append(returned, Subject{UID: e.UID, Namespace: e.Namespace, Name: e.Name, Class: e.Class, Claim: e.Claim})
	}
	return returned, nil
}

// Uses returns the mounts of a workspace's content that pods have.
func (k *Keeper) Uses(uid string) []state.Use {
	e, _ := k.Area.Journal().Get(uid)
	return e.Uses
}

// Recognize returns the workspace whose finished content an open directory is; false if it is nobody's, as far as can be told.
func (k *Keeper) Recognize(ctx context.Context, dir *os.File) (Subject, bool) {
	for _, e := range k.Area.Journal().List() {
		driver, ok := k.Volumes[e.Class]
		if !ok {
			continue
		}
		if is, err := driver.Holds(ctx, e.UID, dir); err == nil && is {
			return Subject{UID: e.UID, Namespace: e.Namespace, Name: e.Name, Class: e.Class, Claim: e.Claim}, true
		}
	}
	return Subject{}, false
}

// Found writes down a mount that a pod has and of which the journal knows nothing.
func (k *Keeper) Found(s Subject, use state.Use) error { return k.noteUse(s, use) }

// vacant fails with ErrInUse while pods use content: those that inUse sees, and those that have it mounted by the journal.
func (k *Keeper) vacant(ctx context.Context, uid string, inUse func(context.Context) error) error {
	if err := inUse(ctx); err != nil {
		return err
	}
	return k.unlent(uid)
}

func (k *Keeper) unlent(uid string) error {
	uses := k.Uses(uid)
	if len(uses) == 0 {
		return nil
	}
	users := make([]string, 0, len(uses))
	for _, u := range uses {
		users = append(users, u.User())
	}
	return fmt.Errorf("%w: it is mounted for pods %s", ErrInUse, strings.Join(users[:min(3, len(users))], ", "))
}
