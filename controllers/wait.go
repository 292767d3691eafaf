package controllers

import (
	"time"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// turnInterval is how often a job is looked at that waits for its turn.
const turnInterval = 30 * time.Second

// lookAtWait takes note of a store that keeps a job of the workspace waiting: it is asked again for minutes before the job fails.
func (r *WorkspaceReconciler) lookAtWait(s *scope, job jobs.State) {
	s.after(lookInterval(job))
	s.wait = r.waitOf(string(s.ws.UID), job)
}

// lookInterval is the time until the next look at whether the store keeps a job waiting: what is said of that must not stay when it is over.
func lookInterval(job jobs.State) time.Duration {
	if job.Phase == jobs.Queued {
		return turnInterval
	}
	return progressInterval
}

// waitOf returns what a job of a workspace waits for at the store. A job whose turn has not come, or that is nobody's, waits for the
// store as long as that answers nobody.
func (r *WorkspaceReconciler) waitOf(uid string, job jobs.State) *store.Wait {
	if job.Phase == jobs.Queued || uid == "" {
		return r.Waits.Any()
	}
	wait := r.Waits.Of(uid)
	if wait == nil && r.Keeper.Memory.Waiting(uid) > 0 { // those who have it may wait for the store
		return r.Waits.Any()
	}
	return wait
}

// underWay reports work that has not ended, and the store if that keeps it waiting. While earlier attempts have failed, what the
// condition said of them stays visible.
func (s *scope) underWay(kind, reason, message string) *finding {
	if o := s.status.Operation; o != nil && o.Attempts > 0 {
		if f := s.before(kind); f != nil {
			return f
		}
	}
	return keptWaiting(found(reason, "%s", message), s.wait)
}

// keptWaiting returns what is said of work that the store keeps waiting.
func keptWaiting(f *finding, wait *store.Wait) *finding {
	if wait == nil {
		return f
	}
	return &finding{ok: f.ok, reason: v1.ReasonStoreUnavailable, message: naming(f.message, wait)}
}

// naming adds to what is said of something what that waits for.
func naming(message string, wait *store.Wait) string { return clip(message + "; " + wait.String()) }
