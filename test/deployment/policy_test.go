package deployment

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// daemonOf returns what the token of a daemon's pod on a node is good for; without a node, the token is bound to no pod.
func daemonOf(t *testing.T, node string) client.Client {
	t.Helper()
	_, access, err := api.AddPod(t.Context(), system, account, "pod-of-"+node, node)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	c := connect(t, access)
	t.Cleanup(func() {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "pod-of-" + node}}
		_ = connect(t, api.Config()).Delete(context.WithoutCancel(t.Context()), pod, client.GracePeriodSeconds(0))
	})
	return c
}

// mayDoAnything gives a service account all rights, for one test: what it is refused then, admission refuses.
func mayDoAnything(t *testing.T, admin client.Client, namespace, account string) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "anything-" + namespace + "-" + account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}
	NewWithT(t).Expect(admin.Create(t.Context(), binding)).To(Succeed())
	t.Cleanup(func() { _ = admin.Delete(context.WithoutCancel(t.Context()), binding) })
}

// awaitAnything waits until the API server knows that a service account may do anything, and that policies refuse it some objects.
func awaitAnything(t *testing.T, c client.Client, refused ...client.Object) {
	t.Helper()
	g, dry := NewWithT(t), client.NewDryRunClient(c)
	something := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "any"}}
	g.Eventually(func() error { return create(something)(dry) }, patience).Should(Succeed(), "it may do anything")
	for _, o := range refused {
		g.Eventually(func() error { return create(o)(dry) }, patience).Should(MatchError(ContainSubstring("ValidatingAdmissionPolicy 'ws-daemon-")), "%T", o)
	}
}

// nobodys are objects that neither a daemon nor the cluster controller may make: a Workspace and an event, and of the daemons' policies a Node
// and its report.
func nobodys() []client.Object {
	pod := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: "any"}
	return []client.Object{
		&v1.Workspace{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "any"}, Spec: v1.WorkspaceSpec{Volume: v1.VolumeSpec{Size: resource.MustParse("1Gi")}},
		},
		&eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "any"}, EventTime: metav1.NowMicro(), Reason: "Test", Action: "Test", Type: "Normal",
			ReportingController: "any", ReportingInstance: "any", Regarding: pod,
		},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}},
		&v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}},
	}
}

// namespace makes a namespace, unless it is there.
func namespace(t *testing.T, admin client.Client, name string) {
	t.Helper()
	o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	NewWithT(t).Expect(client.IgnoreAlreadyExists(admin.Create(t.Context(), o))).To(Succeed())
}

// attempt is something that a daemon may want to do to an object of node-a.
type attempt struct {
	name string
	do   func(c client.Client) error
	// refused is what the daemon of node-a is told; empty: it may do that.
	refused string
	// anyNode says that the daemon of another node may do it, too.
	anyNode bool
}

func patch(o client.Object, kind types.PatchType, text string) func(c client.Client) error {
	return func(c client.Client) error {
		return c.Patch(context.Background(), o.DeepCopyObject().(client.Object), client.RawPatch(kind, []byte(text))) //nolint:forcetypeassert // a copy
	}
}

func merge(o client.Object, text string) func(c client.Client) error {
	return patch(o, types.MergePatchType, text)
}

func mergeStatus(o client.Object, text string) func(c client.Client) error {
	return func(c client.Client) error {
		return c.Status().Patch(context.Background(), o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(text))) //nolint:forcetypeassert // a copy
	}
}

func update(o client.Object, change func()) func(c client.Client) error {
	return func(c client.Client) error {
		if err := c.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		change()
		return c.Update(context.Background(), o)
	}
}

func create(o client.Object) func(c client.Client) error {
	return func(c client.Client) error { return c.Create(context.Background(), o.DeepCopyObject().(client.Object)) } //nolint:forcetypeassert // a copy
}

func remove(o client.Object) func(c client.Client) error {
	return func(c client.Client) error { return c.Delete(context.Background(), o.DeepCopyObject().(client.Object)) } //nolint:forcetypeassert // a copy
}

func removeAll(o client.Object) func(c client.Client) error {
	return func(c client.Client) error { return c.DeleteAllOf(context.Background(), o, client.InNamespace("own")) }
}

const (
	onlyStatus = "a daemon changes only the status of an object, and its finalizer"
	neither    = "a daemon makes no Workspaces, and deletes neither them nor Snapshots"
)

