package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// stepTeardown lets a stopped or deleted workspace go, and ends the pass. Nothing here is decided by how much time has
// passed: a passed deadline is reported, and the content stays.
func (r *WorkspaceReconciler) stepTeardown(ctx context.Context, s *scope) (bool, error) {
	if s.wanted() {
		return false, nil
	}
	switch {
	case s.held(r.Node):
		return true, r.release(ctx, s)
	case s.status.NodeName == "", s.status.NodeName == s.ws.Spec.FencedNode:
		return true, r.released(ctx, s)
	default:
		s.ready = found(v1.ReasonWaitingForRelease, "node %s still holds the content", s.status.NodeName)
		return true, nil
	}
}

// farewell is the next step of a release.
type farewell string

const (
	farewellLost    farewell = "Lost"    // content that should be here is not
	farewellNothing farewell = "Nothing" // there is no finished content of ours
	farewellDone    farewell = "Done"    // the marker says that the content may go
	farewellDiscard farewell = "Discard" // it is given up
	farewellSave    farewell = "Save"    // it needs its final backup
)

// decideFarewell decides from the object and the disk alone.
func decideFarewell(s *scope) farewell {
	m := s.seen.Marker
	ours := s.seen.Finished() && m.Claim == s.status.Claim
	switch {
	case ours && m.Released != "":
		return farewellDone
	case s.lost() && !s.accepts(v1.AnnotationAcceptLost) && !s.discards():
		return farewellLost
	case !ours:
		return farewellNothing
	case s.lost(), s.discards():
		return farewellDiscard
	default:
		return farewellSave
	}
}

// discards says whether the spec, or a person, gives up what is unsaved.
func (s *scope) discards() bool {
	return s.accepts(v1.AnnotationDiscard) ||
		s.ws.Spec.Backup.OnStop == v1.StopDiscard ||
		(s.deleting() && s.ws.Spec.DeletionPolicy == v1.DeletionDelete)
}

// release brings the content to safety and gives the workspace up.
func (r *WorkspaceReconciler) release(ctx context.Context, s *scope) error {
	s.ready = stopping(s)
	switch decideFarewell(s) {
	case farewellLost:
		s.reportLost()
		return nil
	case farewellNothing:
		if r.busy(s) {
			return nil
		}
		s.final = found(v1.ReasonNothingToBackUp, "the content was never finished under claim %d", s.status.Claim)
		if s.lost() {
			s.final = found(v1.ReasonNothingToBackUp, "the loss of the content of claim %d was accepted", s.status.Claim)
		}
		s.giveUp()
		return nil
	case farewellDone:
		if last, ok := r.Jobs.State(s.key(v1.OperationFinalBackup)).Result.(attempt); ok {
			s.takeGit(last.result)
		}
		s.final = foundOK(v1.ReasonCommitted, "backup %s", s.seen.Marker.Released)
		if s.seen.Marker.Released == content.Discarded {
			s.final = found(v1.ReasonDiscarded, "unsaved changes were given up")
		}
		s.giveUp()
		return nil
	case farewellDiscard, farewellSave:
		return r.finalBackup(ctx, s)
	}
	return nil
}

// busy cancels work on content that is not wanted any more and waits for its end.
func (r *WorkspaceReconciler) busy(s *scope) bool {
	key, running := r.Jobs.Running(string(s.ws.UID))
	if !running {
		return false
	}
	r.Jobs.Cancel(key)
	s.final = found(v1.ReasonNothingToBackUp, "waiting for %s to end", key.Op)
	s.after(time.Second)
	return true
}

// giveUp clears the claim on the object. What is left on the disk goes once that is written.
func (s *scope) giveUp() {
	s.normal(v1.EventReleased, "Release", "node %s gave the workspace up: %s", s.status.NodeName, s.final.message)
	s.status.NodeName, s.status.NodeUID, s.status.AreaID = "", "", ""
	s.status.Volume, s.status.Operation = nil, nil
	s.ready = stopped(s)
}

