package controllers

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// createForeign makes workspaces of other nodes.
func (w *world) createForeign(from, to int) {
	var group sync.WaitGroup
	for worker := range 20 {
		group.Go(func() {
			for i := from + worker; i < to; i += 20 {
				ws := w.workspace(fmt.Sprintf("foreign-%d", i), func(ws *v1.Workspace) { ws.Spec.NodeName = fmt.Sprintf("elsewhere-%d", i%50) })
				if err := w.Create(w.Context(), ws); err != nil {
					w.Errorf("create %s: %v", ws.Name, err)
				}
			}
		})
	}
	group.Wait()
}

func TestForeignObjectsAreNotReceived(t *testing.T) {
	noLeaks(t)
	w := newWorld(t)
	w.createForeign(0, 500) // what a list would show
	stop := w.start()
	ws := w.create("mine")
	w.running(ws)
	w.createForeign(500, 1000) // what a watch would show
	var all v1.WorkspaceList
	w.Expect(w.List(t.Context(), &all, client.InNamespace(w.namespace))).To(Succeed())
	w.Expect(all.Items).To(HaveLen(1001))

	w.backup(ws, "last") // the watch has come as far as this
	got := w.traffic.delivered("workspaces")
	w.Expect(got).To(HaveLen(1), "only the own one was received")
	w.Expect(got).To(HaveKey("mine"))
	var cached v1.WorkspaceList
	w.Expect(w.workspaces.List(t.Context(), &cached)).To(Succeed())
	w.Expect(cached.Items).To(HaveLen(1))
	w.gone(ws)
	stop()
	w.Expect(w.DeleteAllOf(t.Context(), &v1.Workspace{}, client.InNamespace(w.namespace))).To(Succeed())
}

// settled returns a running workspace whose daemon has nothing to do, and how to reconcile it.
func (w *world) settled() ctrl.Request {
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.backup(ws, "first")
	w.Eventually(func() string {
		summary, _ := condition(w.now(ws).Status.Conditions, "BackedUp")
		return summary
	}).Should(Equal("True/UpToDate"))
	w.quiet()
	return ctrl.Request{NamespacedName: client.ObjectKeyFromObject(ws)}
}

// children returns the page faults of all programs that were run and have ended: any program has some.
func children() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err != nil {
		panic(err)
	}
	return usage.Minflt
}

func TestUnchangedObjectMakesNoRequest(t *testing.T) {
	w := newWorld(t)
	req := w.settled()
	before, programs := w.traffic.count(), children()
	for range 100 {
		result, err := w.workspaces.Reconcile(t.Context(), req)
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(result.RequeueAfter).To(BeNumerically(">", 0), "the next backup is due some day")
	}
	w.Expect(describeAll(w.traffic.all(func(*request) bool { return true })[before:])).To(BeEmpty())
	w.Expect(children()).To(Equal(programs), "no program was run")
}

func BenchmarkReconcileUnchanged(b *testing.B) {
	w := newWorld(b)
	req := w.settled()
	before := w.traffic.count()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.workspaces.Reconcile(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(w.traffic.count()-before)/float64(b.N), "requests/op")
}

func TestLifeCostsAtMostTwelveWrites(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "text")
	w.backup(ws, "now")
	w.gone(ws)
	writes := w.traffic.writes("workspaces", "web")
	w.Expect(len(writes)).To(BeNumerically("<=", 12), describeAll(writes))
	w.Expect(len(writes)).To(BeNumerically(">=", 4), "claim, finalizer, ready, release: else nothing was counted")
	t.Logf("%d writes\n%s", len(writes), describeAll(writes))
	w.Expect(w.volumes()).To(BeEmpty())
}
