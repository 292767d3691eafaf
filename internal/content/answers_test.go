package content_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// hanging is a driver whose disk does not answer some questions: no context ends what waits for it.
type hanging struct {
	volume.Driver

	hangs   map[string]chan struct{} // closed when it answers; by id, "" for all volumes
	waiting chan struct{}            // gets one for each that begins to wait
}

func newHanging(ids ...string) *hanging {
	h := &hanging{hangs: map[string]chan struct{}{}, waiting: make(chan struct{}, 10)}
	for _, id := range ids {
		h.hangs[id] = make(chan struct{})
	}
	return h
}

func (h *hanging) wait(id string) {
	if answers := h.hangs[id]; answers != nil {
		h.waiting <- struct{}{}
		<-answers
	}
}

func (h *hanging) Get(_ context.Context, id string) (volume.Info, error) {
	h.wait(id)
	return volume.Info{}, volume.ErrNotFound
}

func (h *hanging) Sweep(context.Context) error {
	h.wait("sweep")
	return nil
}

func (*hanging) List(context.Context) ([]volume.Info, error) { return nil, nil }

func (h *hanging) Capacity(context.Context) (volume.Capacity, error) {
	h.wait("")
	return volume.Capacity{Allocated: 1}, nil
}

func (h *hanging) Identify(context.Context, string, bool) error { return nil }

// separate is a hanging driver whose volumes have disks of their own.
type separate struct{ *hanging }

func (separate) MountPoint(id string) string { return "/volumes/" + id }

// One question waits for a disk that hangs; whoever comes later learns at once that it hangs, and since when. Other disks answer, and
// so does this one when it is back.
func TestS7_DiskThatHangs(t *testing.T) {
	f := newFixture(t)
	n := f.node("node-a")
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		d := newHanging("uid-1")
		n.Volumes = map[string]volume.Driver{"bad": d, "good": &hanging{}}
		observe := func(class string) error {
			_, err := n.Observe(t.Context(), content.Subject{UID: "uid-1", Class: class})
			return err
		}
		began := time.Now()
		g.Expect(observe("bad")).To(And(MatchError(ContainSubstring("volume class bad: the disk does not answer")), MatchError(content.ErrHangs)))
		g.Expect(time.Since(began)).To(Equal(20 * time.Second))
		for range 5 {
			g.Expect(observe("bad")).To(MatchError(ContainSubstring("volume class bad has not answered since 2000-01-01 00:00:20")))
			_, err := n.Capacity(t.Context(), "bad")
			g.Expect(err).To(MatchError(context.DeadlineExceeded))
		}
		g.Expect(time.Since(began)).To(Equal(20*time.Second), "nobody else has waited")
		g.Expect(d.waiting).To(HaveLen(1))
		g.Expect(observe("good")).To(Succeed())

		close(d.hangs["uid-1"])
		synctest.Wait()
		g.Expect(observe("bad")).To(Succeed())
		c, err := n.Capacity(t.Context(), "bad")
		g.Expect([]any{c.Allocated, err}).To(Equal([]any{int64(1), nil}))
	})
}

// ending is a driver whose program is killed when its time is over, and tells what it said.
type ending struct{ volume.Driver }

func (ending) Capacity(ctx context.Context) (volume.Capacity, error) {
	<-ctx.Done()
	time.Sleep(time.Second) // synthetic: what it takes to end it
	return volume.Capacity{}, fmt.Errorf("lvm lvs: %w: Device pv0 does not answer", context.Cause(ctx))
}

func (ending) Identify(context.Context, string, bool) error { return nil }

// What a program said before it was killed is told, within the deadline; then the disk is asked again.
func TestS7_LastWordsOfAProgramThatHangs(t *testing.T) {
	f := newFixture(t)
	n := f.node("node-a")
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		n.Volumes = map[string]volume.Driver{"bad": ending{}}
		for range 2 {
			began := time.Now()
			_, err := n.Capacity(t.Context(), "bad")
			g.Expect(err).To(And(MatchError(content.ErrHangs), MatchError(And(
				HavePrefix("lvm lvs: volume class bad: the disk does not answer"), HaveSuffix(": Device pv0 does not answer")))))
			g.Expect(time.Since(began)).To(Equal(19 * time.Second))
		}
	})
}

// Volumes with a disk each hang alone.
func TestS7_VolumeThatHangs(t *testing.T) {
	f := newFixture(t)
	n := f.node("node-a")
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		d := newHanging("uid-1")
		n.Volumes = map[string]volume.Driver{"lvm": separate{d}}
		observe := func(uid string) error {
			_, err := n.Observe(t.Context(), content.Subject{UID: uid, Class: "lvm"})
			return err
		}
		g.Expect(observe("uid-1")).To(MatchError(ContainSubstring("/volumes/uid-1: the disk does not answer")))
		g.Expect(observe("uid-2")).To(Succeed())
		g.Expect(observe("uid-1")).To(MatchError(content.ErrHangs))
		close(d.hangs["uid-1"])
		synctest.Wait()
		g.Expect(observe("uid-1")).To(Succeed())
	})
}

// Whoever loses patience before a disk says nothing about that.
func TestCallerThatGivesUp(t *testing.T) {
	f := newFixture(t)
	n := f.node("node-a")
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		d := newHanging("")
		n.Volumes = map[string]volume.Driver{"slow": d}
		impatient := errors.New("the pass has had its time")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, impatient)
		defer cancel()
		_, err := n.Capacity(ctx, "slow")
		g.Expect(err).To(MatchError(impatient))
		close(d.hangs[""])
		_, err = n.Capacity(t.Context(), "slow")
		g.Expect(err).NotTo(HaveOccurred())
	})
}

// A start does not wait for ever for a disk that hangs. Its volumes are unknown until it answers, and in order then.
func TestS7_StartWithADiskThatHangs(t *testing.T) {
	f := newFixture(t)
	n := f.node("node-a")
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		d := newHanging("sweep")
		n.Volumes = map[string]volume.Driver{"bad": d, "good": newHanging()}
		_, err := n.Recover(t.Context())
		g.Expect(err).To(And(MatchError(content.ErrHangs), MatchError(ContainSubstring("volume class bad: its volumes are not in order after 2m0s"))))
		observe := func(class string) error {
			_, err := n.Observe(t.Context(), content.Subject{UID: "uid-1", Class: class})
			return err
		}
		g.Expect(observe("good")).To(Succeed())
		g.Expect(observe("bad")).To(MatchError(content.ErrHangs))
		close(d.hangs["sweep"])
		synctest.Wait()
		g.Expect(observe("bad")).To(Succeed())
		g.Expect(d.waiting).To(HaveLen(1), "it was brought in order once")
	})
}
