package fleet

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

var now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

const grace = 15 * time.Minute

// object makes an old workspace that a node holds.
func object(changes ...func(*v1.Workspace)) *v1.Workspace {
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Name: "web", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)), Finalizers: []string{v1.FinalizerContent}},
		Spec:       v1.WorkspaceSpec{NodeName: "a"},
		Status:     v1.WorkspaceStatus{NodeName: "a", Claim: 1},
	}
	for _, change := range changes {
		change(ws)
	}
	return ws
}

func deleted(ws *v1.Workspace) { ws.DeletionTimestamp = &metav1.Time{Time: now} }

func free(ws *v1.Workspace) { ws.Status.NodeName = "" }

func on(node string) func(*v1.Workspace) {
	return func(ws *v1.Workspace) { ws.Spec.NodeName = node }
}

// saidOf is that NodeGone was said of a node so long ago.
func saidOf(node string, ago time.Duration) func(*v1.Workspace) {
	return func(ws *v1.Workspace) {
		ws.Status.Conditions = []metav1.Condition{{
			Type: v1.ConditionNodeGone, Status: metav1.ConditionTrue, Message: "node " + node + " holds the content", LastTransitionTime: metav1.NewTime(now.Add(-ago)),
		}}
	}
}

func TestDecideWorkspace(t *testing.T) {
	fenced := func(ws *v1.Workspace) { ws.Spec.FencedNode = "a" }
	here, gone := standing{present: true}, standing{}
	another := func(ago time.Duration) standing { return standing{present: true, replaced: true, made: now.Add(-ago)} }
	young := func(ws *v1.Workspace) { ws.CreationTimestamp = metav1.NewTime(now.Add(-4 * time.Second)) }
	for name, c := range map[string]struct {
		ws      *v1.Workspace
		node    standing
		reason  string
		release bool
		after   time.Duration
	}{
		"its node is there":                      {object(), here, "", false, 0},
		"its node is there, it is deleted":       {object(deleted), here, "", false, 0},
		"live":                                   {object(), gone, v1.ReasonNodeDeleted, false, lookAgain},
		"live, for long":                         {object(saidOf("a", 100*time.Hour)), gone, v1.ReasonNodeDeleted, false, lookAgain},
		"held by nobody, for a node that is not": {object(free), gone, v1.ReasonNodeNotFound, false, lookAgain},
		"just made":                              {object(free, young), gone, "", false, settle - 4*time.Second},
		"made in the future":                     {object(free, func(ws *v1.Workspace) { ws.CreationTimestamp = metav1.NewTime(now.Add(time.Hour)) }), gone, v1.ReasonNodeNotFound, false, lookAgain},
		"for no node":                            {object(free, on("")), gone, "", false, 0},
		"deleted, for no node":                   {object(free, on(""), deleted), gone, "", true, 0},
		"deleted, nothing said yet":              {object(deleted), gone, v1.ReasonNodeDeleted, false, grace},
		"deleted, said of another node":          {object(deleted, saidOf("ab", time.Hour)), gone, v1.ReasonNodeDeleted, false, grace},
		"deleted, within the grace":              {object(deleted, saidOf("a", grace-time.Minute)), gone, v1.ReasonNodeDeleted, false, time.Minute},
		"deleted, long within the grace":         {object(deleted, saidOf("a", time.Minute)), gone, v1.ReasonNodeDeleted, false, lookAgain},
		"deleted, after the grace":               {object(deleted, saidOf("a", grace)), gone, v1.ReasonNodeDeleted, true, time.Second},
		"deleted, the clock was set back":        {object(deleted, saidOf("a", -time.Hour)), gone, v1.ReasonNodeDeleted, false, lookAgain},
		"deleted, released, its next node gone":  {object(deleted, free, saidOf("a", grace)), gone, v1.ReasonNodeNotFound, true, time.Second},
		"deleted, without the finalizer":         {object(deleted, saidOf("a", grace), func(ws *v1.Workspace) { ws.Finalizers = nil }), gone, v1.ReasonNodeDeleted, false, lookAgain},
		"deleted, paused": {object(deleted, saidOf("a", grace), func(ws *v1.Workspace) { ws.Annotations = map[string]string{v1.AnnotationPaused: ""} }),
			gone, v1.ReasonNodeDeleted, false, lookAgain},
		"fenced, the next node is there":          {object(on("b"), fenced), here, "", false, 0},
		"fenced, the next node is gone":           {object(on("b"), fenced), gone, v1.ReasonNodeNotFound, false, lookAgain},
		"another of its name, just made":          {object(saidOf("a", time.Hour)), another(time.Minute), "", false, arrival - time.Minute},
		"another of its name, without a daemon":   {object(), another(arrival), v1.ReasonNodeReplaced, false, lookAgain},
		"deleted, another, after the grace":       {object(deleted, saidOf("a", grace)), another(time.Hour), v1.ReasonNodeReplaced, true, time.Second},
		"another of its name, which has reported": {object(), standing{present: true, made: now}, "", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := decideWorkspace(c.ws, c.node, now, grace)
			NewWithT(t).Expect([]any{v.reason, v.release, v.after}).To(Equal([]any{c.reason, c.release, c.after}))
		})
	}
}

