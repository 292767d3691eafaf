package server

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// becomes has the reconciler say something of a snapshot as soon as there is one.
func (w *world) becomes(name, kind, reason, message string) *v1.Snapshot {
	w.t.Helper()
	var s v1.Snapshot
	w.Eventually(func() error {
		return w.client.Get(context.Background(), client.ObjectKey{Namespace: "team-a", Name: name}, &s)
	}).Should(Succeed())
	status := metav1.ConditionTrue
	if kind == "" {
		kind, status = v1.ConditionReady, metav1.ConditionFalse
	}
	s.Status.SnapshotID, s.Status.Backup, s.Status.Files, s.Status.Bytes = name+".id", "3.2", 4, 5
	s.Status.Conditions = []metav1.Condition{{Type: kind, Status: status, Reason: reason, Message: message}}
	w.Expect(w.client.Status().Update(context.Background(), &s)).To(Succeed())
	return &s
}

func (w *world) snapshot(ctx context.Context, r *daemonv1.SnapshotRequest) <-chan string {
	answer := make(chan string, 1)
	go func() {
		got, err := w.local().Snapshot(ctx, r)
		if err != nil {
			answer <- outcome(err)
			return
		}
		s := got.GetSnapshot()
		answer <- strings.Join([]string{s.GetNamespace(), s.GetName(), s.GetId(), s.GetWorkspace(), s.GetBackup()}, " ")
	}()
	return answer
}

func TestASnapshotIsAnObjectAndIsWaitedFor(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"), workspace("team-a", "api"), workspace("team-a", "moving", func(ws *v1.Workspace) {
		ws.Status.NodeName = "node-b"
	})).start()
	request := func() *daemonv1.SnapshotRequest {
		return &daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web", SnapshotName: "first", DeletionPolicy: daemonv1.DeletionPolicy_DELETION_POLICY_DELETE}
	}
	answer := w.snapshot(t.Context(), request())
	made := w.becomes("first", "", "Snapshotting", "the snapshot is being made")
	w.Expect(made.Spec).To(Equal(v1.SnapshotSpec{WorkspaceName: "web", NodeName: node, DeletionPolicy: v1.DeletionDelete}))
	w.Consistently(answer, "50ms").ShouldNot(Receive())
	w.becomes("first", v1.ConditionReady, "Snapshotted", "")
	w.Eventually(answer).Should(Receive(Equal("team-a first first.id web 3.2")))
	w.Eventually(w.snapshot(t.Context(), request())).Should(Receive(Equal("team-a first first.id web 3.2")), "the same again")

	other := request()
	other.Name = "api"
	w.Eventually(w.snapshot(t.Context(), other)).Should(Receive(
		Equal("AlreadyExists: there is another snapshot team-a/first, of workspace web on node node-a with deletion policy Delete: name this one differently")))
	other.Name = "moving"
	w.Eventually(w.snapshot(t.Context(), other)).Should(Receive(
		Equal("FailedPrecondition: workspace team-a/moving is still on node node-b: ask there, or wait until it has moved")))
}

func TestASnapshotThatIsNotMade(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	answer := w.snapshot(t.Context(), &daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web", SnapshotName: "stalled"})
	w.becomes("stalled", v1.ConditionStalled, "NoBackup", "bring it back")
	w.Eventually(answer).Should(Receive(Equal("FailedPrecondition: snapshot team-a/stalled: NoBackup: bring it back")))

	var s v1.Snapshot
	s.Status.Conditions = []metav1.Condition{{Type: v1.ConditionReady, Status: metav1.ConditionFalse, Reason: "UploadFailed", Message: "no answer"}}
	wanted := &v1.Snapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "late"}}
	ctx, cancel := context.WithDeadlineCause(t.Context(), time.Now(), errTooLong)
	defer cancel()
	w.Expect(outcome(notYet(ctx, wanted, &s))).To(Equal("DeadlineExceeded: snapshot team-a/late is being made (UploadFailed: no answer): call again with its name to go on waiting"))
}

func TestSnapshotsGetNamesOfTheirOwn(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	ctx, cancel := context.WithCancel(t.Context())
	answers := []<-chan string{
		w.snapshot(ctx, &daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web"}), w.snapshot(ctx, &daemonv1.SnapshotRequest{Namespace: "team-a", Name: "web"}),
	}
	var all v1.SnapshotList
	w.Eventually(func() int {
		w.Expect(w.client.List(t.Context(), &all)).To(Succeed())
		return len(all.Items)
	}).Should(Equal(2))
	for _, s := range all.Items {
		w.Expect(s.Name).To(MatchRegexp(`^web-[a-z0-9]{8}$`))
		w.Expect(s.Spec.DeletionPolicy).To(Equal(v1.DeletionRetain))
	}
	cancel()
	for _, a := range answers {
		w.Eventually(a).Should(Receive(Equal("Canceled: context canceled")))
	}
	for _, name := range []string{unusedName(strings.Repeat("x", 63)), unusedName(strings.Repeat("x", 53) + "-.-" + "y")} {
		w.Expect(validName("name", name)).To(Succeed())
	}
}
