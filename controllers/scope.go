package controllers

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// scope is what one pass over a workspace knows and finds out.
type scope struct {
	ws     *v1.Workspace       // as read; never changed
	status *v1.WorkspaceStatus // what will be reported
	seen   content.Observation // what lies on the node
	area   string              // identity of the working area
	now    time.Time

	volume  *finding // why the volume is not ready; nil if it is
	content *finding // why the content is not ready; nil if it is
	ready   *finding // overrides the summary of the two
	final   *finding // the final backup, while stopping and after
	stalled *finding // what only a person can mend

	limitable bool          // the driver of the volume's class can limit it
	interval  time.Duration // between periodic backups, unless the spec has one

	wait     *store.Wait   // the store keeps the job that is under way, or its turn, waiting
	asked    bool          // somebody waits for a backup
	growing  string        // why a volume in use cannot be grown
	failing  failure       // what backups fail of, if the journal could not be told
	quiet    bool          // what there is to report is not worth a write yet
	requeue  time.Duration // the earliest wish of all steps; 0 is none
	notes    []note        // events, sent once the status is written
	finished []jobs.Key    // results to forget once the status is written
}

// finding is a condition in the making.
type finding struct {
	ok      bool // True rather than False
	reason  string
	message string
}

// note is an event in the making.
type note struct {
	kind, reason, action, message string
}

func found(reason, format string, args ...any) *finding {
	return &finding{reason: reason, message: fmt.Sprintf(format, args...)}
}

func foundOK(reason, format string, args ...any) *finding {
	return &finding{ok: true, reason: reason, message: fmt.Sprintf(format, args...)}
}

// held says whether this node holds the content, by the object.
func (s *scope) held(node string) bool { return s.status.NodeName == node }

// wanted says whether the content shall be on the node.
func (s *scope) wanted() bool {
	return s.ws.DeletionTimestamp.IsZero() && s.ws.Spec.State != v1.StateStopped
}

func (s *scope) deleting() bool { return !s.ws.DeletionTimestamp.IsZero() }

// edited says whether the spec has changed since the last report: pauses between attempts end then.
func (s *scope) edited() bool { return s.ws.Generation != s.ws.Status.ObservedGeneration }

// subject names the content under the current claim.
func (s *scope) subject() content.Subject {
	return content.Subject{
		UID: string(s.ws.UID), Namespace: s.ws.Namespace, Name: s.ws.Name, Class: s.ws.Spec.Volume.Class, Claim: s.status.Claim,
	}
}

// after asks for another pass; the earliest wish wins.
func (s *scope) after(d time.Duration) {
	d = max(d, 10*time.Millisecond)
	if s.requeue == 0 || d < s.requeue {
		s.requeue = d
	}
}

// at asks for another pass at a time.
func (s *scope) at(t time.Time) { s.after(t.Sub(s.now)) }

func (s *scope) normal(reason, action, format string, args ...any) {
	s.notes = append(s.notes, note{corev1.EventTypeNormal, reason, action, fmt.Sprintf(format, args...)})
}

func (s *scope) warning(reason, action, format string, args ...any) {
	s.notes = append(s.notes, note{corev1.EventTypeWarning, reason, action, fmt.Sprintf(format, args...)})
}

// condition returns a condition of the last report.
func (s *scope) condition(kind string) *metav1.Condition {
	for i := range s.ws.Status.Conditions {
		if s.ws.Status.Conditions[i].Type == kind {
			return &s.ws.Status.Conditions[i]
		}
	}
	return nil
}

// before returns what the last report said of a condition, as long as it was not True; nil if it said nothing.
func (s *scope) before(kind string) *finding {
	c := s.condition(kind)
	if c == nil || c.Status == metav1.ConditionTrue {
		return nil
	}
	return &finding{reason: c.Reason, message: c.Message}
}
