// Package persist keeps serving what cannot be served for a while.
package persist

import (
	"context"
	"time"
)

// Serve calls serve until ctx ends, and again, after a pause, when it has failed. failed is told of an error that says something else than
// the one before, and of the same again if serve went well for longer than a pause in between: that one was over.
func Serve(ctx context.Context, pause time.Duration, serve func() error, failed func(error)) {
	for said := ""; ; {
		began := time.Now()
		err := serve()
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > pause {
			said = ""
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
