package csi

import (
	"errors"
	"os"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
)

const (
	areaVariable    = "WS_DAEMON_TEST_AREA"
	storeVariable   = "WS_DAEMON_TEST_STORE"
	kubeletVariable = "WS_DAEMON_TEST_KUBELET"
	goalVariable    = "WS_DAEMON_TEST_GOAL"
)

// What the kubelet, or a stop, wants of a daemon that was started.
const (
	goalPublish   = "publish"
	goalUnpublish = "unpublish"
	goalStart     = "start"
	goalStop      = "stop"
)

// TestChild is a daemon that is started, and does one thing. Without its environment it does nothing.
func TestChild(t *testing.T) {
	dir := os.Getenv(areaVariable)
	if dir == "" {
		return
	}
	w := openWorld(t, dir, os.Getenv(storeVariable), os.Getenv(kubeletVariable))
	w.node = w.start()
	switch os.Getenv(goalVariable) {
	case goalPublish:
		w.Expect(w.publish()).To(Succeed())
	case goalUnpublish:
		w.Expect(w.unpublish()).To(Succeed())
	case goalStop:
		w.stop()
	}
}

// stop takes the content away, which a pod that has it mounted, and nothing else, must prevent.
func (w *world) stop() {
	w.t.Helper()
	err := w.keeper.Discard(w.t.Context(), subject(), unused)
	if len(w.table()) > 0 {
		w.mounted()
		w.Expect(errors.Is(err, content.ErrInUse)).To(BeTrue(), "%v", err)
		return
	}
	w.Expect(err).NotTo(HaveOccurred())
}

// crashed is a node whose daemon is another process, and does not run.
type crashed struct {
	*world
	program faultstest.Program
}

func newCrashed(t *testing.T, program faultstest.Program) *crashed {
	t.Helper()
	w := newWorld(t)
	w.keeper.Area.Close()
	return &crashed{world: w, program: program}
}

// run starts the daemon for one thing.
func (c *crashed) run(goal, variable string) error {
	return c.program.Run(c.t.Context(), areaVariable+"="+c.dir, storeVariable+"="+c.store, kubeletVariable+"="+c.kubelet,
		goalVariable+"="+goal, variable)
}

func (c *crashed) must(goal string) {
	c.t.Helper()
	c.Expect(c.run(goal, faultstest.Kill(""))).To(Succeed())
}

// reopen lets this process look at the node.
func (c *crashed) reopen() *world {
	c.t.Helper()
	c.openKeeper()
	c.node.Keeper = c.keeper
	return c.world
}

// A daemon that is killed anywhere in a publication or its end, and started again, knows what is mounted; whatever the kubelet asks then
// comes to its right end, and a stop never takes away what a pod has.
func TestS5_KillAtEveryStepOfAVolume(t *testing.T) {
	program := faultstest.Build(t)
	for _, goal := range []string{goalPublish, goalUnpublish} {
		begin := func(t *testing.T) *crashed {
			t.Helper()
			c := newCrashed(t, program)
			if goal == goalUnpublish {
				c.must(goalPublish)
			}
			return c
		}
		points := faultstest.Trace(t, func(variable string) error { return begin(t).run(goal, variable) })
		for _, point := range points {
			for _, then := range []string{goal, goalUnpublish, goalStop, "reboot"} {
				t.Run(goal+"/"+point+"/then-"+then, func(t *testing.T) {
					c := begin(t)
					c.Expect(c.run(goal, faultstest.Kill(point))).To(MatchError(ContainSubstring("signal: killed")))
					c.then(then)
				})
			}
		}
	}
}

// then goes on after a kill, and expects the right end.
func (c *crashed) then(next string) {
	c.t.Helper()
	switch next {
	case "reboot":
		for _, target := range c.table() {
			c.Expect(unix.Unmount(target, unix.MNT_DETACH)).To(Succeed())
		}
		c.must(goalStart)
		w := c.reopen()
		c.Expect(w.keeper.Uses(wsUID)).To(BeEmpty())
		w.keeper.Area.Close()
		c.must(goalUnpublish)
		c.reopen().clean()
	case goalStop:
		c.must(goalStop)
		mounted := len(c.table()) > 0
		c.Expect(c.reopen().keeper.Uses(wsUID) != nil).To(Equal(mounted))
	case goalUnpublish:
		c.must(goalUnpublish)
		c.reopen().clean()
	case goalPublish:
		c.must(goalPublish)
		c.reopen().mounted()
	}
}

