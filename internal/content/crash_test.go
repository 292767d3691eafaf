package content_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	diskVariable  = "WS_DAEMON_TEST_DISK"
	storeVariable = "WS_DAEMON_TEST_STORE"
	goalVariable  = "WS_DAEMON_TEST_GOAL"
)

// goal is a job, what was there before it, and what must be there after it, whatever happened in between.
type goal struct {
	prepare func(f *fixture, n *node)
	job     func(n *node) error
	check   func(f *fixture, n *node)
}

func goals() map[string]goal {
	all := fillGoals()
	maps.Copy(all, saveGoals())
	maps.Copy(all, storeGoals())
	return all
}

func fillGoals() map[string]goal {
	return map[string]goal{
		"initialize": {
			prepare: func(*fixture, *node) {},
			job:     func(n *node) error { return n.tryFill(fillRequest(1)) },
			check: func(f *fixture, n *node) {
				f.Expect(n.seen().Position).To(Equal(volume.Published))
				f.Expect(f.entries()).To(Equal("1.0"))
			},
		},
		"restore": {
			prepare: func(f *fixture, _ *node) { f.elsewhere(1, "one") },
			job:     func(n *node) error { return n.tryFill(fillRequest(2)) },
			check: func(f *fixture, n *node) {
				f.Expect(n.files()).To(Equal("file=one"))
				f.Expect(n.journal().Backup.Name).To(Equal("1.1"))
				f.Expect(f.entries()).To(Equal("2.0 1.1 1.0"))
			},
		},
		"adopt": {
			prepare: func(_ *fixture, n *node) { n.fill(1); n.write("file", "one"); n.backup(1) },
			job:     func(n *node) error { return n.tryFill(fillRequest(2)) },
			check: func(f *fixture, n *node) {
				f.Expect(n.files()).To(Equal("file=one"))
				f.Expect(n.seen().Marker.Content.Source).To(Equal(content.SourceAdopted))
				f.Expect(f.pins("")).To(BeEmpty())
			},
		},
		"replace": {
			prepare: func(f *fixture, n *node) { n.fill(1); n.write("file", "unsaved"); f.elsewhere(2, "two") },
			job:     func(n *node) error { return n.tryFill(fillRequest(3)) },
			check: func(f *fixture, n *node) {
				f.Expect(n.files()).To(Equal("file=two"))
				f.Expect(f.pins("stray.")).To(HaveLen(1), "once")
				f.Expect(f.pinned(f.pins("stray.")[0])).To(Equal("file=unsaved"))
			},
		},
	}
}

