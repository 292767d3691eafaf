package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/apply"
	"wsdaemon.dev/ws-daemon/internal/state"
)

const (
	// measureInterval is how often usage is asked for where that costs nothing.
	measureInterval = time.Minute
	// usageInterval is the longest time that a small change of the usage stays unreported.
	usageInterval = 5 * time.Minute
	// overdueAfter is how many intervals may pass between two looks at the tree.
	overdueAfter = 2
)

// finish computes all conditions, writes the status once if it changed, and then sends the events of the pass.
func (r *WorkspaceReconciler) finish(ctx context.Context, s *scope) error {
	if s.area != "" {
		r.volumeStatus(s)
		backupStatus(s)
	}
	s.status.ObservedGeneration = s.ws.Generation
	r.setReady(s)
	setVolumeReady(s)
	r.setContentReady(s)
	r.setBackedUp(s)
	setFinalBackup(s)
	setLimitsApplied(s)
	setStalled(s)
	if !s.quiet && !equality.Semantic.DeepEqual(s.status, &s.ws.Status) && !r.leaving(s) {
		if err := r.applyStatus(ctx, s.ws, s.status); err != nil {
			return err
		}
	}
	for _, key := range s.finished {
		r.Jobs.Forget(key)
	}
	if s.status.Claim != s.ws.Status.Claim || s.status.NodeName != s.ws.Status.NodeName {
		r.Jobs.ForgetUID(string(s.ws.UID)) // nobody will ask for what jobs of an earlier claim came to
		r.memory.backupEnded(s.ws.UID, nil, s.now, 0)
	}
	for _, n := range s.notes {
		r.Recorder.Eventf(s.ws, nil, n.kind, n.reason, n.action, "%s", noteOf(n.message))
	}
	return nil
}

// leaving says whether the object has been let go in this pass: there is nothing left to report to.
func (r *WorkspaceReconciler) leaving(s *scope) bool {
	return r.memory.stale(s.ws)
}

// volumeStatus reports where the content is and what it takes.
func (r *WorkspaceReconciler) volumeStatus(s *scope) {
	if !s.held(r.Node) || !s.seen.Exists() {
		s.status.Volume = nil
		return
	}
	v := s.status.Volume
	if v == nil {
		v = &v1.VolumeStatus{}
	}
	v.Driver, v.Path, v.Size = r.Settings.Classes[s.ws.Spec.Volume.Class].Driver, "", nil
	if s.usable() && s.wanted() {
		v.Path = s.seen.Volume.Path
	}
	if s.seen.Volume.Limited {
		v.Size = resource.NewQuantity(s.seen.Volume.Size, resource.BinarySI)
	}
	if u := s.seen.Journal.Usage; !u.At.IsZero() && r.usageWorthIt(s, v, u) {
		v.Used, v.InodesUsed = resource.NewQuantity(readable(u.Bytes), resource.BinarySI), u.Inodes
		r.memory.usageTold(s.ws.UID, s.now)
	}
	s.status.Volume = v
}

// readable rounds up to whole MiB what is more than a few of them: people read it, and more precision would only make more writes.
func readable(bytes int64) int64 {
	const unit = 1 << 20
	if bytes <= 10*unit {
		return bytes
	}
	return (bytes + unit - 1) / unit * unit
}

// stepUsage asks the disk what the content takes, where the disk has counted it: that is one question to the kernel. Elsewhere the
// whole tree would have to be read, which only backups do.
func (r *WorkspaceReconciler) stepUsage(ctx context.Context, s *scope) (bool, error) {
	if !s.seen.Volume.Limited {
		return false, nil
	}
	if wait := r.memory.measureIn(s.ws.UID, s.now); wait > 0 {
		s.after(wait)
		return false, nil
	}
	s.after(measureInterval)
	e, err := r.Keeper.Measure(ctx, s.subject())
	if err != nil { // a service to people: it keeps nothing from going on
		log.FromContext(ctx).Error(err, "usage is not known")
		return false, nil
	}
	s.seen.Journal.Usage = e.Usage
	return false, nil
}

// usageWorthIt keeps small changes from being written all the time: those of less than a hundredth of the volume's size, or of what
// was used where nothing limits it, and those of inodes alone.
func (r *WorkspaceReconciler) usageWorthIt(s *scope, v *v1.VolumeStatus, now state.Usage) bool {
	if v.Used == nil {
		return true
	}
	old := v.Used.Value()
	if readable(now.Bytes) == old && now.Inodes == v.InodesUsed {
		return false
	}
	whole := old
	if v.Size != nil {
		whole = v.Size.Value()
	}
	return max(now.Bytes-old, old-now.Bytes) > whole/100 || r.memory.usageDue(s.ws.UID, s.now)
}

