package controllers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	buffers "wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// silent is what is said of a store that has not answered since a quarter of a minute before noon.
const silent = "the store s3://bucket/ has not answered since 2026-03-04 11:59:45: see that it runs and can be reached from here; it is asked again by itself"

func waits(s *scope) {
	s.wait = &store.Wait{Store: "s3://bucket/", Since: noon.Add(-15 * time.Second), Attempt: 1}
}

// failed has a condition say what the attempts of an operation before this one failed of.
func failed(op v1.OperationType, kind, reason, message string) func(*scope) {
	return func(s *scope) {
		s.status.Operation = &v1.OperationStatus{Type: op, Attempts: 2}
		s.ws.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message}}
	}
}

func TestUnderWay(t *testing.T) {
	full := failed(v1.OperationRestore, v1.ConditionContentReady, v1.ReasonRestoreFailed, "no space")
	for name, tt := range map[string]struct {
		scope *scope
		want  *finding
	}{
		"under way":               {running(), found("Restoring", "content is being restored")},
		"the store is silent":     {running(waits), found("StoreUnavailable", "content is being restored; %s", silent)},
		"failing":                 {running(full), found("RestoreFailed", "no space")},
		"failing, and silent now": {running(full, waits), found("RestoreFailed", "no space")},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(filling(v1.OperationRestore, tt.scope)).To(Equal(tt.want))
		})
	}
}

// said has a condition say something before this pass.
func said(reason, message string) func(*scope) {
	return func(s *scope) {
		s.ws.Status.Conditions = []metav1.Condition{{Type: v1.ConditionContentReady, Status: metav1.ConditionFalse, Reason: reason, Message: message}}
	}
}

// What the store keeps a claim waiting for is gone with the next look after it has answered, although the claim asks it more.
func TestClaimingForgetsAStoreThatWasWaitedFor(t *testing.T) {
	asking := found("Pending", "asking the store for the newest claim")
	for name, tt := range map[string]struct {
		scope *scope
		want  *finding
	}{
		"nothing was said":     {running(), asking},
		"stopped before":       {running(said("Stopped", "no node holds the content")), found("Stopped", "no node holds the content")},
		"the store is silent":  {running(said("Stopped", "no node holds the content"), waits), found("StoreUnavailable", "asking the store for the newest claim; %s", silent)},
		"it has answered":      {running(said("StoreUnavailable", "asking; "+silent)), asking},
		"it is silent, failed": {running(failed(v1.OperationClaim, v1.ConditionContentReady, "StoreUnavailable", "refused"), waits), found("StoreUnavailable", "refused")},
		"attempts have failed": {running(failed(v1.OperationClaim, v1.ConditionContentReady, "StoreUnavailable", "refused")), found("StoreUnavailable", "refused")},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(claiming(tt.scope)).To(Equal(tt.want))
		})
	}
}

// What people see in `kubectl get ws -o wide` names the store once, whatever the other conditions say; of work that its users do not
// notice it says nothing.
func TestReadyNamesTheStoreThatIsWaitedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*scope)
		want   *finding
	}{
		"running":           {func(*scope) {}, foundOK("Running", "the content is at /v/uid-1/content")},
		"stopping":          {func(s *scope) { s.ready = stopping(s) }, found("Stopping", "the content is being backed up; %s", silent)},
		"restoring":         {func(s *scope) { s.content = filling(v1.OperationRestore, s) }, found("StoreUnavailable", "content is being restored; %s", silent)},
		"restoring, failed": {func(s *scope) { s.content = found("RestoreFailed", "no space") }, found("RestoreFailed", "no space; %s", silent)},
	} {
		t.Run(name, func(t *testing.T) {
			s := running(waits, tt.change)
			(&WorkspaceReconciler{Node: home}).setReady(s)
			NewWithT(t).Expect(s.ready).To(Equal(tt.want))
			c := apimeta.FindStatusCondition(s.status.Conditions, v1.ConditionReady)
			NewWithT(t).Expect(c).To(And(HaveField("Reason", tt.want.reason), HaveField("Message", tt.want.message)))
		})
	}
}

func TestBackedUpNamesTheStoreThatIsWaitedFor(t *testing.T) {
	fresh := state.Backup{Name: "3.2", Complete: true, CheckedAt: noon.Add(-time.Minute)}
	failing := state.Backup{Attempts: 1, Failure: "no space", FailingSince: noon, NextAttempt: noon}
	for name, tt := range map[string]struct {
		backup state.Backup
		want   *finding
	}{
		"fresh":    {fresh, foundOK("UpToDate", "equal to backup 3.2; a backup is being made; %s", silent)},
		"none yet": {state.Backup{}, found("StoreUnavailable", "a backup is being made; %s", silent)},
		"failing":  {failing, found("UploadFailed", "failing since 2026-03-04 12:00:00, attempt 1, next attempt 2026-03-04 12:00:00: no space")},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := decideBackedUp(running(waits, func(s *scope) { s.seen.Journal.Backup = tt.backup }))
			NewWithT(t).Expect(got).To(Equal(tt.want))
		})
	}
}

// A store, or a proxy in its place, may answer with a whole page; a condition has its limit.
func TestBackedUpKeepsItsLimit(t *testing.T) {
	s := running(waits)
	s.wait.Err = errors.New(strings.Repeat("x", 40000))
	got, _ := decideBackedUp(s)
	NewWithT(t).Expect(got.message).To(And(HavePrefix("a backup is being made; the store s3://bucket/ has failed since"), HaveLen(2048+len("…"))))
}

// deaf is a store that answers nothing.
type deaf struct{ store.Store }

func (deaf) String() string { return "s3://bucket/" }

func (deaf) Now(ctx context.Context) (time.Time, error) {
	<-ctx.Done()
	return time.Time{}, ctx.Err()
}

// A job waits for the store if its own requests do, or if it waits for its turn while nobody is answered. It is looked at rarely then.
func TestWhoWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := buffers.New(8)
		r := &WorkspaceReconciler{Waits: &store.Waits{}, Keeper: &content.Keeper{Memory: budget}}
		s := store.WithPatience(deaf{}, store.Patience{Attempt: time.Minute, Waits: r.Waits})
		ctx, cancel := context.WithCancel(fair.With(t.Context(), "uid-2", fair.Urgent))
		go func() { _, _ = s.Now(ctx) }()
		_, err := budget.Join(ctx, 7)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		go func() { _, _ = budget.Join(fair.With(ctx, "uid-3", fair.Urgent), 7) }()
		time.Sleep(10 * time.Second)
		for name, tt := range map[string]struct {
			uid     string
			phase   jobs.Phase
			waits   bool
			requeue time.Duration
		}{
			"its own request":        {"uid-2", jobs.Running, true, progressInterval},
			"another's":              {uid, jobs.Running, false, progressInterval},
			"no memory yet":          {"uid-3", jobs.Running, true, progressInterval},
			"its turn has not come":  {uid, jobs.Queued, true, turnInterval},
			"a job of no workspace":  {"", jobs.Running, true, progressInterval},
			"a queue, and no answer": {"uid-2", jobs.Queued, true, turnInterval},
		} {
			scope := running(func(s *scope) { s.ws.UID = types.UID(tt.uid) })
			r.lookAtWait(scope, jobs.State{Phase: tt.phase})
			NewWithT(t).Expect([]any{scope.wait != nil, scope.requeue}).To(Equal([]any{tt.waits, tt.requeue}), name)
		}
		cancel()
		synctest.Wait()
		NewWithT(t).Expect(r.waitOf("uid-2", jobs.State{Phase: jobs.Running})).To(BeNil())
	})
}