// What is mounted, and what is written down, agree after a start, whatever was lost.
func TestRecover(t *testing.T) {
	for name, tt := range map[string]struct {
		lose func(w *world)
		uses int
	}{
		"nothing is lost": {func(*world) {}, 1},
		"the use": {func(w *world) {
			_, err := w.keeper.Return(w.target)
			w.Expect(err).NotTo(HaveOccurred())
		}, 1},
		"the mount": {func(w *world) { w.Expect(unix.Unmount(w.target, 0)).To(Succeed()) }, 0},
		"the pod's directory": {func(w *world) {
			w.Expect(unix.Unmount(w.target, 0)).To(Succeed())
			w.Expect(os.RemoveAll(w.kubelet + "/pods/" + podUID)).To(Succeed())
		}, 0},
		"the content, for another mount": {func(w *world) {
			w.Expect(unix.Unmount(w.target, 0)).To(Succeed())
			_, err := w.keeper.Return(w.target)
			w.Expect(err).NotTo(HaveOccurred())
			w.Expect(unix.Mount("none", w.target, "tmpfs", 0, "")).To(Succeed())
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Expect(w.publish()).To(Succeed())
			tt.lose(w)
			w.node = w.start()
			w.Expect(w.keeper.Uses(wsUID)).To(HaveLen(tt.uses))
			if tt.uses > 0 {
				w.mounted()
				w.Expect(w.keeper.Uses(wsUID)[0].PodUID).To(Equal(podUID))
			}
			w.Expect(w.unpublish()).To(Succeed())
			w.clean()
		})
	}
}

// A target that a call is at work on is left to that, also if nothing is mounted there yet.
func TestRecoverLeavesCallsAlone(t *testing.T) {
	w := newWorld(t)
	release, err := w.node.take(w.target)
	w.Expect(err).NotTo(HaveOccurred())
	dir, err := w.keeper.Lend(t.Context(), subject(), w.request().use())
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(dir.Close()).To(Succeed())
	w.Expect(w.node.Recover(t.Context())).To(Succeed())
	w.Expect(w.keeper.Uses(wsUID)).To(HaveLen(1))
	release()
	w.Expect(w.node.Recover(t.Context())).To(Succeed())
	w.Expect(w.keeper.Uses(wsUID)).To(BeEmpty())
}

// Where mounts for pods cannot be seen, there is no evidence that nothing is mounted.
func TestS10_RecoverWithoutTheKubeletsDirectory(t *testing.T) {
	for name, tt := range map[string]struct {
		hide func(w *world) error
		want string
	}{
		"no directory": {func(w *world) error { w.node.KubeletDir = w.kubelet + "/missing"; return nil }, "open the kubelet's directory"},
		"no pods": {func(w *world) error {
			return errors.Join(unix.Unmount(w.target, 0), os.Rename(w.kubelet+"/pods", w.kubelet+"/gone"))
		}, "/pods is not there: mount it with mountPropagation Bidirectional"},
		"not shared": {func(w *world) error {
			return errors.Join(unix.Unmount(w.target, 0), unix.Mount("", w.kubelet, "", unix.MS_PRIVATE, ""))
		}, "is not a shared mount"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Expect(w.publish()).To(Succeed())
			w.Expect(tt.hide(w)).To(Succeed())
			w.Expect(w.node.Recover(t.Context())).To(MatchError(ContainSubstring(tt.want)))
			w.Expect(w.keeper.Uses(wsUID)).To(HaveLen(1))
		})
	}
}

func (w *world) request() request {
	r, err := parse(w.ask())
	w.Expect(err).NotTo(HaveOccurred())
	return r
}
