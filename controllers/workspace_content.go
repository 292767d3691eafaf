package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// stepContent fills the workspace under the current claim, or lets users at content that is there.
func (r *WorkspaceReconciler) stepContent(_ context.Context, s *scope) (bool, error) {
	if s.usable() {
		r.filled(s)
		r.Jobs.Forget(s.key(v1.OperationFinalBackup)) // of a stop that was taken back
		return false, nil
	}
	op := fillOperation(s)
	out := r.work(s, task{op, fillClass(op), r.Settings.Timeouts.Initialize.Duration, r.fill(s)})
	switch {
	case out.failed && errors.Is(out.err, history.ErrFenced):
		// The store knows a newer claim, and nothing was made under ours: claim anew, above it.
		s.status.NodeName, s.status.NodeUID, s.status.AreaID = "", "", ""
		s.content = s.report(out.err, v1.ReasonFenced)
	case out.failed:
		s.content = s.report(out.err, fallbackReason(op, s))
	case out.done:
		s.after(0) // look at what there is now
		s.content = found(v1.ReasonInitializing, "the content is being looked at")
	default:
		s.content = filling(op, s)
	}
	return true, nil
}

// usable says whether users can work on content of the current claim.
func (s *scope) usable() bool {
	m := s.seen.Marker
	return s.seen.Finished() && m.Claim == s.status.Claim && m.Released == "" && s.seen.Position == volume.Published
}

// filled takes what the marker says into the status, once for each claim.
func (r *WorkspaceReconciler) filled(s *scope) {
	if s.status.Content != nil && s.status.Content.Claim == s.status.Claim {
		return
	}
	s.status.Content = contentStatus(s)
	m := s.seen.Marker.Content
	if m.Commit != "" {
		s.status.Git = &v1.GitStatus{Branch: m.Branch, Commit: m.Commit}
	}
	switch v1.ContentSource(m.Source) {
	case v1.SourceBackup:
		s.normal(v1.EventRestored, "Restore", "backup %s was %s: %d files, %d bytes%s", m.Backup, how(m), m.Files, m.Bytes, whyRestored(m))
	case v1.SourceSnapshot:
		s.normal(v1.EventRestored, "Restore", "snapshot %s was %s: %d files, %d bytes%s", m.SnapshotID, how(m), m.Files, m.Bytes, whyRestored(m))
	case v1.SourceAdopted:
		s.normal(v1.EventAdopted, "Adopt", "content on the node equals backup %s and was kept", m.Backup)
	case v1.SourceEmpty, v1.SourceGit, v1.SourcePrebuild, v1.SourceDownload, v1.SourceComposite:
		s.normal(v1.EventInitialized, "Initialize", "new content is ready (%s): %d files, %d bytes", m.Source, m.Files, m.Bytes)
		for i, step := range m.Steps {
			// Of events that differ in nothing but their words, the recorder tells the first alone: each step has an action of its own.
			s.normal(v1.EventInitialized, fmt.Sprintf("InitializeStep%d", i+1), "step %d of %d, %s", i+1, len(m.Steps), sayStep(step))
		}
	}
}

// sayStep sums a step of an initializer up, for an event.
func sayStep(step volume.Step) string {
	text := step.Source
	if step.From != "" {
		text += " " + step.From
	}
	if step.Message != "" {
		return text + ": " + step.Message
	}
	text += fmt.Sprintf(": %d files, %d bytes in %s", step.Files, step.Bytes, step.Duration.Round(time.Millisecond))
	switch {
	case step.Branch != "" && step.Commit != "":
		text += fmt.Sprintf(", branch %s at %.12s", step.Branch, step.Commit)
	case step.Commit != "":
		text += fmt.Sprintf(", commit %.12s", step.Commit)
	}
	return text
}

// how says in which way content came that the store has.
func how(m *volume.Content) string {
	if m.Cloned {
		return "cloned from a template on the node"
	}
	return "restored"
}

// whyRestored says why a template could not be used, if there was one.
func whyRestored(m *volume.Content) string {
	if m.NotCloned == "" {
		return ""
	}
	return " (it could not be cloned: " + m.NotCloned + ")"
}