func TestResponsible(t *testing.T) {
	g := NewWithT(t)
	g.Expect(responsible(object())).To(Equal("a"))
	g.Expect(responsible(object(free))).To(Equal("a"))
	g.Expect(responsible(object(on("b")))).To(Equal("a"), "it still holds the content")
	g.Expect(responsible(object(on("b"), func(ws *v1.Workspace) { ws.Spec.FencedNode = "a" }))).To(Equal("b"))
	g.Expect(responsible(object(free, on("")))).To(BeEmpty())
}

func TestDecideSnapshot(t *testing.T) {
	young := func(s *v1.Snapshot) { s.CreationTimestamp = metav1.NewTime(now.Add(-4 * time.Second)) }
	const soon = lookAgain / 10
	for name, c := range map[string]struct {
		s       *v1.Snapshot
		has     presence
		reason  string
		after   time.Duration
		message string
	}{
		"its node is ready": {shot("a"), nodeReady, "", 0, ""},
		"its node is not in the cluster": {shot("a"), nodeAbsent, v1.ReasonNodeNotFound, soon, "there is no node a in the cluster: give spec.nodeName another one, " +
			"which then keeps the newest backup of workspace web, or let the node join"},
		"its node is not ready": {shot("a"), nodeSilent, v1.ReasonNodeNotReady, soon, "node a is not ready, and the snapshot waits for it: give spec.nodeName another one, " +
			"which then keeps the newest backup of workspace web, or mend the node"},
		"it has none": {shot(""), nodeUnnamed, v1.ReasonNoNodeReady, soon, "no node is ready whose daemon serves workspaces: see kubectl get nodes, and kubectl get workspacenodes"},
		"just made":   {shot("", young), nodeUnnamed, "", settle - 4*time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := decideSnapshot(c.s, c.has, now)
			NewWithT(t).Expect(v).To(Equal(verdict{reason: c.reason, after: c.after, message: c.message}))
		})
	}
}

// A message of NodeGone is about the node that it begins with, whatever words come later.
func TestSubject(t *testing.T) {
	for message, want := range map[string]string{
		decideWorkspace(object(), standing{}, now, grace).message:                              "a",
		decideWorkspace(object(on("in"), free), standing{}, now, grace).message:                "in",
		decideWorkspace(object(), standing{present: true, replaced: true}, now, grace).message: "a",
		decideSnapshot(shot("b.example.com"), nodeAbsent, now).message:                         "b.example.com",
		decideSnapshot(shot("b"), nodeSilent, now).message:                                     "b",
		decideSnapshot(shot(""), nodeUnnamed, now).message:                                     "",
		"there is something else":                                                              "",
	} {
		NewWithT(t).Expect(subject(message)).To(Equal(want), message)
	}
	for _, word := range []string{"in", "of", "and", "the", "another"} {
		ws := object(deleted)
		ws.Status.Conditions = []metav1.Condition{{
			Type: v1.ConditionNodeGone, Status: metav1.ConditionTrue, Message: decideWorkspace(object(), standing{}, now, grace).message,
			LastTransitionTime: metav1.NewTime(now.Add(-grace)),
		}}
		ws.Spec.NodeName, ws.Status.NodeName = word, word
		NewWithT(t).Expect(decideWorkspace(ws, standing{}, now, grace).release).To(BeFalse(), "nothing was said of node %s", word)
	}
}

// The event says what is in the store, what is lost, and what becomes of the backups.
func TestFarewellTellsTheTruth(t *testing.T) {
	at := func(hour int) metav1.Time { return metav1.NewTime(time.Date(2026, 11, 27, hour, 0, 0, 0, time.UTC)) }
	backedUp := func(ws *v1.Workspace) {
		checked := at(11)
		ws.Status.Backup = &v1.BackupStatus{Latest: &v1.BackupRecord{Name: "7.2", Time: at(10)}, CheckedAt: &checked}
	}
	buried := func(ws *v1.Workspace) { ws.Spec.DeletionPolicy = v1.DeletionDelete }
	const last = "The last backup is 7.2 of 2026-11-27T10:00:00Z, and at 2026-11-27T11:00:00Z there was nothing else to save."
	for name, c := range map[string]struct {
		ws   *v1.Workspace
		want string
	}{
		"held": {object(backedUp), "node a is gone with the content: the object is let go without a final backup. " + last +
			" What was changed since is lost, unless the node comes back: then it keeps that as a stray snapshot."},
		"held, never backed up": {object(), "node a is gone with the content: the object is let go without a final backup. There is no backup." +
			" What was changed since is lost, unless the node comes back: then it keeps that as a stray snapshot."},
		"held by nobody": {object(free, backedUp), "node a is not in the cluster and held no content: the object is let go. " + last},
		"for no node": {object(free, on(""), backedUp, buried), "no node is responsible for the workspace, and none holds its content: the object is let go. " + last +
			" The backups go when their grace is over, as deletionPolicy says."},
	} {
		t.Run(name, func(t *testing.T) { NewWithT(t).Expect(farewell(c.ws)).To(Equal(c.want)) })
	}
}

func TestLastSign(t *testing.T) {
	g := NewWithT(t)
	ws := object()
	g.Expect(lastSign(ws)).To(BeZero())
	sign := func(manager string, ago time.Duration) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Time: &metav1.Time{Time: now.Add(-ago)}}
	}
	ws.ManagedFields = []metav1.ManagedFieldsEntry{
		sign(v1.FieldOwner, time.Hour), sign(v1.FieldOwner, time.Minute), sign(v1.FieldOwnerFleet, time.Second), {Manager: v1.FieldOwner},
	}
	g.Expect(lastSign(ws)).To(Equal(now.Add(-time.Minute)))
}
