// Package persist keeps serving what cannot be served for a while.
package persist

import (
	"context"
	"time"
)

// Serve calls serve until ctx ends, and again, after a pause, when it has failed. failed is told of an error that says something else than
// the one before.
func Serve(ctx context.Context, pause time.Duration, serve func() error, failed func(error)) {
	for said := ""; ; {
		err := serve()
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