// finalBackup waits for the pods, then has the content saved or given up.
func (r *WorkspaceReconciler) finalBackup(ctx context.Context, s *scope) error {
	pods, err := r.pods(ctx, r.Client, s.subject())
	if err != nil {
		return err
	}
	if len(pods) > 0 {
		return r.waitForPods(ctx, s, pods)
	}
	r.Jobs.Cancel(s.key(v1.OperationBackup)) // the final one saves everything that it would have saved
	job := task{v1.OperationFinalBackup, ClassFinal, r.Settings.Timeouts.Backup.Duration, r.save(s)}
	if decideFarewell(s) == farewellDiscard {
		if other, busy := r.Jobs.Running(string(s.ws.UID)); busy && other != s.key(v1.OperationDiscard) {
			r.Jobs.Cancel(other) // it may be what a person does not want to wait for
		}
		job.op = v1.OperationDiscard
		job.run = nothing(func(ctx context.Context) error { return r.Keeper.Discard(ctx, s.subject(), r.inUse(s.subject())) })
	}
	out := r.work(s, job)
	switch {
	case out.failed && errors.Is(out.err, content.ErrInUse):
		s.status.Operation.Attempts, s.status.Operation.LastFailure = 0, ""
		s.final = found(v1.ReasonWaitingForPods, "%s", clip(out.err.Error()))
	case out.failed:
		s.final = s.report(out.err, v1.ReasonUploadFailed)
		if s.final.reason == v1.ReasonFenced {
			s.stalled = found(s.final.reason, "%s", s.final.message)
		}
		s.final.message = s.sinceWhen(s.final.message)
	case out.done:
		s.after(0) // the marker says now that the content may go
		s.final = found(v1.ReasonBackingUp, "the final backup is being looked at")
	default:
		s.final = s.underWay(v1.ConditionFinalBackup, v1.ReasonBackingUp, "the final backup is being made")
	}
	return nil
}

// sinceWhen adds since when attempts fail and when the next one is.
func (s *scope) sinceWhen(message string) string {
	o := s.status.Operation
	if o == nil || o.NextAttempt == nil {
		return message
	}
	return message + " (attempt " + itoa(o.Attempts) + ", failing since " + stamp(o.StartedAt) + ", next attempt " + stamp(o.NextAttempt) + "; the content stays on the node)"
}

// waitForPods reports whom it waits for. After the deadline the content is saved as it is, and stays.
func (r *WorkspaceReconciler) waitForPods(ctx context.Context, s *scope, pods []string) error {
	began := s.began(v1.OperationFinalBackup)
	deadline := began.Add(r.Settings.Timeouts.Pods.Duration)
	s.final = found(v1.ReasonWaitingForPods, "pods %s still use the workspace since it was stopped at %s", list(pods), began.UTC().Format(time.DateTime))
	if _, err := r.stepBackup(ctx, s); err != nil {
		return err
	}
	if s.now.Before(deadline) {
		s.at(deadline)
		return nil
	}
	s.stalled = found(v1.ReasonPodsRemain, "pods %s have not ended within %s: delete them; the content stays until they are gone",
		list(pods), r.Settings.Timeouts.Pods.Duration)
	if lastLook(s).Before(deadline) && !s.seen.Journal.Backup.NextAttempt.After(s.now) {
		r.Jobs.Start(s.key(v1.OperationBackup), ClassBackup, r.Settings.Timeouts.Backup.Duration, r.backup(s))
	}
	return nil
}

// save returns the job that makes the final backup.
func (r *WorkspaceReconciler) save(s *scope) jobs.Func {
	request, before, about := saveRequest(s), s.seen.Journal, s.ws.DeepCopy()
	return func(ctx context.Context, report func(jobs.Progress)) (any, error) {
		request.Progress = func(files, bytes int64) { report(jobs.Progress{FilesDone: files, BytesDone: bytes}) }
		look := r.lookAtGit(ctx, about, request.Subject)
		_, err := r.Keeper.Release(ctx, request, r.inUse(request.Subject))
		r.tell(about, before)
		return look, err
	}
}

// released cleans up after a workspace that no node holds any more, and does what can be asked of a stopped one.
func (r *WorkspaceReconciler) released(ctx context.Context, s *scope) error {
	s.ready = stopped(s)
	if !r.removed(s) {
		return nil
	}
	if s.deleting() {
		return r.deleted(ctx, s)
	}
	keep := s.ws.Spec.DeletionPolicy == v1.DeletionDelete && s.status.Claim > 0
	if has := controllerutil.ContainsFinalizer(s.ws, v1.FinalizerContent); has != keep {
		return r.patchFinalizer(ctx, s.ws, keep)
	}
	r.rewind(s)
	return nil
}

// removed removes what lies on the disk. Content that was not released is saved first, see [content.Keeper.Remove].
func (r *WorkspaceReconciler) removed(s *scope) bool {
	if !s.seen.Exists() && s.seen.Journal.UID == "" {
		return true
	}
	out := r.work(s, task{v1.OperationRemove, ClassMaintain, r.Settings.Timeouts.Backup.Duration, r.remove(s.subject(), s.ws)})
	switch {
	case out.failed:
		f := s.report(out.err, v1.ReasonFailed)
		s.warning(v1.ReasonFailed, "Remove", "the volume cannot be removed: %s", f.message)
		s.leftBehind(f)
	case out.done:
		s.after(0) // look at what is left
	default:
		s.leftBehind(s.stalled)
	}
	return false
}

// leftBehind reports a volume that cannot be removed although no node holds it any more.
func (s *scope) leftBehind(f *finding) {
	if f != nil {
		s.stalled = f
		s.ready.message = "the volume cannot be removed: " + f.message
	}
}

