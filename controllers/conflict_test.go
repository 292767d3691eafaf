package controllers

import (
	"context"
	"net/http"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// behind is a cache that shows an old version of one object.
type behind struct {
	client.Client
	old *v1.Workspace
}

func (b *behind) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if ws, ok := o.(*v1.Workspace); ok && key == client.ObjectKeyFromObject(b.old) {
		b.old.DeepCopyInto(ws)
		return nil
	}
	return b.Client.Get(ctx, key, o, opts...)
}

// stale returns a second daemon of the same node whose cache shows an old version.
func (w *world) stale(old *v1.Workspace) *WorkspaceReconciler {
	r := w.workspaces
	return &WorkspaceReconciler{
		Client: &behind{r.Client, old}, Reader: r.Reader, Recorder: r.Recorder, Keeper: r.Keeper, Jobs: r.Jobs,
		Clock: r.Clock, Node: r.Node, Settings: r.Settings, Wake: r.Wake,
	}
}

// What a daemon computed from an old version must not overwrite what another has written since.
func TestS4_StaleStatusWriteIsRefused(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.quiet()
	old := w.now(ws)
	w.patch(ws, "metadata: {annotations: {touched: by-somebody}}")
	before := w.now(ws).Status

	late := old.Status.DeepCopy()
	late.ObservedGeneration = 99
	err := w.workspaces.applyStatus(t.Context(), old, late)
	w.Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
	w.Expect(w.now(ws).Status).To(BeComparableTo(before))
}

func TestS4_ConflictsAreNoFailures(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.quiet()
	old := w.now(ws)
	w.patch(ws, "metadata: {annotations: {touched: by-somebody}}")
	w.quiet()
	before := w.now(ws)
	old.Generation++ // something to report
	from := w.traffic.count()

	result, err := w.stale(old).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(ws)})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(result).To(Equal(ctrl.Result{RequeueAfter: 1e9}))
	requests := w.traffic.all(func(*request) bool { return true })[from:]
	w.Expect(requests).To(HaveLen(2), describeAll(requests))
	w.Expect(requests[0].status).To(Equal(http.StatusConflict))
	w.Expect(requests[1].verb).To(Equal("GET"), "a look at whether the API server went back in time")
	w.Expect(requests[0].sent).To(And(
		ContainSubstring(`"uid":"`+string(ws.UID)+`"`), ContainSubstring(`"resourceVersion":"`+old.ResourceVersion+`"`)))
	w.Expect(w.now(ws)).To(BeComparableTo(before), "nothing was written, no failure counted")
	w.Expect(w.now(ws).Status.Operation).To(BeNil())
}

func TestS4_StatusWriteMakesNoObject(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	old := w.now(ws)
	w.gone(ws)

	err := w.workspaces.applyStatus(t.Context(), old, &old.Status)
	w.Expect(err).To(HaveOccurred())
	w.Expect(apierrors.IsNotFound(w.Get(t.Context(), client.ObjectKeyFromObject(ws), &v1.Workspace{}))).To(BeTrue())

	again := w.create("web")
	w.running(again)
	before := w.now(again)
	old.Status.Claim = before.Status.Claim // else the claim would be refused for going back
	err = w.workspaces.applyStatus(t.Context(), old, &old.Status)
	w.Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
	w.Expect(w.now(again).Status).To(BeComparableTo(before.Status))
}

// A claim is one compare-and-swap write: of a daemon with an old cache, nothing remains.
func TestS4_AClaimFromAStaleCacheIsRefused(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Annotations = map[string]string{v1.AnnotationPaused: ""} })
	w.becomes(ws, "Ready", "False/Paused")
	old := w.now(ws)
	old.Annotations = nil
	w.patch(ws, "spec: {nodeName: elsewhere}")
	r := w.stale(old)
	w.Eventually(func() int {
		from := w.traffic.count()
		_, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(ws)})
		w.Expect(err).NotTo(HaveOccurred())
		conflicts := 0
		for _, sent := range w.traffic.all(func(*request) bool { return true })[from:] {
			if sent.name == "web" && sent.status == http.StatusConflict {
				conflicts++
			}
		}
		return conflicts
	}).Should(BeNumerically(">", 0))
	got := w.now(ws)
	w.Expect(got.Status.NodeName).To(BeEmpty())
	w.Expect(got.Status.Claim).To(BeZero())
	w.Expect(w.volumes()).To(BeEmpty())
}
