package history

import (
	"errors"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// The errors callers tell apart with [errors.Is].
var (
	// ErrFenced says that another owner took the workspace over: commit nothing more. See [FencedError].
	ErrFenced = errors.New("fenced by a newer owner")
	// ErrLost says that a backup of ours is no longer in the store. See [LostError].
	ErrLost = errors.New("backup is not in the store any more")
	// ErrNoBackup says that the workspace has no complete backup.
	ErrNoBackup = errors.New("no complete backup")
	// ErrOtherCluster says that the domain belongs to another cluster.
	ErrOtherCluster = errors.New("domain belongs to another cluster")
	// ErrOtherCommit says that a pin's id is taken by another commit.
	ErrOtherCommit = errors.New("pin holds another commit")
	// ErrEarlier says that the name holds an earlier attempt of ours, with other content: go on with the next number.
	ErrEarlier = errors.New("an earlier attempt was committed")
	// ErrCondemned says that a pack is being collected, or was: what it holds must be stored anew.
	ErrCondemned = errors.New("pack is being collected")
	// ErrDamaged says that an object is there and is not what was written.
	ErrDamaged = errors.New("object is damaged")
)

// FencedError says who fenced us. It matches [ErrFenced].
type FencedError struct {
	Workspace string
	By        Name  // the commit or claim record that was found
	Owner     Owner // who wrote it; empty if unknown
	Buried    bool  // it is a tombstone of By.Claim instead: the workspace was deleted
}

// Error names the workspace and what fenced it.
func (e *FencedError) Error() string {
	if e.Buried {
		return fmt.Sprintf("workspace %s: %v: it was deleted under claim %d", e.Workspace, ErrFenced, e.By.Claim)
	}
	by := ""
	if e.Owner.Node != "" {
		by = " of node " + e.Owner.Node
	}
	return fmt.Sprintf("workspace %s: %v: %s%s is in the store", e.Workspace, ErrFenced, e.By, by)
}

// Is makes errors.Is(err, ErrFenced) true.
func (e *FencedError) Is(target error) bool { return target == ErrFenced }

// LostError names a backup of ours that vanished from the store. It matches [ErrLost].
type LostError struct {
	Workspace string
	Name      Name
}

// Error names the backup and what may have happened.
func (e *LostError) Error() string {
	return fmt.Sprintf("workspace %s: %v: %s: was the store emptied, replaced or restored from a copy?", e.Workspace, ErrLost, e.Name)
}

// Is makes errors.Is(err, ErrLost) true.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// PackError says which pack an error is about, for those who cannot read that in its text.
type PackError struct {
	ID  string
	Err error
}

func (e *PackError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PackError) Unwrap() error { return e.Err }

// Gone says whether an error means that a backup, or a part of it, is not in the store as it was written, or will not be for
// long: then another one is needed, whether the tree has changed or not.
func Gone(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrCondemned)
}

func damaged(key string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrDamaged, key, err)
}