// remove returns the job that removes a volume. The object is read from the API server first: a cache that is behind, as it
// may be after a start, must not cost anybody content that is in use. The job itself tells of a stray snapshot, since no
// pass may be left that would.
func (r *WorkspaceReconciler) remove(subject content.Subject, about *v1.Workspace) jobs.Func {
	about = about.DeepCopy()
	return func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		var ws v1.Workspace
		err := r.Reader.Get(ctx, types.NamespacedName{Namespace: subject.Namespace, Name: subject.Name}, &ws)
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		var decided content.Consent
		switch missing := err != nil || string(ws.UID) != subject.UID; {
		case missing:
			if err := r.confirmMissing(ctx, subject); err != nil { // the job may have waited for its turn
				return nil, err
			}
		case ws.Status.NodeName == r.Node:
			return nil, fmt.Errorf("workspace %s is held by this node after all: nothing is removed", subject)
		default:
			decided = consent(&ws)
		}
		stray, err := r.Keeper.Remove(ctx, subject, decided, r.inUse(subject))
		if stray != "" {
			r.Recorder.Eventf(about, nil, corev1.EventTypeWarning, v1.EventStraySnapshot, "Remove",
				"node %s had content that no backup has; it was kept as snapshot %s", r.Node, stray)
		}
		return nil, err
	}
}

// deleted lets the object go, after a tombstone if its backups shall go, too.
func (r *WorkspaceReconciler) deleted(ctx context.Context, s *scope) error {
	if s.ws.Spec.DeletionPolicy == v1.DeletionDelete && s.status.Claim > 0 {
		out := r.work(s, task{v1.OperationBury, ClassMaintain, r.Settings.Timeouts.Store.Duration, nothing(func(ctx context.Context) error {
			return r.Keeper.Bury(ctx, s.subject())
		})})
		switch {
		case out.failed:
			s.reportUnburied(s.report(out.err, v1.ReasonFailed))
		case !out.done && s.stalled != nil:
			s.ready = found(v1.ReasonDeleting, "%s", s.stalled.message)
		}
		if !out.done {
			return nil
		}
	}
	r.memory.forget(s.ws.UID)
	r.Jobs.ForgetUID(string(s.ws.UID))
	return r.patchFinalizer(ctx, s.ws, false)
}

// reportUnburied says why the stored backups cannot be marked for removal, and what else can be done.
func (s *scope) reportUnburied(f *finding) {
	s.ready = found(v1.ReasonDeleting, "%s", f.message)
	s.stalled = &finding{reason: f.reason, message: f.message + "; set spec.deletionPolicy to Retain to let the object go and keep its backups"}
}

// rewind honours a request to go back in time, once, while no node holds the content.
func (r *WorkspaceReconciler) rewind(s *scope) {
	want := s.ws.Spec.Restore
	if want == nil || (s.status.Restore != nil && s.status.Restore.Request == want.Request) {
		return
	}
	out := r.work(s, task{v1.OperationRewind, ClassMaintain, r.Settings.Timeouts.Store.Duration, func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		return r.Keeper.Rewind(ctx, s.subject(), string(want.Backup), want.Request)
	}})
	switch {
	case out.failed:
		s.stalledOnly(s.report(out.err, v1.ReasonRestoreFailed))
	case out.done:
		rewound, _ := out.result.(content.Rewound)
		s.status.Restore = &v1.RestoreStatus{
			Request: want.Request, Backup: want.Backup, Pinned: v1.BackupName(rewound.Newest), PinnedSnapshotID: rewound.PinID,
		}
		s.normal(v1.EventRestored, "Rewind", "the next start restores backup %s", want.Backup)
		if rewound.Damage != "" {
			s.warning(v1.EventRestored, "Rewind", "what is newest could not be pinned before going back: %s", clip(rewound.Damage))
		}
	}
}

// stalledOnly reports a failure that leaves the workspace stopped.
func (s *scope) stalledOnly(f *finding) {
	s.stalled = f
	s.ready = found(v1.ReasonStopped, "%s", f.message)
}

func stopping(s *scope) *finding {
	if s.deleting() {
		return found(v1.ReasonDeleting, "the content is being brought to safety")
	}
	return found(v1.ReasonStopping, "the content is being backed up")
}

func stopped(s *scope) *finding {
	if s.deleting() {
		return found(v1.ReasonDeleting, "no node holds the content")
	}
	if latest := s.status.Backup; latest != nil && latest.Latest != nil {
		return found(v1.ReasonStopped, "the next start restores backup %s", nextBackup(s))
	}
	return found(v1.ReasonStopped, "no node holds the content")
}

func nextBackup(s *scope) v1.BackupName {
	if s.rewinds() {
		return s.status.Restore.Backup
	}
	return s.status.Backup.Latest.Name
}
