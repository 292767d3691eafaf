package server

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/logs"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// refuse says what is wrong with a request.
func refuse(text string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, text, args...)
}

// ended is the error of a call whose time is over: why it is, unless the handler had something better to say.
func ended(cause, err error) error {
	own, ok := status.FromError(err)
	late := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if ok && !late && own.Code() != codes.Unknown {
		return err
	}
	return cause
}

// answer is the error that a caller gets: with a code, and without secrets.
func answer(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return status.Error(s.Code(), clean(s.Message()))
	}
	return status.Error(codeOf(err), clean(err.Error()))
}

// clean takes secrets out of a text, and keeps it short: headers carry it.
func clean(text string) string {
	const longest = 4096
	text = string(logs.Redact([]byte(text)))
	return strings.ToValidUTF8(text[:min(len(text), longest)], "\uFFFD")
}

// codeOf says what an error of the engine, or of the API server, means to a caller.
func codeOf(err error) codes.Code {
	var (
		absent  *content.AbsentError
		path    *archive.PathError
		damaged *content.DamagedError
		store   *content.StoreError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, jobs.ErrShuttingDown), errors.As(err, &store):
		return codes.Unavailable
	case errors.Is(err, jobs.ErrTimeout), errors.Is(err, jobs.ErrCancelled):
		return codes.Aborted
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.As(err, &absent), errors.As(err, &path):
		return codes.NotFound
	case errors.As(err, &damaged), errors.Is(err, format.ErrDamaged), errors.Is(err, history.ErrDamaged):
		return codes.DataLoss
	case hindered(err):
		return codes.FailedPrecondition
	default:
		return codeOfAPI(err)
	}
}

// hindered says whether something stands in the way that somebody has to change.
func hindered(err error) bool {
	var (
		incomplete *content.IncompleteError
		none       *content.NoBackupError
		escaped    *volume.EscapedError
	)
	for _, hindrance := range []error{
		history.ErrFenced, history.ErrOtherCluster, format.ErrKey, content.ErrNotOurs, content.ErrUnknownClass, content.ErrInUse,
		volume.ErrReadOnly, volume.ErrCapacity, volume.ErrOtherDisk,
	} {
		if errors.Is(err, hindrance) {
			return true
		}
	}
	return errors.As(err, &incomplete) || errors.As(err, &none) || errors.As(err, &escaped)
}

func codeOfAPI(err error) codes.Code {
	switch {
	case apierrors.IsNotFound(err):
		return codes.NotFound
	case apierrors.IsAlreadyExists(err):
		return codes.AlreadyExists
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return codes.InvalidArgument
	case apierrors.IsForbidden(err):
		return codes.FailedPrecondition // the daemon's rights, not the caller's
	default:
		// What is left are answers that the store or the API server owes.
		return codes.Unavailable
	}
}
