package controllers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// stepSpec refuses what this daemon cannot do. A workspace that it holds all the same can still be stopped.
func (r *WorkspaceReconciler) stepSpec(_ context.Context, s *scope) (bool, error) {
	refused := decideClass(s.ws.Spec.Volume, r.Settings)
	if refused == nil || !s.wanted() {
		return false, nil
	}
	s.volume, s.stalled = refused, refused
	return true, nil
}

// decideClass says why a volume cannot be had from this node's configuration; nil if it can.
func decideClass(spec v1.VolumeSpec, settings Settings) *finding {
	class, known := settings.Classes[spec.Class]
	switch {
	case !known:
		names := make([]string, 0, len(settings.Classes))
		for name := range settings.Classes {
			names = append(names, name)
		}
		slices.Sort(names)
		return found(v1.ReasonUnknownClass, "this node offers no volume class %q, only %s: "+
			"add it to volumes.classes of the daemon's configuration or create the workspace with another class", spec.Class, list(names))
	case !class.CanLimit() && !class.AllowUnlimited:
		return found(v1.ReasonQuotaUnsupported, "the driver %q of class %q cannot limit a volume to %s: "+
			"use a class that can, or set allowUnlimited for this one", class.Driver, spec.Class, spec.Size.String())
	default:
		return nil
	}
}

// takeOver says why the node has to claim the workspace, or what it waits for.
type takeOver struct {
	claim bool
	wait  *finding
	why   string // for the event
}

// decideClaim decides from the object and the disk alone.
func decideClaim(s *scope, node string) takeOver {
	holder := s.status.NodeName
	switch {
	case holder == "":
		return takeOver{claim: true}
	case holder == node && s.status.AreaID != s.area:
		return takeOver{claim: true, why: "the node has a new disk; changes since the last backup" + since(s.status.Backup) + " are lost"}
	case holder == node && s.lost() && s.accepts(v1.AnnotationAcceptLost):
		return takeOver{claim: true, why: "the loss of the content was accepted; changes since the last backup" + since(s.status.Backup) + " are lost"}
	case holder == node && s.seen.Marker.Claim > s.status.Claim:
		return takeOver{claim: true, why: "the content on the node has a newer claim than the object"}
	case holder == node:
		return takeOver{}
	case holder == s.ws.Spec.FencedNode:
		return takeOver{claim: true, why: "node " + holder + " is fenced; its changes since the last backup" + since(s.status.Backup) + " come back as a stray snapshot if it does"}
	default:
		return takeOver{wait: found(v1.ReasonWaitingForRelease, "node %s still holds the content", holder)}
	}
}

func since(b *v1.BackupStatus) string {
	if b == nil || b.Latest == nil {
		return " (there is none)"
	}
	return fmt.Sprintf(" (%s of %s)", b.Latest.Name, b.Latest.Time.UTC().Format("2006-01-02 15:04:05"))
}

// lost says whether content that was ready under this claim is not on the disk.
func (s *scope) lost() bool {
	ready := s.status.Content != nil && s.status.Content.Claim == s.status.Claim && s.status.Claim > 0
	if !ready || s.seen.Marker.Claim > s.status.Claim {
		return false
	}
	return !s.seen.Finished() || s.seen.Position == ""
}

// accepts says whether a person's annotation names the current claim.
func (s *scope) accepts(annotation string) bool {
	return s.ws.Annotations[annotation] == strconv.FormatInt(s.status.Claim, 10)
}

// stepClaim takes the workspace over by one compare-and-swap write of the status, after asking the store which claims it
// has seen.
func (r *WorkspaceReconciler) stepClaim(ctx context.Context, s *scope) (bool, error) {
	t := decideClaim(s, r.Node)
	if t.wait != nil {
		s.ready = t.wait
		return true, nil
	}
	if !t.claim {
		return false, nil
	}
	out := r.work(s, task{v1.OperationClaim, ClassMaintain, r.Settings.Timeouts.Store.Duration, func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		return r.Keeper.NewestClaim(ctx, s.subject())
	}})
	switch {
	case out.failed:
		s.content = s.report(out.err, v1.ReasonStoreUnavailable)
	case !out.done:
		s.quiet = r.hasJustBegun(s, v1.OperationClaim)
		s.content = claiming(s)
	default:
		newest, _ := out.result.(int64)
		return true, r.claim(ctx, s, newest, t.why)
	}
	return true, nil
}

