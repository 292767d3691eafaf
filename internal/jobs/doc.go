// Package jobs runs work that takes too long for a reconcile loop.
//
// A job is known by its [Key]: the UID of the workspace and the operation. A UID has at most one job that is queued or
// running; each [Class] has a limit of jobs that run at the same time, the others wait in the order in which they came.
// What a job returned is kept until it is acknowledged with [Manager.Forget], so that a reconcile that fails half-way
// finds it again.
//
// Jobs never run on a caller's context: that of a reconcile ends with the reconcile, while the job goes on.
package jobs