func workspaceAttempts(ws *v1.Workspace) []attempt {
	other := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "another"}, Spec: ws.Spec}
	return []attempt{
		{"make a workspace", create(other), neither, false},
		{"delete a workspace", remove(ws), neither, false},
		{"delete all workspaces", removeAll(&v1.Workspace{}), neither, false},
		{"replace its spec", update(ws, func() { ws.Spec.Volume.Size = resource.MustParse("2Gi") }), onlyStatus, false},
		{"give it to another node", merge(ws, `{"spec":{"nodeName":"node-b"}}`), onlyStatus, false},
		{"stop it", merge(ws, `{"spec":{"state":"Stopped"}}`), onlyStatus, false},
		{"decide to discard", merge(ws, `{"metadata":{"annotations":{"workspace.wsdaemon.dev/discard":"1"}}}`), onlyStatus, false},
		{"withdraw a decision", merge(ws, `{"metadata":{"annotations":{"a":null}}}`), onlyStatus, false},
		{"label it", merge(ws, `{"metadata":{"labels":{"a":"b"}}}`), onlyStatus, false},
		{"own it", merge(ws, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node-a","uid":"1"}]}}`), onlyStatus, false},
		{"another finalizer", merge(ws, `{"metadata":{"finalizers":["a.example/b","a.example/c"]}}`), onlyStatus, false},
		{"another's finalizer goes", merge(ws, `{"metadata":{"finalizers":null}}`), onlyStatus, false},
		{"its finalizer", merge(ws, `{"metadata":{"finalizers":["a.example/b","workspace.wsdaemon.dev/content"]}}`), "", false},
		{"patch its status", mergeStatus(ws, `{"status":{"nodeName":"node-a","claim":1}}`), "", false},
		{"replace its status", func(c client.Client) error {
			if err := c.Get(context.Background(), client.ObjectKeyFromObject(ws), ws); err != nil {
				return err
			}
			ws.Status.Claim++
			return c.Status().Update(context.Background(), ws)
		}, "", false},
		{"read it", func(c client.Client) error {
			return c.Get(context.Background(), client.ObjectKeyFromObject(ws), &v1.Workspace{})
		}, "", true},
	}
}

func snapshotAttempts(s *v1.Snapshot) []attempt {
	try := func(change func(*v1.Snapshot)) func(c client.Client) error {
		o := &v1.Snapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "another"}, Spec: s.Spec}
		change(o)
		return func(c client.Client) error { return c.Create(context.Background(), o.DeepCopy(), client.DryRunAll) }
	}
	const plain = "a daemon makes Snapshots without annotations, labels, owners and finalizers"
	return []attempt{
		{"make a snapshot", try(func(*v1.Snapshot) {}), "", false},
		{"make one of another node", try(func(o *v1.Snapshot) { o.Spec.NodeName = "node-c" }), "a daemon makes Snapshots of its own node only", false},
		{"make one that others keep", try(func(o *v1.Snapshot) { o.Finalizers = []string{"a.example/b"} }), plain, false},
		{"make one with a label", try(func(o *v1.Snapshot) { o.Labels = map[string]string{"a": "b"} }), plain, false},
		{"delete a snapshot", remove(s), neither, false},
		{"delete all snapshots", removeAll(&v1.Snapshot{}), neither, false},
		{"give it to another node", merge(s, `{"spec":{"nodeName":"node-b"}}`), onlyStatus, false},
		{"delete its data", merge(s, `{"spec":{"deletionPolicy":"Delete"}}`), onlyStatus, false},
		{"label it", merge(s, `{"metadata":{"labels":{"a":"b"}}}`), onlyStatus, false},
		{"its finalizer", merge(s, `{"metadata":{"finalizers":["workspace.wsdaemon.dev/content"]}}`), "", false},
		{"patch its status", mergeStatus(s, `{"status":{"snapshotID":"one"}}`), "", false},
	}
}