// claiming reports that the store is being asked. What was said before stays meanwhile, unless that is a store that was waited for.
func claiming(s *scope) *finding {
	asking := s.underWay(v1.ConditionContentReady, v1.ReasonPending, "asking the store for the newest claim")
	before := s.before(v1.ConditionContentReady)
	if s.wait != nil || before == nil || before.reason == v1.ReasonStoreUnavailable {
		return asking
	}
	return before
}

// hasJustBegun says whether a job is so young that its end is likely to be the next thing to report.
func (r *WorkspaceReconciler) hasJustBegun(s *scope, op v1.OperationType) bool {
	const moment = time.Second
	job := r.Jobs.State(s.key(op))
	if job.Phase == jobs.None || s.now.Sub(job.Queued) > moment {
		return false
	}
	s.after(moment)
	return true
}

// claim writes the claim into the status; the API server lets one node through.
func (r *WorkspaceReconciler) claim(ctx context.Context, s *scope, newest int64, why string) error {
	uid, err := r.nodeUID(ctx)
	if err != nil {
		return err
	}
	claim := max(s.status.Claim, newest) + 1
	if own := s.seen.Marker; own.Claim == newest && own.Claim > s.status.Claim && own.Area == s.area && s.seen.Finished() {
		claim = own.Claim // the store agrees that nobody came after us: the object is an old copy
		s.status.Content = contentStatus(s)
		s.status.Content.Claim = claim
	}
	s.status.NodeName, s.status.NodeUID, s.status.AreaID, s.status.Claim = r.Node, uid, s.area, claim
	s.status.Volume = nil
	if restore := s.status.Restore; restore != nil && restore.Claim == 0 {
		restore.Claim = claim // it stays the first that was asked, however many attempts it takes
	}
	s.volume = found(v1.ReasonProvisioning, "the volume is being made")
	if why != "" {
		s.warning(v1.EventClaimed, "Claim", "node %s holds the workspace under claim %d: %s", r.Node, claim, why)
	} else {
		s.normal(v1.EventClaimed, "Claim", "node %s holds the workspace under claim %d", r.Node, claim)
	}
	return nil
}

// nodeUID returns the UID of this node's object; a daemon outside a real node has none.
func (r *WorkspaceReconciler) nodeUID(ctx context.Context) (string, error) {
	var node metav1.PartialObjectMetadata
	node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	err := r.Reader.Get(ctx, client.ObjectKey{Name: r.Node}, &node)
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	return string(node.UID), err
}

// stepFinalizer makes sure that the object stays until its content is safe. It comes after the claim, so that an object which
// no node has touched can always be deleted, and before anything is created.
func (r *WorkspaceReconciler) stepFinalizer(ctx context.Context, s *scope) (bool, error) {
	if controllerutil.ContainsFinalizer(s.ws, v1.FinalizerContent) {
		return false, nil
	}
	s.content = s.before(v1.ConditionContentReady)
	return true, r.patchFinalizer(ctx, s.ws, true)
}

