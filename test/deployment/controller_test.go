package deployment

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/apply"
)

// controllerAccount is what the cluster controller is to the API server.
const controllerAccount = "ws-daemon-controller"

// What the cluster controller is told that wants more than is its own.
const (
	makesNone    = "the cluster controller neither makes nor deletes Workspaces and Snapshots"
	changesNo    = "the cluster controller changes no spec but the nodeName of a Snapshot, and no status but the condition NodeGone"
	onlyNodeGone = "of the conditions of an object the cluster controller writes only NodeGone"
	onlyRemoves  = "of the metadata of an object the cluster controller changes only the finalizer"
	letsGo       = "the cluster controller lets only Workspaces go that are being deleted"
	gives        = "the cluster controller gives a node to Snapshots that have none"
)

// says has the cluster controller write its condition, as it does.
func says(o client.Object, conditions ...any) func(c client.Client) error {
	return func(c client.Client) error {
		if err := c.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		_, err := apply.Status(context.Background(), c, o, map[string]any{"conditions": conditions}, v1.FieldOwnerFleet)
		return err
	}
}

// condition is one as it is written.
func condition(kind string) any {
	return map[string]any{"type": kind, "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-11-27T00:00:00Z"}
}

// statusAttempts are what may be tried with the status of a Workspace or Snapshot, which has the conditions Ready and NodeGone.
func statusAttempts(o client.Object) []tried {
	kept := `{"type":"Ready","status":"False","reason":"Test","message":"","lastTransitionTime":"2026-11-27T00:00:00Z"}`
	return []tried{
		{"say that its node is gone", says(o, condition(v1.ConditionNodeGone)), ""},
		{"say so no more", mergeStatus(o, `{"status":{"conditions":[`+kept+`]}}`), ""},
		{"say that it is ready", says(o, condition(v1.ConditionReady), condition(v1.ConditionNodeGone)), onlyNodeGone},
		{"say something else", says(o, condition("Other")), onlyNodeGone},
		{"silence a daemon", mergeStatus(o, `{"status":{"conditions":null}}`), onlyNodeGone},
		{"make one", create(another(o)), makesNone},
		{"delete it", remove(o), makesNone},
		{"delete all", removeAll(another(o)), makesNone},
		{"annotate it", merge(o, `{"metadata":{"annotations":{"workspace.wsdaemon.dev/discard":"1"}}}`), onlyRemoves},
		{"label it", merge(o, `{"metadata":{"labels":{"a":"b"}}}`), onlyRemoves},
		{"own it", merge(o, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node-a","uid":"1"}]}}`), onlyRemoves},
		{"another's finalizer goes", merge(o, `{"metadata":{"finalizers":["workspace.wsdaemon.dev/content"]}}`), onlyRemoves},
		{"all finalizers go", merge(o, `{"metadata":{"finalizers":null}}`), onlyRemoves},
		{"keep it for ever", merge(o, `{"metadata":{"finalizers":["a.example/b","a.example/c","workspace.wsdaemon.dev/content"]}}`), onlyRemoves},
	}
}

// another is an object like one that there is.
func another(o client.Object) client.Object {
	like := o.DeepCopyObject().(client.Object) //nolint:forcetypeassert // a copy
	like.SetName("another")
	like.SetResourceVersion("")
	like.SetUID("")
	return like
}

// tried is something that the cluster controller may want to do, and what it is told; empty: it may do that.
type tried struct {
	name    string
	do      func(c client.Client) error
	refused string
}

// lastFinalizer lets an object go.
const lastFinalizer = `{"metadata":{"finalizers":["a.example/b"]}}`

func workspaceTrials(live, dying, paused *v1.Workspace) []tried {
	return append(statusAttempts(live), []tried{
		{"let go what is being deleted", merge(dying, lastFinalizer), ""},
		{"let go what is not being deleted", merge(live, lastFinalizer), letsGo},
		{"let go what is paused", merge(paused, lastFinalizer), letsGo},
		{"let others' finalizers go, too", merge(dying, `{"metadata":{"finalizers":null}}`), onlyRemoves},
		{"change it while letting it go", merge(dying, `{"metadata":{"finalizers":["a.example/b"]},"spec":{"deletionPolicy":"Delete"}}`), changesNo},
		{"fail over", merge(live, `{"spec":{"nodeName":"node-b","fencedNode":"node-a"}}`), changesNo},
		{"stop it", merge(live, `{"spec":{"state":"Stopped"}}`), changesNo},
		{"discard its content", merge(live, `{"spec":{"backup":{"onStop":"Discard"}}}`), changesNo},
		{"remove from the spec", merge(live, `{"spec":{"owner":null}}`), changesNo},
		{"replace the spec", update(live, func() { live.Spec.Volume.Size = resource.MustParse("2Gi") }), changesNo},
		{"take it from its node", mergeStatus(live, `{"status":{"nodeName":""}}`), changesNo},
		{"raise the claim", mergeStatus(live, `{"status":{"claim":9}}`), changesNo},
		{"pretend a backup", mergeStatus(live, `{"status":{"backup":{"trigger":"x"}}}`), changesNo},
	}...)
}

// applies has the cluster controller say of a Snapshot that its node is its own choice.
func applies(s *v1.Snapshot, node string) func(c client.Client) error {
	return func(c client.Client) error {
		text := `{"apiVersion":"workspace.wsdaemon.dev/v1","kind":"Snapshot","spec":{"workspaceName":"live","nodeName":"` + node + `"}}`
		o := &v1.Snapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
		return c.Patch(context.Background(), o, client.RawPatch(types.ApplyPatchType, []byte(text)), client.FieldOwner(v1.FieldOwnerFleet), client.ForceOwnership)
	}
}

func snapshotTrials(assigned, given, free, dying *v1.Snapshot) []tried {
	return append(statusAttempts(assigned), []tried{
		{"give it a node", merge(free, `{"spec":{"nodeName":"node-b"}}`), ""},
		{"give it another node to be removed", merge(dying, `{"spec":{"nodeName":"node-b"}}`), ""},
		{"give it another node where it had the choice", merge(given, `{"spec":{"nodeName":"node-b"}}`), ""},
		{"give it another node", merge(assigned, `{"spec":{"nodeName":"node-b"}}`), gives},
		{"pretend to have had the choice", applies(assigned, "node-a"), gives},
		{"take its node where it had the choice", merge(given, `{"spec":{"nodeName":null}}`), gives},
		{"take its node", merge(assigned, `{"spec":{"nodeName":null}}`), gives},
		{"delete its data", merge(free, `{"spec":{"nodeName":"node-b","deletionPolicy":"Delete"}}`), changesNo},
		{"its finalizer goes", merge(dying, lastFinalizer), onlyRemoves},
		{"its id", mergeStatus(free, `{"status":{"snapshotID":"x"}}`), changesNo},
	}...)
}

func eventTrials(own *eventsv1.Event) []tried {
	about := func(kind, name, controller string) func(c client.Client) error {
		e := own.DeepCopy()
		e.Name, e.ResourceVersion, e.UID = "new", "", ""
		e.Regarding.Kind, e.Regarding.Name, e.ReportingController = kind, name, controller
		return create(e)
	}
	leads := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "leads"}, Reason: "LeaderElection", Source: corev1.EventSource{Component: "pod-of-node-a_1"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: system, Name: controllerAccount},
	}
	const of, asItself, never = "the cluster controller tells events of Workspaces, and of its own lease", "the cluster controller tells events of Workspaces as itself", "the cluster controller neither changes nor deletes events"
	return []tried{
		{"tell of a workspace", about("Workspace", "any", controllerAccount), ""},
		{"tell who leads", create(leads), ""},
		{"tell of another lease", about("Lease", "another", controllerAccount), of},
		{"tell of a pod", about("Pod", "any", controllerAccount), of},
		{"tell as a daemon", about("Workspace", "any", account), asItself},
		{"tell it again", merge(own, `{"series":{"count":2,"lastObservedTime":"2026-11-27T00:00:00.000000Z"}}`), never},
		{"delete an event", remove(own), never},
		{"delete all events", removeAll(&eventsv1.Event{}), never},
	}
}

