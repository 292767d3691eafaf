package controllers

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// hourglass is a world whose daemon has a clock that the test moves.
type hourglass struct {
	*world
	clock *testingclock.FakePassiveClock
	way   *unlisted
}

// unlisted is a way to the API server on which lists may fail.
type unlisted struct {
	client.Reader

	mu  sync.Mutex
	err error
}

func (u *unlisted) set(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
}

func (u *unlisted) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	u.mu.Lock()
	err := u.err
	u.mu.Unlock()
	if _, ok := list.(*v1.WorkspaceList); ok && err != nil {
		return err
	}
	return u.Reader.List(ctx, list, opts...)
}

func newHourglass(t *testing.T) *hourglass {
	t.Helper()
	return newHourglassWith(t, func(*world) {})
}

func newHourglassWith(t *testing.T, change func(*world)) *hourglass {
	t.Helper()
	h := &hourglass{world: newWorld(t), clock: testingclock.NewFakePassiveClock(time.Now()), way: &unlisted{}}
	h.world.clock = h.clock
	h.reader = func(r client.Reader) client.Reader {
		h.way.Reader = r
		return h.way
	}
	change(h.world)
	h.start()
	return h
}

// orphaned makes a workspace with unsaved content and takes its object away without a trace.
func (h *hourglass) orphaned(name string) (ws *v1.Workspace, file string) {
	h.Helper()
	ws = h.create(name)
	h.running(ws)
	h.write(ws, "file", "unsaved")
	file = h.path(ws, "file")
	h.patch(ws, "metadata: {annotations: {"+v1.AnnotationPaused+": as-if-the-daemon-were-down}}")
	h.becomes(ws, "Ready", "False/Paused")
	h.patch(ws, "metadata: {finalizers: null}")
	h.Expect(h.Delete(h.Context(), ws)).To(Succeed())
	return ws, file
}

func (h *hourglass) entry(ws *v1.Workspace) state.Entry {
	e, _ := h.workspaces.Keeper.Area.Journal().Get(string(ws.UID))
	return e
}

// missing waits until an object was seen to be missing now.
func (h *hourglass) missing(ws *v1.Workspace) {
	h.Helper()
	h.Eventually(func() bool { h.wake(ws); return h.entry(ws).MissingSeen.Equal(h.clock.Now()) }).Should(BeTrue())
}

// pass lets time pass, in which the objects are looked for every ten minutes.
func (h *hourglass) pass(d time.Duration, all ...*v1.Workspace) {
	h.Helper()
	for ; d > 0; d -= orphanInterval {
		h.clock.SetTime(h.clock.Now().Add(min(d, orphanInterval)))
		for _, ws := range all {
			h.missing(ws)
		}
	}
}

func TestS10_OrphanGoesAfterTheGraceAndAStraySnapshot(t *testing.T) {
	h := newHourglass(t)
	ws, file := h.orphaned("web")
	h.missing(ws)
	h.pass(50*time.Minute, ws)
	h.clock.SetTime(h.clock.Now().Add(10*time.Minute - time.Second))
	h.wake(ws)
	h.Consistently(func() string { return file }, "300ms").Should(BeAnExistingFile())
	h.clock.SetTime(h.clock.Now().Add(time.Second))
	h.Eventually(func() []string { h.wake(ws); return h.volumes() }).Should(BeEmpty())
	h.Eventually(h.events).Should(ContainSubstring(v1.EventStraySnapshot))
	h.Eventually(h.nodeEvents).Should(ContainElement(And(HavePrefix("Warning Orphan: the object of workspace "+h.namespace+"/web has been missing since "), ContainSubstring(string(ws.UID)))))
}

func TestS10_OrphanWhoseAbsenceIsNotSureStays(t *testing.T) {
	h := newHourglass(t)
	ws, file := h.orphaned("web")
	h.missing(ws)

	h.way.set(errors.New("the list is too long"))
	for range 12 {
		h.clock.SetTime(h.clock.Now().Add(orphanInterval))
		h.wake(ws)
	}
	h.Expect(h.entry(ws).MissingSeen).To(BeTemporally("<", h.clock.Now().Add(-time.Hour)), "nothing was seen without a list")
	h.way.set(nil)
	h.missing(ws)
	h.Expect(h.entry(ws).MissingSince.Equal(h.clock.Now())).To(BeTrue(), "the time begins anew: nobody looked for two hours")

	info, err := h.workspaces.Keeper.Volumes["default"].Get(t.Context(), string(ws.UID))
	h.Expect(err).NotTo(HaveOccurred())
	marker, err := volume.ReadMarker(info)
	h.Expect(err).NotTo(HaveOccurred())
	marker.Cluster = "another"
	h.Expect(volume.WriteMarker(info, marker)).To(Succeed())
	h.Eventually(func() *time.Time { h.wake(ws); return h.entry(ws).MissingSince }).Should(BeNil(), "what was seen counts no more")
	h.Expect(file).To(BeAnExistingFile())
	h.Eventually(func() string { return logged.String()[h.begin:] }).Should(ContainSubstring("and the content of another"))
}

func TestS10_ManyOrphansWaitForAPerson(t *testing.T) {
	h := newHourglass(t)
	one, first := h.orphaned("one")
	two, second := h.orphaned("two")
	h.missing(one)
	h.missing(two)
	h.pass(time.Hour, one, two)
	stalled := func(want string) (message string) {
		h.report(func(g Gomega, n *v1.WorkspaceNode) {
			h.clock.SetTime(h.clock.Now().Add(time.Second)) // passes have a pause in between
			var summary string
			summary, message = condition(n.Status.Conditions, v1.ConditionStalled)
			g.Expect(summary).To(Equal(want), message)
		})
		return message
	}
	h.Expect(stalled("True/TooManyOrphans")).To(ContainSubstring("more volumes than the 1 of 2 that may go within 1h0m0s"))
	h.wake(one)
	h.wake(two)
	h.Consistently(func() []string { return []string{first, second} }, "300ms").Should(HaveEach(BeAnExistingFile()))

	consent := h.entry(two).MissingSince.Add(time.Second).UTC().Format(time.RFC3339)
	node := &v1.WorkspaceNode{}
	node.Name = h.node
	h.patch(node, "metadata: {annotations: {"+v1.AnnotationRemoveOrphans+": '"+consent+"'}}")
	stalled("absent")
	h.Eventually(func() []string { h.wake(one); h.wake(two); return h.volumes() }).Should(BeEmpty())
}

// An object that is there again was never missing.
func TestS10_ObjectThatIsBackBeginsAnew(t *testing.T) {
	h := newHourglass(t)
	ws := h.create("web")
	h.running(ws)
	at := h.clock.Now().Add(-30 * time.Minute)
	_, err := h.workspaces.Keeper.Area.Journal().Update(string(ws.UID), func(e *state.Entry, _ bool) bool {
		e.MissingSince, e.MissingSeen = &at, h.clock.Now()
		return true
	})
	h.Expect(err).NotTo(HaveOccurred())
	h.Eventually(func() *time.Time { h.wake(ws); return h.entry(ws).MissingSince }).Should(BeNil())
	_, err = os.Stat(h.path(ws, ""))
	h.Expect(err).NotTo(HaveOccurred())
}
