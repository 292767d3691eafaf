package content_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

func TestFillOfAnEmptyWorkspace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	o := a.seen()
	f.Expect(o.Marker).To(And(HaveField("UID", uid), HaveField("Node", "node-a"), HaveField("Cluster", cluster), HaveField("Claim", int64(1))))
	f.Expect(o.Marker.Content.Source).To(Equal(content.SourceEmpty))
	var st unix.Stat_t
	f.Expect(unix.Stat(a.path(""), &st)).To(Succeed())
	f.Expect([]uint32{st.Uid, st.Gid}).To(Equal([]uint32{1000, 1000}))
	a.write("file", "one")
	a.fill(1)
	f.Expect(a.files()).To(Equal("file=one"), "again changes nothing")
	f.Expect(f.entries()).To(Equal("1.0"))
	f.Expect(a.NewestClaim(f.ctx, subject(1))).To(Equal(int64(1)))
}

// A clone that fails leaves nothing, and credentials are asked for only when a clone is to be made.
func TestFillByGit(t *testing.T) {
	t.Parallel()
	f, restore := backedUp(t)
	asked := 0
	init := content.Initializer{
		Git:         &initializer.GitSpec{URL: "https://127.0.0.1:1/none.git"},
		Credentials: func(context.Context) (*initializer.Credentials, error) { asked++; return nil, errBroken },
	}
	b := f.node("node-b")
	r := fillRequest(1)
	r.UID, r.Name, r.Initializer = "uid-2", "api", init
	f.Expect(b.tryFill(r)).To(MatchError(errBroken))
	f.Expect(asked).To(Equal(1))
	r.Initializer.Credentials = nil
	f.Expect(b.tryFill(r)).NotTo(Succeed(), "there is nobody")
	o, err := b.Observe(f.ctx, r.Subject)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(o.Finished()).To(BeFalse())
	f.Expect(o.Volume.Path).NotTo(BeADirectory())

	restore.Initializer = init
	f.Expect(b.tryFill(restore)).To(Succeed())
	f.Expect(asked).To(Equal(1), "there is a backup: nothing is cloned")
	f.Expect(b.files()).To(Equal("file=one"))
}

// Something is in the way of finished content: it waits unpublished, and can be released, but nothing is removed together with
// what lies there: nobody has looked at it.
func TestS5_FinishedAndNotPublished(t *testing.T) {
	t.Parallel()
	f, r := backedUp(t)
	b := f.node("node-b")
	obstruct := func() {
		f.Expect(b.Provision(f.ctx, r.Subject, 1, 0)).To(Succeed())
		f.Expect(os.MkdirAll(filepath.Join(b.path(""), "in the way"), 0o755)).To(Succeed())
		var foreign *volume.ForeignError
		f.Expect(errors.As(b.try(r), &foreign)).To(BeTrue())
		f.Expect(b.seen().Finished()).To(BeTrue())
		f.Expect(b.seen().Position).To(Equal(volume.Staged))
	}
	cleared := func() {
		var foreign *volume.ForeignError
		_, err := b.Remove(f.ctx, r.Subject, content.Consent{}, idle)
		f.Expect(errors.As(err, &foreign)).To(BeTrue(), "%v", err)
		f.Expect(os.RemoveAll(b.path(""))).To(Succeed())
	}
	obstruct()
	f.Expect(b.release(2)).To(Equal("1.1"))
	cleared()
	f.Expect(b.remove(2)).To(BeEmpty())

	r.Claim = 3
	obstruct()
	cleared()
	f.Expect(b.remove(3)).To(BeEmpty(), "it equals its backup")

	r.Claim = 4
	obstruct()
	f.Expect(os.RemoveAll(b.path(""))).To(Succeed())
	f.Expect(b.restart()).To(Equal([]content.Subject{r.Subject}))
	f.Expect(b.seen().Position).To(Equal(volume.Published), "the start publishes what a crash kept back")
	f.Expect(b.files()).To(Equal("file=one"))

	a := f.node("node-a")
	a.fill(5)
	b.fenced(4)
	b.write("file", "unsaved")
	f.Expect(f.pinned(b.remove(4))).To(Equal("file=unsaved"))
}

// What the start of a daemon does to each state that it may find.
func TestS5_Recover(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	f.Expect(a.restart()).To(BeEmpty(), "an empty node")

	_, err := a.Volumes["default"].Ensure(f.ctx, volume.Spec{ID: uid})
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(a.restart()).To(BeEmpty())
	f.Expect(a.dir()).NotTo(BeADirectory(), "it was never marked: nothing can be in it")

	f.Expect(a.Provision(f.ctx, subject(1), 1, 0)).To(Succeed())
	f.Expect(a.restart()).To(Equal([]content.Subject{subject(1)}))
	f.Expect(a.seen().Finished()).To(BeFalse())

	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	f.Expect(a.restart()).To(Equal([]content.Subject{subject(1)}))
	f.Expect(a.files()).To(Equal("file=one"))

	a.release(1)
	a.restart()
	f.Expect(a.seen().Position).To(Equal(volume.Withdrawn), "what was released stays out of reach")
	a.forget()
	f.Expect(a.journal()).To(And(HaveField("Name", "web"), HaveField("Class", "default"), HaveField("Claim", int64(1))), "markers tell")

	a.remove(1)
	f.Expect(a.restart()).To(BeEmpty())
	f.Expect(a.Area.Journal().List()).To(BeEmpty())
}

// The journal forgets volumes that are certainly not there, and no others.
func TestS10_RecoverForgetsOnlyWhatIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	for _, class := range []string{"default", "of an older configuration"} {
		s := subject(1)
		s.UID, s.Class = "uid-"+class[:2], "default"
		f.Expect(a.Provision(f.ctx, s, 1, 0)).To(Succeed())
		e, _ := a.Area.Journal().Get(s.UID)
		e.Class = class
		f.Expect(a.Area.Journal().Put(e)).To(Succeed())
		f.Expect(a.Volumes["default"].Remove(f.ctx, s.UID)).To(Succeed())
	}
	f.Expect(a.restart()).To(BeEmpty())
	list := a.Area.Journal().List()
	f.Expect(list).To(HaveLen(1))
	f.Expect(list[0].UID).To(Equal("uid-of"))
}