// setReady sums up volume and content. Its reason is the word that people see in `kubectl get`.
func (r *WorkspaceReconciler) setReady(s *scope) {
	switch {
	case s.ready != nil:
	case s.volume != nil:
		s.ready = &finding{reason: s.volume.reason, message: s.volume.message}
	case s.content != nil:
		s.ready = &finding{reason: s.content.reason, message: s.content.message}
	case s.held(r.Node):
		s.ready = foundOK(v1.ReasonRunning, "the content is at %s", s.seen.Volume.Path)
	default:
		s.ready = found(v1.ReasonPending, "node %s has not begun", r.Node)
	}
	if s.wait != nil && !s.ready.ok && !strings.Contains(s.ready.message, s.wait.String()) {
		s.ready.message = naming(s.ready.message, s.wait)
	}
	s.set(v1.ConditionReady, s.ready)
}

func setVolumeReady(s *scope) {
	f := s.volume
	if f == nil && s.status.Volume != nil {
		f = foundOK(v1.ReasonProvisioned, "%s", s.seen.Volume.Dir)
		if !s.seen.Volume.Limited {
			f = foundOK(v1.ReasonUnlimited, "%s; nothing limits it to %s", s.seen.Volume.Dir, s.ws.Spec.Volume.Size.String())
			if n := s.ws.Spec.Volume.Inodes; n != nil {
				f.message += fmt.Sprintf(" or to %d inodes", *n)
			}
		}
	}
	if f == nil {
		f = found(s.ready.reason, "there is no volume on this node")
	}
	if s.growing != "" {
		f.message = clip(f.message + "; it cannot be grown: " + s.growing)
	}
	s.set(v1.ConditionVolumeReady, f)
}

func (r *WorkspaceReconciler) setContentReady(s *scope) {
	f := s.content
	leaving := s.held(r.Node) && !s.wanted()
	if f == nil && !leaving && s.status.Volume != nil && s.usable() {
		f = foundOK(v1.ReasonContentReady, "from %s", s.seen.Marker.Content.Source)
	}
	if f == nil {
		f = found(s.ready.reason, "there is no usable content on this node")
	}
	s.set(v1.ConditionContentReady, f)
}

// setBackedUp says whether the tree was compared with the newest backup within twice the interval.
func (r *WorkspaceReconciler) setBackedUp(s *scope) {
	if s.status.NodeName == "" {
		s.setStoppedBackedUp()
		return
	}
	if s.held(r.Node) && (s.area == "" || s.lost()) {
		s.set(v1.ConditionBackedUp, found(s.ready.reason, "what is unsaved cannot be told: %s", s.ready.message))
		return
	}
	if !s.held(r.Node) || !s.seen.Finished() {
		return // the last report stands
	}
	f, expires := decideBackedUp(s)
	if !expires.IsZero() {
		s.at(expires)
	}
	s.set(v1.ConditionBackedUp, f)
}

// setStoppedBackedUp keeps the report of a workspace that no node holds: a final backup makes it True for good.
func (s *scope) setStoppedBackedUp() {
	if s.final != nil && s.final.ok {
		s.set(v1.ConditionBackedUp, foundOK(v1.ReasonUpToDate, "%s", s.final.message))
	}
}

// decideBackedUp also returns when the answer turns from True to False by the mere passing of time.
func decideBackedUp(s *scope) (*finding, time.Time) {
	b := s.seen.Journal.Backup
	reason, trouble := s.backupTrouble()
	interval := intervalOf(s.ws, s.interval)
	fresh := b.CheckedAt.Add(overdueAfter * interval)
	switch {
	case b.Reason == v1.ReasonFenced:
		return found(v1.ReasonFenced, "%s", trouble), time.Time{}
	case b.Name != "" && !b.Complete:
		return found(v1.ReasonIncomplete, "%s", clip(b.Problem)), time.Time{}
	case interval == 0 && (trouble == "" || !s.triggered()):
		return found(v1.ReasonDisabled, "periodic backups are turned off"), time.Time{}
	case b.Name != "" && s.now.Before(fresh):
		message := "equal to backup " + b.Name
		if trouble != "" {
			message += "; " + trouble
		}
		if b.Retention != "" {
			message = clip(message + "; old backups cannot be removed: " + b.Retention)
		}
		return foundOK(v1.ReasonUpToDate, "%s", message), fresh
	case trouble != "":
		return found(reason, "%s", trouble), time.Time{}
	case b.Name == "":
		return found(v1.ReasonNoBackupYet, "the first backup is due %s after the start", interval), time.Time{}
	default:
		return found(v1.ReasonOverdue, "the tree was last compared with backup %s at %s", b.Name, b.CheckedAt.UTC().Format(time.DateTime)), time.Time{}
	}
}