// trials makes objects, and returns all that the cluster controller may try with them.
func trials(t *testing.T, admin client.Client) []tried {
	t.Helper()
	g := NewWithT(t)
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "own", Name: name, Finalizers: []string{"a.example/b", v1.FinalizerContent}}
	}
	workspace := func(name string) *v1.Workspace {
		spec := v1.WorkspaceSpec{NodeName: "node-a", Volume: v1.VolumeSpec{Size: resource.MustParse("1Gi")}, Owner: v1.Owner{UID: 1, GID: 1}}
		return &v1.Workspace{ObjectMeta: meta(name), Spec: spec}
	}
	snapshot := func(name, node string) *v1.Snapshot {
		return &v1.Snapshot{ObjectMeta: meta(name), Spec: v1.SnapshotSpec{WorkspaceName: "live", NodeName: node}}
	}
	live, dying, paused := workspace("live"), workspace("dying"), workspace("paused")
	paused.Annotations = map[string]string{v1.AnnotationPaused: ""}
	assigned, given, free, leaving := snapshot("assigned", "node-a"), snapshot("given", ""), snapshot("free", ""), snapshot("leaving", "node-a")
	own := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "own"}, EventTime: metav1.NowMicro(), Reason: "Test", Action: "Test", Type: "Normal",
		ReportingController: controllerAccount, ReportingInstance: controllerAccount,
		Regarding: corev1.ObjectReference{APIVersion: v1.GroupVersion.String(), Kind: "Workspace", Namespace: "own", Name: "live"},
	}
	for _, o := range []client.Object{live, dying, paused, assigned, given, free, leaving, own} {
		g.Expect(admin.Create(t.Context(), o)).To(Succeed())
		t.Cleanup(func() {
			_ = admin.Patch(context.WithoutCancel(t.Context()), o, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
			_ = admin.Delete(context.WithoutCancel(t.Context()), o)
		})
	}
	said := []metav1.Condition{
		{Type: v1.ConditionReady, Status: metav1.ConditionFalse, Reason: "Test", LastTransitionTime: metav1.Unix(1795737600, 0)},
		{Type: v1.ConditionNodeGone, Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Unix(1795737600, 0)},
	}
	live.Status = v1.WorkspaceStatus{NodeName: "node-a", Claim: 1, Conditions: said}
	assigned.Status.Conditions = said
	g.Expect(admin.Status().Update(t.Context(), live)).To(Succeed())
	g.Expect(admin.Status().Update(t.Context(), assigned)).To(Succeed())
	choice := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"nodeName":"node-a"}}`))
	g.Expect(admin.Patch(t.Context(), given, choice, client.FieldOwner(v1.FieldOwnerFleet))).To(Succeed())
	for _, o := range []client.Object{dying, paused, leaving} {
		g.Expect(admin.Delete(t.Context(), o)).To(Succeed())
	}
	all := workspaceTrials(live, dying, paused)
	all = append(all, snapshotTrials(assigned, given, free, leaving)...)
	return append(all, eventTrials(own)...)
}

// With every right that RBAC can give, the token of the cluster controller is good for what it does, and nothing else: it moves nothing, decides
// nothing, and says nothing in the place of a daemon.
func TestS4_TokenOfTheControllerWritesOnlyWhatIsItsOwn(t *testing.T) {
	g := NewWithT(t)
	admin := connect(t, api.Config())
	namespace(t, admin, "own")
	attempts := trials(t, admin)
	_, access, err := api.AddPod(t.Context(), system, controllerAccount, "controller", "node-a")
	g.Expect(err).NotTo(HaveOccurred())
	controller := connect(t, access)
	mayDoAnything(t, admin, system, controllerAccount)
	awaitAnything(t, controller, nobodys()[:2]...)
	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(a.do(client.NewDryRunClient(admin))).To(Succeed(), "nobody else is affected")
			if a.refused == "" {
				g.Expect(a.do(client.NewDryRunClient(controller))).To(Succeed())
				return
			}
			g.Expect(a.do(client.NewDryRunClient(controller))).To(MatchError(And(
				ContainSubstring("ValidatingAdmissionPolicy 'ws-daemon-controller"), ContainSubstring("denied request: "+a.refused))))
		})
	}
}