func reportAttempts(own *v1.WorkspaceNode) []attempt {
	const owner = `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node-a","uid":"1"}]}}`
	labelled := &v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: "node-c", Labels: map[string]string{"a": "b"}}}
	return []attempt{
		{"make the report of node-c", create(&v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: "node-c"}}), "of its own node only", false},
		{"make one with labels", create(labelled), "of its own node only", false},
		{"delete it", remove(own), "a daemon deletes no WorkspaceNode", false},
		{"delete all", func(c client.Client) error { return c.DeleteAllOf(context.Background(), &v1.WorkspaceNode{}) }, "a daemon deletes no WorkspaceNode", false},
		{"decide to remove orphans", merge(own, `{"metadata":{"annotations":{"workspace.wsdaemon.dev/remove-orphans":"now"}}}`), "only the owner", false},
		{"label it", merge(own, `{"metadata":{"labels":{"a":"b"}}}`), "only the owner", false},
		{"give it to a Node", merge(own, owner), "", false},
		{"give it to anything", merge(own, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"1"}]}}`), "belongs to the Node", false},
		{"patch its status", mergeStatus(own, `{"status":{"areaID":"x"}}`), "", false},
	}
}

func nodeAttempts(own *corev1.Node) []attempt {
	const (
		metadata = "of the metadata of its Node a daemon changes only the annotations against scale-down"
		spec     = "of the spec of its Node a daemon changes only the taint workspace.wsdaemon.dev/disk-pressure:NoSchedule"
		neither  = "a daemon neither makes nor deletes Nodes, and writes no status of them"
	)
	addTaint := func(taint string) func(c client.Client) error {
		return patch(own, types.JSONPatchType, `[{"op":"add","path":"/spec/taints/-","value":`+taint+`}]`)
	}
	return []attempt{
		{"make a Node", create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-c"}}), neither, false},
		{"delete it", remove(own), neither, false},
		{"delete all", func(c client.Client) error { return c.DeleteAllOf(context.Background(), &corev1.Node{}) }, neither, false},
		{"its status", mergeStatus(own, `{"status":{"phase":"Running"}}`), neither, false},
		{"a label", merge(own, `{"metadata":{"labels":{"a":"b"}}}`), metadata, false},
		{"another annotation", merge(own, `{"metadata":{"annotations":{"a":"b"}}}`), metadata, false},
		{"a finalizer", merge(own, `{"metadata":{"finalizers":["a.example/b"]}}`), metadata, false},
		{"cordon", merge(own, `{"spec":{"unschedulable":true}}`), spec, false},
		{"another taint", merge(own, `{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}`), spec, false},
		{"its taint with another effect", addTaint(`{"key":"` + v1.TaintDiskPressure + `","effect":"NoExecute"}`), spec, false},
		{"the taints of others go", merge(own, `{"spec":{"taints":null}}`), spec, false},
		{"protect it", merge(own, `{"metadata":{"annotations":{"`+v1.AnnotationScaleDown+`":"true","`+v1.AnnotationScaleDownOurs+`":"true"}}}`), "", false},
		{"taint it", addTaint(`{"key":"` + v1.TaintDiskPressure + `","effect":"NoSchedule"}`), "", false},
	}
}

func eventAttempts(own, foreign *eventsv1.Event) []attempt {
	about := func(kind, name, controller, instance string) *eventsv1.Event {
		e := own.DeepCopy()
		e.Name, e.ResourceVersion, e.UID = "new", "", ""
		e.Regarding.Kind, e.Regarding.Name, e.ReportingController, e.ReportingInstance = kind, name, controller, instance
		return e
	}
	older := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: foreign.Namespace, Name: foreign.Name}}
	const asItself, of = "a daemon tells events as itself", "a daemon tells events of Workspaces, Snapshots, and its own Node and WorkspaceNode"
	return []attempt{
		{"tell of a workspace", create(about("Workspace", "any", account, own.ReportingInstance)), "", false},
		{"tell of its Node", create(about("Node", "node-a", account, own.ReportingInstance)), "", false},
		{"tell of another Node", create(about("Node", "node-b", account, own.ReportingInstance)), of, false},
		{"tell of a pod", create(about("Pod", "any", account, own.ReportingInstance)), of, false},
		{"tell as the kubelet", create(about("Node", "node-a", "kubelet", own.ReportingInstance)), asItself, false},
		{"tell as another daemon", create(about("Node", "node-a", account, "ws-daemon-pod-of-node-b")), asItself, false},
		{"tell it again", merge(own, `{"series":{"count":2,"lastObservedTime":"2026-11-27T00:00:00.000000Z"}}`), "", false},
		{"tell another's again", merge(foreign, `{"series":{"count":2,"lastObservedTime":"2026-11-27T00:00:00.000000Z"}}`), asItself, false},
		{"take over another's, by the older API", merge(older, `{"reportingComponent":"ws-daemon","reportingInstance":"`+own.ReportingInstance+`"}`),
			"a daemon changes only its own events", false},
		{"delete it", remove(own), "a daemon deletes no events", false},
		{"delete all", removeAll(&eventsv1.Event{}), "a daemon deletes no events", false},
	}
}

// objectsOf makes objects of node-a, and returns all that a daemon may try with them.
func objectsOf(t *testing.T, admin client.Client) []attempt {
	t.Helper()
	g := NewWithT(t)
	event := func(name, controller, instance string) *eventsv1.Event {
		return &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: name}, EventTime: metav1.NowMicro(), Reason: "Test", Action: "Test", Type: "Normal",
			ReportingController: controller, ReportingInstance: instance,
			Regarding: corev1.ObjectReference{APIVersion: v1.GroupVersion.String(), Kind: "Workspace", Namespace: "own", Name: "web"},
		}
	}
	meta := metav1.ObjectMeta{Namespace: "own", Name: "web", Annotations: map[string]string{"a": "b"}, Finalizers: []string{"a.example/b"}}
	ws := &v1.Workspace{ObjectMeta: meta, Spec: v1.WorkspaceSpec{NodeName: "node-a", Volume: v1.VolumeSpec{Size: resource.MustParse("1Gi")}}}
	snapshot := &v1.Snapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "web"}, Spec: v1.SnapshotSpec{WorkspaceName: "web", NodeName: "node-a"}}
	report := &v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "others", Effect: corev1.TaintEffectNoSchedule}}}}
	own, foreign := event("own", account, "ws-daemon-pod-of-node-a"), event("foreign", "kubelet", "kubelet-node-a")
	namespace(t, admin, "own")
	for _, o := range []client.Object{ws, snapshot, report, node, own, foreign} {
		g.Expect(admin.Create(t.Context(), o)).To(Succeed())
		t.Cleanup(func() {
			o.SetFinalizers(nil)
			_ = admin.Patch(context.WithoutCancel(t.Context()), o, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
			_ = admin.Delete(context.WithoutCancel(t.Context()), o)
		})
	}
	all := workspaceAttempts(ws)
	all = append(all, snapshotAttempts(snapshot)...)
	all = append(all, reportAttempts(report)...)
	all = append(all, nodeAttempts(node)...)
	return append(all, eventAttempts(own, foreign)...)
}

// With every right that RBAC can give, a daemon's token is good for its own node only, whatever the verb: that of another node's pod and
// one that is bound to no pod are good for nothing but reading.
func TestS4_TokenWritesOnlyWhatIsOfItsNode(t *testing.T) {
	admin := connect(t, api.Config())
	attempts := objectsOf(t, admin)
	own, other, unbound := daemonOf(t, "node-a"), daemonOf(t, "node-b"), daemonOf(t, "")
	mayDoAnything(t, admin, system, account)
	dry := client.NewDryRunClient
	awaitAnything(t, other, nobodys()...)

	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(a.do(dry(admin))).To(Succeed(), "nobody else is affected")
			refused := MatchError(And(ContainSubstring("ValidatingAdmissionPolicy 'ws-daemon-"), ContainSubstring("denied request")))
			if a.refused == "" {
				g.Expect(a.do(dry(own))).To(Succeed())
			} else {
				g.Expect(a.do(dry(own))).To(And(refused, MatchError(ContainSubstring(a.refused))))
			}
			if a.anyNode {
				refused = BeNil()
			}
			g.Expect(a.do(dry(other))).To(refused)
			g.Expect(a.do(dry(unbound))).To(refused)
		})
	}
}

// The daemon makes the report of its node, once.
func TestS4_ReportIsMadeByTheDaemonOfItsNode(t *testing.T) {
	g := NewWithT(t)
	own, unbound := daemonOf(t, "node-n"), daemonOf(t, "")
	report := func() *v1.WorkspaceNode {
		return &v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: "node-n"}}
	}
	g.Expect(unbound.Create(t.Context(), report())).To(MatchError(ContainSubstring(`which its token says is ""`)))
	labelled := report()
	labelled.Labels = map[string]string{"a": "b"}
	g.Expect(own.Create(t.Context(), labelled)).To(MatchError(ContainSubstring("without labels, annotations and finalizers")))
	g.Expect(own.Create(t.Context(), report())).To(Succeed())
	g.Expect(own.Delete(t.Context(), report())).To(MatchError(apierrors.IsForbidden, "refused by RBAC"))
	g.Expect(connect(t, api.Config()).Delete(t.Context(), report())).To(Succeed())
}