// backupTrouble tells of attempts that fail, or of one that the store keeps waiting; "" if there is no trouble.
func (s *scope) backupTrouble() (reason, message string) {
	b := s.seen.Journal.Backup
	switch {
	case b.Attempts > 0:
		return orReason(b.Reason, v1.ReasonUploadFailed), fmt.Sprintf("failing since %s, attempt %d, next attempt %s: %s",
			b.FailingSince.UTC().Format(time.DateTime), b.Attempts, b.NextAttempt.UTC().Format(time.DateTime), clip(b.Failure))
	case s.failing.attempts > 0:
		return v1.ReasonUploadFailed, fmt.Sprintf("attempt %d failed: %s", s.failing.attempts, clip(s.failing.text))
	case s.wait != nil:
		return v1.ReasonStoreUnavailable, naming("a backup is being made", s.wait)
	default:
		return "", ""
	}
}

func orReason(reason, otherwise string) string {
	if reason == "" {
		return otherwise
	}
	return reason
}

// setFinalBackup reports the final backup from the moment of stopping until the next start.
func setFinalBackup(s *scope) {
	switch {
	case s.final != nil:
		s.set(v1.ConditionFinalBackup, s.final)
	case s.wanted():
		apimeta.RemoveStatusCondition(&s.status.Conditions, v1.ConditionFinalBackup)
	}
}

// setLimitsApplied tells of limits that do not hold: those that this daemon cannot enforce, and that of a volume whose content
// has got round it.
func setLimitsApplied(s *scope) {
	if escaped := s.seen.Journal.Usage.Escaped; escaped != "" {
		s.set(v1.ConditionLimitsApplied, found(v1.ReasonQuotaEscaped, "%s", clip(escaped)))
		return
	}
	if s.ws.Spec.Limits == nil {
		apimeta.RemoveStatusCondition(&s.status.Conditions, v1.ConditionLimitsApplied)
		return
	}
	s.set(v1.ConditionLimitsApplied, found(v1.ReasonNotSupported, "this version of the daemon enforces no limits on cpu, pids, io or network: remove spec.limits"))
}

func setStalled(s *scope) {
	if s.stalled == nil {
		apimeta.RemoveStatusCondition(&s.status.Conditions, v1.ConditionStalled)
		return
	}
	s.set(v1.ConditionStalled, &finding{ok: true, reason: s.stalled.reason, message: s.stalled.message})
}

// set writes a condition.
func (s *scope) set(kind string, f *finding) {
	setCondition(&s.status.Conditions, kind, f, s.ws.Generation, s.now)
	slices.SortFunc(s.status.Conditions, func(a, b metav1.Condition) int {
		return slices.Index(conditionOrder, a.Type) - slices.Index(conditionOrder, b.Type)
	})
}

// conditionOrder is the order in which people read them.
var conditionOrder = []string{
	v1.ConditionReady, v1.ConditionVolumeReady, v1.ConditionContentReady, v1.ConditionBackedUp,
	v1.ConditionFinalBackup, v1.ConditionLimitsApplied, v1.ConditionStalled,
}

// applyStatus writes a whole status, and remembers the version that it made.
func (r *WorkspaceReconciler) applyStatus(ctx context.Context, o client.Object, status any) error {
	data, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("encode the status of %s: %w", client.ObjectKeyFromObject(o), err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return fmt.Errorf("encode the status of %s: %w", client.ObjectKeyFromObject(o), err)
	}
	version, err := apply.Status(ctx, r.Client, o, fields, v1.FieldOwner)
	if err == nil {
		r.memory.wrote(o, version)
	}
	return err
}

func itoa[T ~int | ~int32 | ~int64](n T) string { return strconv.FormatInt(int64(n), 10) }

func stamp(t *metav1.Time) string {
	if t == nil {
		return "unknown"
	}
	return t.UTC().Format(time.DateTime)
}