// stepVolume makes the volume, and says so when content that should be there is not.
func (r *WorkspaceReconciler) stepVolume(_ context.Context, s *scope) (bool, error) {
	if s.lost() {
		s.reportLost()
		return true, nil
	}
	if s.provisioned() {
		return false, nil
	}
	size, inodes, request := s.ws.Spec.Volume.Size.Value(), s.wantedInodes(), r.fillRequest(s)
	out := r.work(s, task{v1.OperationProvision, ClassMaintain, r.Settings.Timeouts.Remove.Duration, nothing(func(ctx context.Context) error {
		return r.Keeper.Prepare(ctx, request, size, inodes)
	})})
	switch {
	case s.usable():
		s.reportGrowing(out)
		return false, nil // users go on working
	case out.failed:
		s.volume = s.report(out.err, v1.ReasonProvisionFailed)
	case out.done:
		s.after(0) // look at what there is now
		s.volume = found(v1.ReasonProvisioning, "the volume is being made")
	default:
		s.volume = found(v1.ReasonProvisioning, "the volume is being made")
		if o := s.status.Operation; o != nil && o.Attempts > 0 {
			s.volume = orElse(s.before(v1.ConditionVolumeReady), s.volume)
		}
	}
	return true, nil
}

// provisioned says whether the volume is there, marked, as large as the spec wants, and limited to that if it can be.
func (s *scope) provisioned() bool {
	v := s.seen.Volume
	return s.seen.Exists() && s.seen.Marker.UID != "" && v.Size >= s.ws.Spec.Volume.Size.Value() && v.Inodes == s.wantedInodes() && !s.unbound()
}

// unbound says whether there is a volume that should be limited and is not.
func (s *scope) unbound() bool { return s.limitable && s.seen.Exists() && !s.seen.Volume.Limited }

// wantedInodes returns the limit on inodes, 0 for none.
func (s *scope) wantedInodes() int64 {
	if n := s.ws.Spec.Volume.Inodes; n != nil {
		return *n
	}
	return 0
}

// reportGrowing says how the growing of a volume in use, or the setting of its limit, stands. That it fails takes nothing away
// from anybody.
func (s *scope) reportGrowing(out outcome) {
	if s.unbound() {
		s.volume = orElse(s.before(v1.ConditionVolumeReady), found(v1.ReasonQuotaUnsupported, "%s is not limited", s.seen.Volume.Dir))
	}
	o := s.status.Operation
	switch {
	case out.done:
		s.after(0) // look at what there is now
	case out.failed && s.unbound():
		s.volume = s.report(out.err, v1.ReasonQuotaUnsupported)
		s.warning(s.volume.reason, "Limit", "nothing limits the volume to %s: %s", s.ws.Spec.Volume.Size.String(), s.volume.message)
	case out.failed:
		s.growing = s.report(out.err, v1.ReasonProvisionFailed).message
		s.warning(v1.ReasonProvisionFailed, "Resize", "the volume cannot be grown to %s: %s", s.ws.Spec.Volume.Size.String(), s.growing)
	case o != nil && o.Type == v1.OperationProvision && o.Attempts > 0 && !s.unbound():
		s.growing = o.LastFailure
	}
}

func (s *scope) reportLost() {
	s.volume = s.loss()
	s.stalled = s.volume
	s.after(10 * time.Second) // the disk may be brought back
}

func (s *scope) loss() *finding {
	if s.seen.Exists() && s.seen.Marker.UID == "" {
		return found(v1.ReasonContentLost, "volume %s has lost its marker, so nobody can tell whose content it holds: copy what is in it to a safe place, "+
			"move the directory away, and set the annotation %s=%d to go on from the last backup%s",
			s.seen.Volume.Dir, v1.AnnotationAcceptLost, s.status.Claim, since(s.status.Backup))
	}
	return found(v1.ReasonContentLost, "the content of claim %d should be on this node's disk and is not: bring the disk back, "+
		"or set the annotation %s=%d to go on from the last backup%s", s.status.Claim, v1.AnnotationAcceptLost, s.status.Claim, since(s.status.Backup))
}

func orElse(f, otherwise *finding) *finding {
	if f != nil {
		return f
	}
	return otherwise
}

// expected returns the newest backup that the object knows of.
func expected(status *v1.WorkspaceStatus) history.Ref {
	if status.Backup == nil || status.Backup.Latest == nil {
		return history.Ref{}
	}
	name, err := history.ParseName(string(status.Backup.Latest.Name))
	if err != nil {
		return history.Ref{}
	}
	return history.Ref{Name: name, Hash: status.Backup.Latest.Hash}
}