func saveGoals() map[string]goal {
	return map[string]goal{
		"back up": {
			prepare: func(_ *fixture, n *node) { n.fill(1); n.write("file", "one"); n.backup(1); n.write("file", "two") },
			job:     func(n *node) error { return n.Backup(n.f.ctx, saveRequest(1)) },
			check: func(f *fixture, n *node) {
				f.Expect(n.files()).To(Equal("file=two"))
				f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
				c, _ := f.commit("1.2")
				f.Expect(f.restored(c)).To(Equal("file=two"))
				f.Expect(f.pins("")).To(BeEmpty())
			},
		},
		"compact": {
			prepare: func(_ *fixture, n *node) { n.fill(1); n.writeHalfDead(); n.backup(1); n.killHalf() },
			job:     func(n *node) error { return n.Backup(n.f.ctx, saveRequest(1)) },
			check: func(f *fixture, n *node) {
				f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
				before, _ := f.commit("1.1")
				after, _ := f.commit("1.2")
				f.Expect(before.Packs).To(HaveLen(3))
				left := slices.DeleteFunc(slices.Clone(after.Packs), func(p history.Pack) bool { return p.New })
				f.Expect(len(left)).To(BeNumerically("<", 3), "something was moved")
				f.Expect(f.restored(after)).To(Equal(n.files()))
				f.Expect(len(f.restored(before))).To(BeNumerically(">", 39_000_000))
			},
		},
		"import": {
			prepare: func(_ *fixture, n *node) { n.f.Expect(importTar(n, "one")).To(Succeed()) },
			job: func(n *node) error {
				if err := os.Setenv("TMPDIR", n.importing()); err != nil {
					return err
				}
				return importTar(n, "two")
			},
			check: func(f *fixture, n *node) {
				f.Expect(os.ReadDir(n.importing())).To(BeEmpty(), "nothing is left")
				f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))
				for name, data := range map[string]string{"1.1": "one", "1.2": "two"} {
					c, _ := f.commit(name)
					f.Expect(c.Tree.Files).To(BeEquivalentTo(importedFiles))
					f.Expect(f.restored(c)).To(HavePrefix("file-0000=" + data))
				}
			},
		},
		"snapshot": {
			prepare: func(_ *fixture, n *node) { n.fill(1); n.write("file", "one") },
			job: func(n *node) error {
				_, err := n.Snapshot(n.f.ctx, saveRequest(1), "snap", true)
				return err
			},
			check: func(f *fixture, _ *node) {
				f.Expect(f.entries()).To(Equal("1.1 1.0"))
				f.Expect(f.pinned("snap")).To(Equal("file=one"))
			},
		},
		"release": {
			prepare: func(_ *fixture, n *node) { n.fill(1); n.write("file", "one") },
			job: func(n *node) error {
				_, err := n.Release(n.f.ctx, saveRequest(1), idle)
				return err
			},
			check: func(f *fixture, n *node) {
				f.Expect(n.seen().Marker.Released).To(Equal("1.1"))
				f.Expect(f.entries()).To(Equal("1.1 1.0"))
				f.Expect(n.remove(1)).To(BeEmpty())
			},
		},
		"remove": {
			prepare: func(_ *fixture, n *node) { n.fill(1); n.write("file", "one"); n.release(1) },
			job:     removeJob,
			check: func(f *fixture, n *node) {
				f.Expect(n.dir()).NotTo(BeADirectory())
				f.Expect(n.seen().Journal.UID).To(BeEmpty(), "nothing is left")
				f.Expect(f.pins("")).To(BeEmpty())
				c, _ := f.commit("1.1")
				f.Expect(f.restored(c)).To(Equal("file=one"))
			},
		},
		"remove unsaved": {
			prepare: func(_ *fixture, n *node) { n.fill(1); n.write("file", "unsaved") },
			job:     removeJob,
			check: func(f *fixture, n *node) {
				f.Expect(n.dir()).NotTo(BeADirectory())
				f.Expect(f.pins("stray.")).To(HaveLen(1), "once")
				f.Expect(f.pinned(f.pins("stray.")[0])).To(Equal("file=unsaved"))
			},
		},
	}
}

func storeGoals() map[string]goal {
	return map[string]goal{
		"collect": {
			prepare: func(f *fixture, n *node) {
				n.fill(1)
				n.write("file", "one")
				n.backup(1)
				d, _ := f.open()
				for range 2 {
					f.Expect(d.PutPack(f.ctx, history.NewID(), []byte("nobody needs it"))).To(Succeed())
				}
			},
			job: func(n *node) error {
				d, _ := n.f.open()
				for range 2 { // condemns, and sweeps
					if _, err := d.Collect(n.f.ctx, history.CollectOptions{Delete: true}); err != nil {
						return err
					}
				}
				return nil
			},
			check: func(f *fixture, n *node) {
				c, _ := f.commit("1.1")
				f.Expect(f.packs()).To(Equal([]string{packKey(c.Packs[0])}))
				n.write("file", "two")
				n.backup(1)
				c, _ = f.commit("1.2")
				f.Expect(f.restored(c)).To(Equal("file=two"))
			},
		},
	}
}

// importedFiles are enough for the importer to be killed in the middle.
const importedFiles = 1500

// importing is where an import of a child unpacks.
func (n *node) importing() string { return n.disk + ".importing" }

// importTar imports many files with the same content.
func importTar(n *node, data string) error {
	n.f.t.Helper()
	n.f.Expect(os.MkdirAll(n.importing(), 0o700)).To(Succeed())
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	n.f.Expect(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755})).To(Succeed())
	for i := range importedFiles {
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("file-%04d", i), Mode: 0o600, Size: int64(len(data))}
		n.f.Expect(w.WriteHeader(&h)).To(Succeed())
		n.f.Expect(w.Write([]byte(data))).Error().NotTo(HaveOccurred())
	}
	n.f.Expect(w.Close()).To(Succeed())
	d, err := history.OpenDomain(n.f.ctx, n.f.store, "team", cluster, false)
	if err != nil {
		return err
	}
	_, err = content.Standalone{Domain: d, Namespace: "team", Workspace: "web", Cluster: cluster}.Import(n.f.ctx, &b)
	return err
}

