package content_test

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const target = "/var/lib/kubelet/pods/p/volumes/kubernetes.io~csi/work/mount"

// lend lends the content to a pod, and says what became of it.
func (n *node) lend(claim int64) error {
	dir, err := n.Lend(n.f.ctx, subject(claim), state.Use{Target: target, Volume: "csi-1", Pod: "shell", PodUID: "p"})
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	n.f.Expect(err).NotTo(HaveOccurred())
	n.f.Expect(names).To(ConsistOf("file"))
	return nil
}

// Content that was lent stays until it is given back, whatever the API server says of pods.
func TestS1_ContentThatIsLentStays(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(n *node) error{
		"release": func(n *node) error { _, err := n.Release(n.f.ctx, saveRequest(1), idle); return err },
		"discard": func(n *node) error { return n.Discard(n.f.ctx, subject(1), idle) },
		"remove":  func(n *node) error { _, err := n.Remove(n.f.ctx, subject(1), content.Consent{}, idle); return err },
		"adopt":   func(n *node) error { return n.try(fillRequest(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "one")
			f.Expect(a.lend(1)).To(Succeed())
			f.Expect(a.lend(1)).To(Succeed(), "again")
			err := take(a)
			f.Expect(err).To(MatchError(content.ErrInUse))
			f.Expect(err).To(MatchError(ContainSubstring("it is mounted for pods shell")))
			f.Expect(a.seen().Position).To(Equal(volume.Published))
			f.Expect(files(f, a.path(""))).To(Equal("file=one"))

			a.restart()
			f.Expect(take(a)).To(MatchError(content.ErrInUse), "also after a restart")
			f.Expect(a.Return(target)).To(ConsistOf(HaveField("Name", "web")))
			f.Expect(a.Return(target)).To(BeEmpty(), "again")
			f.Expect(take(a)).To(Succeed())
		})
	}
}

// Whatever is not before its users' eyes is lent to nobody, and then nothing stays written down.
func TestS1_OnlyContentWithinReachIsLent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	f.Expect(a.lend(1)).To(MatchError(content.ErrNotLent), "there is nothing")
	f.Expect(a.Area.Journal().List()).To(BeEmpty())
	f.Expect(a.Provision(f.ctx, subject(1), 1<<20, 0)).To(Succeed())
	f.Expect(a.lend(1)).To(MatchError(content.ErrNotLent), "it is not finished")
	a.fill(1)
	a.write("file", "one")
	f.Expect(a.lend(2)).To(MatchError(content.ErrNotLent), "it is of another claim")
	f.Expect(a.lend(1)).To(Succeed())
	f.Expect(a.Return(target)).NotTo(BeEmpty())

	hidden := f.hide(a.path(""))
	f.Expect(os.Mkdir(a.path(""), 0o755)).To(Succeed())
	f.Expect(a.lend(1)).To(MatchError(content.ErrNotLent), "another directory lies in its place")
	f.Expect(os.Remove(a.path(""))).To(Succeed())
	hidden()

	a.release(1)
	f.Expect(a.lend(1)).To(MatchError(content.ErrNotLent), "it was released")
	f.Expect(a.journal().Uses).To(BeEmpty())
	a.remove(1)
	f.Expect(a.lend(1)).To(MatchError(content.ErrNotLent))
	f.Expect(a.Area.Journal().List()).To(BeEmpty(), "a refusal leaves no entry of what is gone")
}

// A loan and a release at once: the loan comes in between the steps of the release, in each place. One of the two gives way.
func TestS1_LoanBetweenTheStepsOfARelease(t *testing.T) {
	t.Parallel()
	for asked, lent := range map[int32]bool{1: true, 2: false} {
		f := newFixture(t)
		a := f.node("node-a")
		a.fill(1)
		a.write("file", "one")
		var times atomic.Int32
		var loan error
		_, err := a.Release(f.ctx, saveRequest(1), func(context.Context) error {
			if times.Add(1) == asked {
				loan = a.lend(1)
			}
			return nil
		})
		if lent {
			f.Expect(loan).NotTo(HaveOccurred())
			f.Expect(err).To(MatchError(content.ErrInUse))
			f.Expect(a.seen().Position).To(Equal(volume.Published))
			continue
		}
		f.Expect(loan).To(MatchError(content.ErrNotLent), "it had been taken away")
		f.Expect(err).NotTo(HaveOccurred())
		f.Expect(a.journal().Uses).To(BeEmpty())
	}
}

// Neither a new claim, nor a backup, nor a start forgets who has the content.
func TestUsesOutliveEverything(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	f.Expect(a.lend(1)).To(Succeed())
	a.backup(1)
	a.fill(2)
	f.Expect(a.seen().Marker.Claim).To(BeEquivalentTo(2), "it was adopted where it is")
	f.Expect(a.Uses(uid)).To(ConsistOf(And(HaveField("Target", target), HaveField("Pod", "shell"))))
	a.restart()
	f.Expect(a.Uses(uid)).To(HaveLen(1))
	dir, err := os.Open(a.path(""))
	f.Expect(err).NotTo(HaveOccurred())
	defer dir.Close()
	s, known := a.Recognize(f.ctx, dir)
	f.Expect([]any{s, known}).To(Equal([]any{subject(2), true}))
	other, err := os.Open(t.TempDir())
	f.Expect(err).NotTo(HaveOccurred())
	defer other.Close()
	_, known = a.Recognize(f.ctx, other)
	f.Expect(known).To(BeFalse())
	f.Expect(errors.Is(a.Found(subject(1), state.Use{}), content.ErrNotLent)).To(BeTrue(), "of an older claim")
}