func contentStatus(s *scope) *v1.ContentStatus {
	m := s.seen.Marker.Content
	status := &v1.ContentStatus{
		Claim: s.status.Claim, Source: v1.ContentSource(m.Source), Backup: v1.BackupName(m.Backup), SnapshotID: m.SnapshotID,
		Files: m.Files, Bytes: m.Bytes, Duration: durationOf(m.Duration),
	}
	for _, step := range m.Steps {
		status.Steps = append(status.Steps, v1.InitializerReport{
			Source: v1.ContentSource(step.Source), From: step.From, Commit: step.Commit, Files: step.Files, Bytes: step.Bytes,
			Duration: durationOf(step.Duration), Message: step.Message,
		})
	}
	return status
}

// fillOperation names the work for people: what will really be done is decided from what the store has.
func fillOperation(s *scope) v1.OperationType {
	switch {
	case s.seen.Finished():
		return v1.OperationAdopt
	case s.status.Backup != nil && s.status.Backup.Latest != nil, s.ws.Spec.Initializer.Snapshot != nil, s.ws.Spec.Initializer.Backup != nil:
		return v1.OperationRestore
	default:
		return v1.OperationInitialize
	}
}

// fillClass is the class of a job that fills a workspace.
func fillClass(op v1.OperationType) jobs.Class {
	if op == v1.OperationInitialize {
		return ClassInitialize
	}
	return ClassRestore
}

func fallbackReason(op v1.OperationType, s *scope) string {
	switch {
	case op != v1.OperationInitialize:
		return v1.ReasonRestoreFailed
	case s.ws.Spec.Initializer.Git != nil, s.ws.Spec.Initializer.Prebuild != nil:
		return v1.ReasonCloneFailed
	default:
		return v1.ReasonInitializeFailed
	}
}

// filling reports work under way.
func filling(op v1.OperationType, s *scope) *finding {
	if op == v1.OperationInitialize {
		return s.underWay(v1.ConditionContentReady, v1.ReasonInitializing, "the initializer is at work")
	}
	return s.underWay(v1.ConditionContentReady, v1.ReasonRestoring, "content is being restored")
}

// stillStalled keeps the last report of a stall while nothing has changed.
func (s *scope) stillStalled() *finding {
	c := s.condition(v1.ConditionStalled)
	if c == nil || s.edited() {
		return nil
	}
	return found(c.Reason, "%s", c.Message)
}

// fillRequest says what the workspace is to be filled with.
func (r *WorkspaceReconciler) fillRequest(s *scope) content.FillRequest {
	ws := s.ws.DeepCopy()
	request := content.FillRequest{
		Subject:  s.subject(),
		Owner:    uint32(ws.Spec.Owner.UID),
		Group:    uint32(ws.Spec.Owner.GID),
		Size:     ws.Spec.Volume.Size.Value(),
		Expected: expected(s.status),
		InUse:    r.inUse(s.subject()),
		Consent:  consent(ws),

		Initializer: r.initializer(ws),
	}
	if n := ws.Spec.Volume.Inodes; n != nil {
		request.Inodes = *n
	}
	if s.rewinds() {
		request.Rewind, request.RewindSince = string(s.status.Restore.Backup), s.status.Restore.Claim
	}
	return request
}

// fill returns the job that brings the content.
func (r *WorkspaceReconciler) fill(s *scope) jobs.Func {
	ws, request := s.ws.DeepCopy(), r.fillRequest(s)
	return func(ctx context.Context, report func(jobs.Progress)) (any, error) {
		request.Progress = func(files, bytes int64) { report(jobs.Progress{FilesDone: files, BytesDone: bytes}) }
		stray, err := r.Keeper.Fill(ctx, request)
		if stray != "" {
			r.Recorder.Eventf(ws, nil, corev1.EventTypeWarning, v1.EventStraySnapshot, "Adopt",
				"node %s had content of an earlier stay that no backup has; it was kept as snapshot %s", r.Node, stray)
		}
		return nil, err
	}
}