// writeHalfDead fills three packs, each with files that stay and files that do not.
func (n *node) writeHalfDead() {
	n.f.t.Helper()
	for i := range 10 {
		n.writeNoise(fmt.Sprintf("%d-dies", i), 3_990_000)
		n.write(fmt.Sprintf("%d-stays", i), fmt.Sprint("stays ", i))
	}
}

// writeNoise writes a file that cannot be compressed, and that no other name has.
func (n *node) writeNoise(name string, size int) {
	n.f.t.Helper()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(data)
	n.write(name, string(data))
}

func (n *node) killHalf() {
	n.f.t.Helper()
	for i := range 10 {
		n.f.Expect(os.Remove(n.path(fmt.Sprintf("%d-dies", i)))).To(Succeed())
	}
}

func removeJob(n *node) error {
	_, err := n.Remove(n.f.ctx, subject(1), content.Consent{}, idle)
	return err
}

// elsewhere has another node hold the workspace under a claim, and leave a backup of it.
func (f *fixture) elsewhere(claim int64, data string) {
	f.t.Helper()
	n := f.node("node-z")
	n.fill(claim)
	n.write("file", data)
	n.release(claim)
	n.remove(claim)
}

// childNode opens the node that a test has left to a process of its own, to be killed; nil if this is no such process.
func childNode(t *testing.T) *node {
	t.Helper()
	disk := os.Getenv(diskVariable)
	if disk == "" {
		return nil
	}
	f := &fixture{Gomega: NewWithT(t), t: t, ctx: t.Context()}
	var err error
	f.store, err = store.NewFilesystem(os.Getenv(storeVariable))
	f.Expect(err).NotTo(HaveOccurred())
	n := &node{f: f, disk: disk}
	n.open("node-a")
	return n
}

// TestChild is what TestS5_EveryCrashLeadsToOneRightEnd runs and kills; without its environment it does nothing.
func TestChild(t *testing.T) {
	n := childNode(t)
	if n == nil {
		return
	}
	f := n.f
	_, err := n.Recover(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(goals()[os.Getenv(goalVariable)].job(n)).To(Succeed())
}

// Killed at any instruction that matters, the daemon goes on where it was: after a start and the same job again, everything
// is as if nothing had happened.
func TestS5_EveryCrashLeadsToOneRightEnd(t *testing.T) {
	t.Parallel()
	binary := faultstest.Build(t)
	for what, g := range goals() {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := crash{binary: binary, what: what, goal: g}
			for _, point := range c.points(t) {
				t.Run(point, func(t *testing.T) {
					t.Parallel()
					c.at(t, point)
				})
			}
		})
	}
}

type crash struct {
	binary faultstest.Program
	what   string
	goal   goal
}

// ready returns a node on which everything before the job was done, and which is down.
func (c crash) ready(t *testing.T) (*fixture, *node) {
	t.Helper()
	f := newFixture(t)
	n := f.node("node-a")
	c.goal.prepare(f, n)
	n.Area.Close()
	return f, n
}

func (c crash) run(f *fixture, n *node, variable string) error {
	return c.binary.Run(f.ctx, diskVariable+"="+n.disk, storeVariable+"="+f.at(""), goalVariable+"="+c.what, variable)
}

// points returns the fault points on the way, with their counts: "name:2". Between the end of one durable step and the
// beginning of the next nothing happens, so one of the two is enough.
func (c crash) points(t *testing.T) []string {
	t.Helper()
	f, n := c.ready(t)
	points := faultstest.Trace(t, func(variable string) error { return c.run(f, n, variable) })
	points = slices.DeleteFunc(points, func(point string) bool { return strings.Contains(point, ".before:") })
	f.Expect(points).NotTo(BeEmpty())
	return points
}

func (c crash) at(t *testing.T, point string) {
	t.Helper()
	f, n := c.ready(t)
	f.Expect(c.run(f, n, faultstest.Kill(point))).To(MatchError(ContainSubstring("signal: killed")))
	f.Expect(c.run(f, n, faultstest.Kill(""))).To(Succeed())
	n.open("node-a")
	c.goal.check(f, n)
}
