// Package initializer fills the directory of a new workspace.
//
// There is one file for each kind of content. A kind gets an empty [Target], fills it as the user who will own it, in a sandbox,
// and says in a [Result] what is there now. Errors are of type [*Error], so that callers can tell a wrong password
// from a network that is down without reading messages. After an error the content of the directory is undefined:
// throw it away.
package initializer

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// Target is the place to fill.
type Target struct {
	// Dir is an empty directory that no user can reach yet. Without a namespace of mounts, every directory above it must
	// let UID pass (mode 0711 or wider).
	Dir string
	// UID and GID own everything that is created, Dir included.
	UID, GID uint32
	// Begun says that other kinds have put something there already, and given Dir to its owner.
	Begun bool
	// MaxBytes and MaxFiles are the limits of the volume, 0 for none. What its file system has left is a limit as well.
	MaxBytes, MaxFiles int64
}

// Source says what kind of content a workspace was filled with.
type Source string

// The kinds of content.
const (
	SourceEmpty    Source = "Empty"
	SourceGit      Source = "Git"
	SourceDownload Source = "Download"
)

// Result describes what was put into the target.
type Result struct {
	Source Source
	// Git is set for SourceGit.
	Git *GitHead
	// Files and Bytes that were made, without what git keeps for itself.
	Files, Bytes int64
}

// GitHead is what is checked out.
type GitHead struct {
	// Branch is the short name of the current branch, "" when HEAD is detached.
	Branch string
	// Commit is the full hexadecimal id, "" in a repository without commits.
	Commit string
}

// Kind classifies an [Error] by what the user can do about it.
type Kind string

// The kinds of errors.
const (
	// Unauthorized: credentials are missing, wrong, or not sufficient.
	Unauthorized Kind = "Unauthorized"
	// NotFound: the repository, branch or commit does not exist (or is hidden from these credentials).
	NotFound Kind = "NotFound"
	// Invalid: the specification can never work.
	Invalid Kind = "Invalid"
	// Full: the volume is too small.
	Full Kind = "Full"
	// Timeout: the time allowed has passed, or the caller gave up.
	Timeout Kind = "Timeout"
	// Failed: everything else, for example no network; trying again may help.
	Failed Kind = "Failed"
)

// The sentinels let errors.Is ask for a kind.
var (
	ErrUnauthorized = &Error{Kind: Unauthorized}
	ErrNotFound     = &Error{Kind: NotFound}
	ErrInvalid      = &Error{Kind: Invalid}
	ErrFull         = &Error{Kind: Full}
	ErrTimeout      = &Error{Kind: Timeout}
	ErrFailed       = &Error{Kind: Failed}
)

// Error is the type of every error of this package. Messages are short and contain no secrets.
type Error struct {
	Kind    Kind
	Message string
	cause   error
}

// Error returns the message.
func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Kind)
	}
	return e.Message
}

// ErrorKind returns the kind, which the error keeps on its way out of the sandbox.
func (e *Error) ErrorKind() string { return string(e.Kind) }

// Is reports whether target is an Error of the same kind without a message, such as [ErrNotFound].
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Message == ""
}

// Unwrap returns the cause, for example the context's error.
func (e *Error) Unwrap() error { return e.cause }

func newError(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), cause: cause}
}

// outside turns an error of the sandbox into one of this package. What the task was about is named where it could not say so itself.
func outside(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		return newError(Timeout, ctxErr, "%s was stopped: %v", what, ctxErr)
	}
	if task, ok := errors.AsType[*sandbox.TaskError](err); ok {
		switch kind := Kind(task.Kind); kind {
		case Unauthorized, NotFound, Invalid, Full, Timeout:
			return newError(kind, err, "%s", task.Message)
		default:
			return newError(Failed, err, "%s", task.Message)
		}
	}
	if errors.Is(err, sandbox.ErrLimit) { // the next attempt would take as much
		return newError(Invalid, err, "%s: %v", what, err)
	}
	return newError(Failed, err, "%s: %v", what, err)
}

// prepare checks that the target is an empty directory and hands it to its owner.
func prepare(ctx context.Context, t Target) error {
	if err := ctx.Err(); err != nil {
		return newError(Timeout, err, "fill %s: %v", t.Dir, err)
	}
	if t.Begun {
		return nil
	}
	dir, err := os.OpenFile(t.Dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return newError(Failed, err, "open target: %v", err)
	}
	defer func() { _ = dir.Close() }()
	if names, _ := dir.Readdirnames(1); len(names) > 0 {
		return newError(Failed, nil, "fill %s: the directory is not empty (%q is there)", t.Dir, names[0])
	}
	if err := dir.Chown(int(t.UID), int(t.GID)); err != nil {
		return newError(Failed, err, "set owner: %v", err)
	}
	if err := dir.Chmod(0o755); err != nil {
		return newError(Failed, err, "set mode: %v", err)
	}
	return nil
}
