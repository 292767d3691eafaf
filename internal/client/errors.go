package client

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes of client commands.
const (
	// CodeFailed is any failure without a code of its own.
	CodeFailed = 1
	// CodeUsage means that the command line is wrong.
	CodeUsage = 2
	// CodeIncomplete means that a backup was made, but some files could not be read.
	CodeIncomplete = 3
	// CodeNotFound means that there is no such workspace on the node, or no such backup, snapshot or file.
	CodeNotFound = 4
	// CodeDenied means that the daemon does not know the caller, or does not let it do that.
	CodeDenied = 5
	// CodeTimedOut means that --timeout, or the daemon's own deadline, has passed.
	CodeTimedOut = 6
	// CodeUnavailable means that the daemon cannot be reached, is ending, has too much to do, or gets no answer from the store: it may
	// help to try again.
	CodeUnavailable = 7
	// CodeInterrupted means that the command was interrupted, as shells count it.
	CodeInterrupted = 130
)

// Error is why a command failed, in one line, and the exit code for it.
type Error struct {
	Code    int
	Message string
}

// Error is the line.
func (e *Error) Error() string { return e.Message }

// ExitCode is the exit code of the process.
func (e *Error) ExitCode() int { return e.Code }

// Usage returns an error of somebody who called a command wrongly.
func Usage(format string, args ...any) error {
	return &Error{CodeUsage, fmt.Sprintf(format, args...)}
}

// explain makes an error for people of what a call to the daemon ended with. It leaves others as they are.
func (c *Client) explain(ctx context.Context, err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := Printable(s.Message())
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &Error{CodeInterrupted, "interrupted"}
	case late(ctx, s.Code()):
		return &Error{CodeTimedOut, "it takes longer than --timeout; what was begun goes on"}
	}
	if cause, broken := connectionError(s); broken {
		return c.unreachable(cause)
	}
	return &Error{exitCode(s.Code()), text}
}

// late says whether the time is over that the caller gave. The daemon knows of it, and may be a moment quicker to say so.
func late(ctx context.Context, code codes.Code) bool {
	const moment = 100 * time.Millisecond
	end, limited := ctx.Deadline()
	return errors.Is(ctx.Err(), context.DeadlineExceeded) || limited && code == codes.DeadlineExceeded && time.Until(end) < moment
}

func exitCode(code codes.Code) int {
	switch code {
	case codes.InvalidArgument:
		return CodeUsage
	case codes.NotFound:
		return CodeNotFound
	case codes.PermissionDenied, codes.Unauthenticated:
		return CodeDenied
	case codes.DeadlineExceeded:
		return CodeTimedOut
	case codes.Unavailable, codes.ResourceExhausted:
		return CodeUnavailable
	default:
		return CodeFailed
	}
}

// ofConnection is how the library tells why there is no connection: with words of its own around the cause.
var ofConnection = regexp.MustCompile(`^(?:connection error: desc = "(.*)"|(error reading (?:from server|server preface): .*|closing transport due to: .*|(?:read|write) (?:tcp|unix) .*))$`)

// connectionError returns why there is no connection to the daemon, or why it broke; false if the daemon itself has answered.
func connectionError(s *status.Status) (string, bool) {
	m := ofConnection.FindStringSubmatch(s.Message())
	if s.Code() != codes.Unavailable || m == nil {
		return "", false
	}
	cause := strings.ReplaceAll(m[1]+m[2], `\"`, `"`)
	for _, prefix := range []string{"transport: ", "Error while dialing: ", "authentication handshake failed: ", "error reading server preface: ", "error reading from server: "} {
		cause = strings.TrimPrefix(cause, prefix)
	}
	return cause, true
}

// unreachable says what to do about a daemon that cannot be reached.
func (c *Client) unreachable(cause string) error {
	code, advice := CodeUnavailable, "is it running on this node? kubectl -n ws-daemon-system get pods -o wide"
	switch {
	case strings.Contains(cause, "remote error: tls: "):
		code, advice = CodeDenied, "it does not accept the certificate of --cert: it must be valid now, and of an authority in service.clientCAFile of the daemon's configuration"
	case strings.Contains(cause, "x509: "):
		advice = "its certificate is not the one that --ca and --server-name expect"
	case strings.HasSuffix(cause, "permission denied"):
		code, advice = CodeDenied, "the socket is for root of the node"
	case strings.HasSuffix(cause, "no such file or directory"):
		advice = "is it running on this node, and is that service.socket of its configuration?"
	case cause == "EOF" || strings.HasSuffix(cause, "broken pipe") || strings.HasSuffix(cause, "connection reset by peer") || strings.Contains(cause, "closing transport"):
		advice = "it may be restarting: try again"
	}
	return &Error{code, fmt.Sprintf("the daemon at %s cannot be reached: %s: %s", c.address, Printable(cause), advice)}
}
