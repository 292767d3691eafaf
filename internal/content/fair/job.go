// Package fair shares what a node has little of between the workspaces that want it.
//
// Who asks is in the context: [With] names the workspace and says whether somebody waits for it. A [Queue] shares a number of
// equal things, as requests or bytes of memory, a [Pace] the bytes that go over the network in a second.
package fair

import "context"

// Priority says how much somebody waits for a job.
type Priority int

const (
	// Background is work that nobody waits for: periodic backups, tending the store.
	Background Priority = iota
	// Urgent is what a person waits for: filling a workspace, and letting it go.
	Urgent
)

// job is on whose behalf something is asked for. The zero value is the daemon's own work.
type job struct {
	workspace string
	priority  Priority
}

type jobKey struct{}

// With returns a context whose requests are those of a workspace. All that has the same name shares what one gets.
func With(ctx context.Context, workspace string, p Priority) context.Context {
	return context.WithValue(ctx, jobKey{}, job{workspace, p})
}

// Workspace returns the name that With was given; "" if nobody was named.
func Workspace(ctx context.Context) string { return jobOf(ctx).workspace }

func jobOf(ctx context.Context) job {
	j, _ := ctx.Value(jobKey{}).(job)
	return j
}