// rewinds says whether a request to go back in time has been accepted and no content been made of it yet.
func (s *scope) rewinds() bool {
	restore, content := s.status.Restore, s.status.Content
	return restore != nil && (restore.Claim == 0 || content == nil || content.Claim < restore.Claim)
}

// initializer translates the spec's initializer. Secrets and snapshots are read when, and only when, they are needed.
func (r *WorkspaceReconciler) initializer(ws *v1.Workspace) content.Initializer {
	spec := ws.Spec.Initializer
	if spec.Backup != nil {
		return content.Initializer{Backup: true}
	}
	init := r.step(ws, v1.InitializerStep{Git: spec.Git, Snapshot: spec.Snapshot, Prebuild: spec.Prebuild, Download: spec.Download})
	for _, step := range spec.Composite {
		init.Steps = append(init.Steps, r.step(ws, step))
	}
	return init
}

func (r *WorkspaceReconciler) step(ws *v1.Workspace, spec v1.InitializerStep) content.Initializer {
	switch {
	case spec.Git != nil:
		return r.repository(ws, spec.Git)
	case spec.Download != nil:
		d := spec.Download
		return content.Initializer{
			Download:    &initializer.DownloadSpec{URL: d.URL, Path: d.Path, Digest: d.Digest, Unpack: d.Unpack},
			Credentials: r.credentials(ws, d.AuthSecretRef, d.URL),
		}
	case spec.Snapshot != nil:
		return content.Initializer{SnapshotID: func(ctx context.Context) (string, error) {
			return r.snapshotID(ctx, ws.Namespace, spec.Snapshot)
		}}
	case spec.Prebuild != nil:
		return r.prebuild(ws, spec.Prebuild)
	}
	return content.Initializer{}
}

func (r *WorkspaceReconciler) repository(ws *v1.Workspace, g *v1.GitInitializer) content.Initializer {
	return content.Initializer{Git: gitSpec(g), Credentials: r.credentials(ws, g.AuthSecretRef, g.URL)}
}

func (r *WorkspaceReconciler) prebuild(ws *v1.Workspace, p *v1.PrebuildInitializer) content.Initializer {
	prebuild := &content.Prebuild{SnapshotID: func(ctx context.Context) (string, error) {
		id, err := r.snapshotID(ctx, ws.Namespace, &p.Snapshot)
		if missing, ok := errors.AsType[*specError](err); ok && missing.reason == v1.ReasonNoBackup {
			return "", &content.NoBackupError{Wanted: "Snapshot " + p.Snapshot.Name} // that is no reason not to start
		}
		return id, err
	}}
	for i := range p.Git {
		prebuild.Repositories = append(prebuild.Repositories, r.repository(ws, &p.Git[i]))
	}
	return content.Initializer{Prebuild: prebuild}
}

func gitSpec(g *v1.GitInitializer) *initializer.GitSpec {
	spec := &initializer.GitSpec{
		URL: g.URL, CheckoutLocation: g.CheckoutLocation, Filter: g.Filter, Sparse: g.Sparse, Submodules: g.Submodules, LFS: g.LFS,
	}
	if g.Depth != nil {
		spec.Depth = int(*g.Depth)
	}
	if t := g.Target; t != nil {
		spec.Branch, spec.LocalBranch, spec.Commit = t.Branch, t.LocalBranch, t.Commit
	}
	return spec
}

// snapshotID finds the id of a snapshot that is named by its object.
func (r *WorkspaceReconciler) snapshotID(ctx context.Context, namespace string, ref *v1.SnapshotInitializer) (string, error) {
	if ref.ID != "" {
		return ref.ID, nil
	}
	var snapshot v1.Snapshot
	err := r.Reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, &snapshot)
	if apierrors.IsNotFound(err) {
		return "", &specError{v1.ReasonNoBackup, fmt.Sprintf("there is no Snapshot %s/%s: create it, or name a snapshot of the store by id", namespace, ref.Name)}
	}
	if err != nil {
		return "", err
	}
	if snapshot.Status.Backup == "" {
		return "", fmt.Errorf("snapshot %s/%s is not ready yet", namespace, ref.Name)
	}
	return snapshot.Status.SnapshotID, nil
}
