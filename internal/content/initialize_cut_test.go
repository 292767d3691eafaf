package content_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
	"wsdaemon.dev/ws-daemon/internal/volume"
	"wsdaemon.dev/ws-daemon/internal/volume/volumetest"
)

// cutNode is a node whose disk can lose its power.
type cutNode struct {
	*node
	*volumetest.MemoryDisk
}

func (f *fixture) cutNode() *cutNode {
	f.t.Helper()
	disk := volumetest.NewMemoryDisk(f.t, 64<<20)
	n := &cutNode{f.nodeAt(filepath.Join(disk.Mount(), "disk"), "node-a"), disk}
	n.Area.Close()
	f.Expect(volume.Flush(f.ctx, disk.Mount())).To(Succeed())
	return n
}

// look opens the node for a moment.
func (n *cutNode) look(do func()) {
	n.f.t.Helper()
	n.open("node-a")
	defer n.Area.Close()
	do()
}

// expectWhole expects the content of a kind to be there to the last byte.
func (n *cutNode) expectWhole(kind string) {
	n.f.t.Helper()
	n.f.Expect(n.tree()).To(Equal(whole[kind]))
	for name := range strings.FieldsSeq(whole[kind]) {
		want, small := map[string]string{"web/README": "one", "built": "", "mine": "one"}[name]
		if !small {
			want = wholeFile
		}
		got, err := os.ReadFile(n.path(name))
		n.f.Expect(err).NotTo(HaveOccurred())
		n.f.Expect(string(got) == want).To(BeTrue(), "%s of %s has %d bytes", name, kind, len(got))
	}
}

// The power fails in the middle of any initializer: the next start begins it again, in an empty directory. It fails the moment it is
// finished: the next start finds all of it, and runs nothing again.
func TestS5_APowerCutInAnInitializer(t *testing.T) {
	t.Parallel()
	for kind := range kinds("") {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			o := newOrigins(f)
			f.prepare(kind, o)
			n := f.cutNode()
			o.killHalfWay(f, n.node, kind)
			n.Cut()
			f.Expect(o.run(f, n.node, kind)).To(Succeed())
			n.Cut()
			asked := o.asked.Load()
			n.look(func() {
				f.Expect(n.seen().Finished()).To(BeTrue())
				n.expectWhole(kind)
			})
			f.Expect(o.run(f, n.node, kind)).To(Succeed())
			f.Expect(o.asked.Load()).To(Equal(asked), "nobody was asked again")
			n.look(func() { n.expectWhole(kind) })
		})
	}
}

// The power fails at any step of filling a workspace, and again when that is done: everything is as if it had not.
func TestS5_APowerCutAtAnyStepOfFilling(t *testing.T) {
	t.Parallel()
	binary := faultstest.Build(t)
	for what, g := range fillGoals() {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := crash{binary: binary, what: what, goal: g}
			for _, point := range volumetest.Some(t, "power cut during "+what, c.points(t)) {
				t.Run(point, func(t *testing.T) {
					f := newFixture(t)
					n := f.cutNode()
					n.look(func() { c.goal.prepare(f, n.node) })
					f.Expect(volume.Flush(f.ctx, n.Mount())).To(Succeed())
					f.Expect(c.run(f, n.node, faultstest.Kill(point))).To(MatchError(ContainSubstring("signal: killed")))
					n.Cut()
					f.Expect(c.run(f, n.node, faultstest.Kill(""))).To(Succeed())
					n.Cut()
					n.look(func() { c.goal.check(f, n.node) })
				})
			}
		})
	}
}

// What was not written out is lost with the power: else these tests would say little.
func TestAMemoryDiskLosesWhatIsInMemory(t *testing.T) {
	f := newFixture(t)
	n := f.cutNode()
	f.Expect(os.WriteFile(filepath.Join(n.Mount(), "kept"), []byte(wholeFile), 0o600)).To(Succeed())
	f.Expect(volume.Flush(f.ctx, n.Mount())).To(Succeed())
	f.Expect(os.WriteFile(filepath.Join(n.Mount(), "lost"), []byte(wholeFile), 0o600)).To(Succeed())
	n.Cut()
	f.Expect(os.ReadFile(filepath.Join(n.Mount(), "kept"))).To(HaveLen(len(wholeFile)))
	f.Expect(filepath.Join(n.Mount(), "lost")).NotTo(BeAnExistingFile())
}
