package controllers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// secretError means that credentials which the spec names cannot be had.
type secretError struct{ message string }

func (e *secretError) Error() string { return e.message }

// specError means that the spec cannot be fulfilled as it is.
type specError struct{ reason, message string }

func (e *specError) Error() string { return e.message }

// class is what an error means to people.
type class struct {
	reason    string
	permanent bool // no retry helps until someone changes something
}

// classify is the one place that decides what an error means. The fallback is the reason of the operation that failed.
func classify(err error, fallback string) class {
	var (
		noBackup *content.NoBackupError
		store    *content.StoreError
		fenced   *content.FencedError
		missing  *content.IncompleteError
		secret   *secretError
		spec     *specError
		init     *initializer.Error
		damaged  *content.DamagedError
	)
	switch {
	case errors.As(err, &noBackup):
		return class{v1.ReasonNoBackup, true}
	case errors.As(err, &secret):
		return class{v1.ReasonUnauthorized, true}
	case errors.As(err, &spec):
		return class{spec.reason, true}
	case errors.As(err, &init):
		return classifyInitializer(init, fallback)
	case errors.As(err, &damaged):
		return class{v1.ReasonRestoreFailed, true}
	case errors.Is(err, content.ErrUnknownClass):
		return class{v1.ReasonUnknownClass, true}
	case errors.As(err, &missing):
		return class{v1.ReasonIncomplete, false}
	case errors.As(err, &fenced), errors.Is(err, history.ErrFenced):
		return class{v1.ReasonFenced, false}
	case errors.As(err, &store):
		return class{v1.ReasonStoreUnavailable, false}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, jobs.ErrTimeout):
		return class{v1.ReasonTimedOut, false}
	case errors.Is(err, history.ErrOtherCluster):
		return class{v1.ReasonStoreUnavailable, true}
	default:
		return classifyVolume(err, fallback)
	}
}

func classifyVolume(err error, fallback string) class {
	var foreign *volume.ForeignError
	var writer *volume.WriterError
	var escaped *volume.EscapedError
	var size *volume.SizeError
	var refused *store.RefusedError
	switch {
	case errors.As(err, &refused): // the disk of the store, not of the volume
		return class{fallback, false}
	case errors.Is(err, volume.ErrUnlimited):
		return class{v1.ReasonQuotaUnsupported, true}
	case errors.As(err, &escaped):
		return class{v1.ReasonQuotaEscaped, true}
	case errors.Is(err, volume.ErrNoGroup):
		return class{v1.ReasonVolumeGroupNotFound, false}
	case errors.Is(err, volume.ErrReadOnly), errors.Is(err, syscall.EROFS):
		return class{v1.ReasonReadOnly, false}
	case errors.Is(err, volume.ErrCapacity), fallback == v1.ReasonProvisionFailed && full(err):
		return class{v1.ReasonInsufficientCapacity, false}
	case errors.As(err, &size):
		return class{v1.ReasonInvalidSpec, true}
	case errors.Is(err, volume.ErrOtherDisk), errors.Is(err, volume.ErrReplaced):
		return class{v1.ReasonAreaMissing, true}
	case errors.Is(err, volume.ErrDamaged), errors.Is(err, volume.ErrShrink):
		return class{v1.ReasonProvisionFailed, true}
	case errors.As(err, &foreign):
		return class{v1.ReasonForeignContent, true}
	case errors.As(err, &writer), errors.Is(err, volume.ErrInUse):
		return class{v1.ReasonInUse, false}
	default:
		return class{fallback, false}
	}
}

// full says whether a disk, or its quota, had no room. A volume that is being made has nothing in it: the disk has none then.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// classifyInitializer takes what failed for a clone, unless the initializer is, or may be, something else.
func classifyInitializer(err *initializer.Error, fallback string) class {
	failed := v1.ReasonCloneFailed
	if fallback == v1.ReasonInitializeFailed {
		failed = fallback
	}
	switch err.Kind {
	case initializer.Unauthorized:
		return class{v1.ReasonUnauthorized, true}
	case initializer.NotFound, initializer.Invalid:
		return class{failed, true}
	case initializer.Full:
		return class{v1.ReasonInsufficientCapacity, true}
	case initializer.Timeout:
		return class{v1.ReasonTimedOut, false}
	default:
		return class{failed, false}
	}
}

func permanent(err error) bool { return classify(err, "").permanent }

// report turns an error into a finding, and into a stall if only a person can mend it.
func (s *scope) report(err error, fallback string) *finding {
	c := classify(err, fallback)
	f := found(c.reason, "%s", clip(err.Error()+wayOut(err, s.status.Claim, s.status.NodeName != "")))
	if c.permanent {
		s.stalled = f
	}
	return f
}

// wayOut names the decision that only a person can take, where there is one. The claim is that of the content.
func wayOut(err error, claim int64, held bool) string {
	if incomplete, ok := errors.AsType[*content.IncompleteError](err); ok {
		return fmt.Sprintf("; set the annotation %s=%s to let the content go without them", v1.AnnotationAcceptIncomplete, incomplete.Backup)
	}
	if errors.Is(err, history.ErrFenced) && held {
		return fmt.Sprintf("; somebody else has written to the workspace's history in the store: stop the workspace and set the annotation %s=%d, "+
			"and the next start goes on from what is newest there", v1.AnnotationDiscard, claim)
	}
	return ""
}

// consent returns what a person has decided about a workspace.
func consent(ws *v1.Workspace) content.Consent {
	claim, err := strconv.ParseInt(ws.Annotations[v1.AnnotationDiscard], 10, 64)
	if err != nil {
		claim = 0
	}
	return content.Consent{Incomplete: ws.Annotations[v1.AnnotationAcceptIncomplete], Discard: claim}
}
