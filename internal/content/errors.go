package content

import (
	"errors"
	"fmt"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/history"
)

var (
	// ErrNotOurs means that what lies on the disk is not the subject's content under its claim.
	ErrNotOurs = errors.New("content is not ours")
	// ErrInUse means that somebody uses content that was to be taken away.
	ErrInUse = errors.New("content is in use")
	// ErrNotLent means that content is not within its users' reach, or not any more, so that no pod can have it.
	ErrNotLent = errors.New("content is not within reach")
	// ErrUnknownClass means that the volume's class was taken out of the configuration, or was never in it.
	ErrUnknownClass = errors.New("volume class is not in this node's configuration")
	// ErrChanging means that content which nobody should use any more keeps changing.
	ErrChanging = errors.New("content keeps changing")
)

// StoreError means that the object store is not the one it should be, or cannot say so.
type StoreError struct {
	Store string
	Err   error
}

// Error names the store.
func (e *StoreError) Error() string { return fmt.Sprintf("object store %s: %v", e.Store, e.Err) }

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// NoBackupError means that a backup that must exist is not in the store. The initializer is never used in its place.
type NoBackupError struct {
	Subject Subject
	// Wanted is what must exist, Found what is there.
	Wanted, Found string
}

// Error says what is missing and what to do.
func (e *NoBackupError) Error() string {
	found := e.Found
	if found == "" {
		found = "none"
	}
	return fmt.Sprintf("workspace %s must have %s in the store, but there is %s: bring the store's content back, "+
		"or create the workspace under another name to start afresh", e.Subject, e.Wanted, found)
}

// AbsentError means that the store does not have what somebody wants to look at.
type AbsentError struct {
	Subject Subject
	// What it does not have: "backup 7.40" for example.
	What string
}

// Error says what is missing and what to do.
func (e *AbsentError) Error() string {
	return fmt.Sprintf("the store has no %s of workspace %s: list its backups to see what there is", e.What, e.Subject)
}

// IncompleteError means that some files could not be read, so that the backup cannot let the content go.
type IncompleteError struct {
	// Backup is the name of the incomplete backup.
	Backup string
	// Files names some of the files, Count is how many there are.
	Files []string
	Count int64
}

// Error names the files.
func (e *IncompleteError) Error() string {
	return fmt.Sprintf("backup %s is incomplete, %d files could not be read: %s", e.Backup, e.Count, strings.Join(e.Files, ", "))
}

// DamagedError means that what was to be restored is not in the store as it was written.
type DamagedError struct {
	// What was to be restored: a backup or a snapshot.
	What string
	Err  error
	// Needs says which backups and snapshots need it, too.
	Needs []history.Need
	// Instead is what can be done if it cannot be brought back.
	Instead string
}

// What can be done in place of what is damaged.
const (
	otherBackup   = "stop the workspace and set spec.restore to another backup"
	otherSnapshot = "create another workspace from another snapshot"
	startAgain    = "stop the workspace and start it again"
)

// Error names what is damaged and says what to do.
func (e *DamagedError) Error() string {
	damage := []string{e.Err.Error()}
	for _, n := range e.Needs {
		if n.Count() > 1 {
			damage = append(damage, n.String())
		}
	}
	return fmt.Sprintf("%s cannot be read: %s: bring the object back from a copy of the store, or %s", e.What, strings.Join(damage, "; "), e.Instead)
}

// Unwrap returns the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

// FencedError means that another node took the workspace over. What could not be committed was saved.
type FencedError struct {
	Err error
	// Stray is the snapshot that holds what could not be committed, empty if nothing had changed.
	Stray string
}

// Error says by whom, and where the work went.
func (e *FencedError) Error() string {
	if e.Stray == "" {
		return e.Err.Error() + "; nothing was unsaved"
	}
	return fmt.Sprintf("%v; unsaved work was kept as snapshot %s", e.Err, e.Stray)
}

// Unwrap returns the cause.
func (e *FencedError) Unwrap() error { return e.Err }
