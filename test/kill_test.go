package test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// play is one performance of a life.
type play struct {
	*WithT
	t   *testing.T
	w   *harness.World
	arm func(role string, n *harness.Node)
	// enough says that what a role does from here on is killed in another life.
	enough func(role string)
}

// enter lets the daemon of a node begin, under the name by which the test speaks of this process. It is restarted whenever it
// ends.
func (p *play) enter(role string, n *harness.Node) *harness.Node {
	p.t.Helper()
	p.arm(role, n)
	return n.Supervise()
}

// script is a life: everything that it does in the end is the same, wherever a daemon was killed on the way.
type script struct {
	name string
	play func(*play)
}

var scripts = []script{
	{"moved", moved}, {"restored", restored}, {"buried", buried}, {"discarded", discarded}, {"fenced", fenced},
	{"former", former}, {"adopted", adopted}, {"repented", repented},
}

// moved is made from git, saved, kept as a snapshot, and stopped.
func moved(p *play) {
	a := p.enter("a", p.w.Node("a"))
	ws := p.w.Workspace("one", a, harness.WithGit(p.w.GitServer()))
	p.Expect(ws.Ready().Status.Content.Source).To(Equal(v1.SourceGit))
	harness.WriteTree(p.t, ws.Content(), "first")
	ws.Backup("first")
	p.w.Keep("kept", ws)
	ws.Write("second", "second")
	want := harness.Snapshot(p.t, ws.Content())
	ws.Stop().Stopped()
	a.Leftovers()
	p.ends(ws, want)
}

// restored comes from another node, and is deleted; its backups stay.
func restored(p *play) {
	a := p.w.Node("a").Start()
	ws := p.w.Workspace("one", a)
	ws.Ready()
	harness.WriteTree(p.t, ws.Content(), "first")
	many(p, ws)
	want := harness.Snapshot(p.t, ws.Content())
	ws.Stop().Stopped()
	a.Leftovers()
	a.Kill()

	b := p.enter("b", p.w.Node("b"))
	ws.StartOn(b)
	p.Expect(ws.Ready().Status.Content.Source).To(Equal(v1.SourceBackup))
	p.Expect(harness.Snapshot(p.t, ws.Content())).To(Equal(want))
	ws.Write("second", "second")
	want = harness.Snapshot(p.t, ws.Content())
	ws.Delete().Gone()
	b.Leftovers()
	p.ends(ws, want)
}

// many writes so many files that a restore passes its fault point.
func many(p *play, ws *harness.Workspace) {
	p.t.Helper()
	dir := filepath.Join(ws.Content(), "many")
	p.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	for i := range 1000 {
		p.Expect(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600)).To(Succeed())
	}
}

// buried is deleted together with its backups.
func buried(p *play) {
	a, ws := p.saved(harness.WithDeletion(v1.DeletionDelete))
	ws.Write("second", "second")
	p.enter("a", a)
	ws.Delete().Gone()
	a.Leftovers()
	p.Expect(ws.History()).To(BeEmpty())
	p.Expect(ws.Domain().Workspace(ws.Name).NewestClaim(p.t.Context())).To(BeEquivalentTo(1))
	p.Expect(ws.Domain().Pins(p.t.Context(), "")).To(BeEmpty())
}

// discarded is stopped without a last backup.
func discarded(p *play) {
	a, ws := p.saved(func(o *v1.Workspace) { o.Spec.Backup.OnStop = v1.StopDiscard })
	want := harness.Snapshot(p.t, ws.Content())
	ws.Write("second", "second")
	p.enter("a", a)
	ws.Stop().Stopped()
	a.Leftovers()
	p.Expect(ws.Domain().Pins(p.t.Context(), "")).To(BeEmpty())
	p.ends(ws, want)
}

// saved makes a workspace with one backup, on a node whose daemon does not run any more.
func (p *play) saved(opts ...func(*v1.Workspace)) (*harness.Node, *harness.Workspace) {
	p.t.Helper()
	a := p.w.Node("a").Start()
	ws := p.w.Workspace("one", a, opts...)
	p.Expect(ws.Ready().Status.Content.Source).To(Equal(v1.SourceEmpty))
	ws.Write("first", "first")
	ws.Backup("first")
	a.Kill()
	return a, ws
}

// fenced is taken over by another node; the first one comes back with unsaved work.
func fenced(p *play) {
	a, ws := p.saved()
	b := p.w.Node("b")
	saved := harness.Snapshot(p.t, ws.Content())
	ws.Write("unsaved", "unsaved")
	unsaved := harness.Snapshot(p.t, ws.Content())

	b.Start()
	ws.FailOverTo(b).Ready()
	p.Expect(harness.Snapshot(p.t, ws.Content())).To(Equal(saved))
	p.enter("a returned", a)
	a.Leftovers()
	p.stray(ws, unsaved)
	ws.Delete().Gone()
	b.Leftovers()
	p.ends(ws, saved)
}

// former comes back to a node that still has older, unsaved work of it.
func former(p *play) {
	a, ws := p.saved()
	b := p.w.Node("b")
	ws.Write("unsaved", "unsaved")
	unsaved := harness.Snapshot(p.t, ws.Content())
	b.Start()
	ws.FailOverTo(b).Ready()
	ws.Write("second", "second")
	want := harness.Snapshot(p.t, ws.Content())
	ws.Backup("second")
	b.Kill()

	p.enter("a again", a)
	ws.FailOverTo(a).Ready()
	p.Expect(harness.Snapshot(p.t, ws.Content())).To(Equal(want))
	p.enough("a again")
	p.stray(ws, unsaved)
	p.enter("b returned", b)
	b.Leftovers()
	p.stray(ws, unsaved)
	ws.Delete().Gone()
	a.Leftovers()
	p.ends(ws, want)
}

// adopted comes back to a node that still has what was saved last.
func adopted(p *play) {
	a, ws := p.saved()
	b := p.w.Node("b")
	want := harness.Snapshot(p.t, ws.Content())
	b.Start()
	ws.FailOverTo(b).Ready()
	b.Kill()

	p.enter("a again", a)
	ws.FailOverTo(a)
	p.Expect(ws.Ready().Status.Content.Source).To(Equal(v1.SourceAdopted))
	p.enough("a again")
	p.Expect(harness.Snapshot(p.t, ws.Content())).To(Equal(want))
	ws.Delete().Gone()
	p.enter("b returned", b)
	p.w.Eventually("b has noted that the object is missing", func() error {
		entry, err := os.ReadFile(filepath.Join(b.Area, "journal", ws.UID+".json"))
		if err == nil && !strings.Contains(string(entry), "missingSince") {
			err = errors.New(string(entry))
		}
		return err
	})
	a.Leftovers()
	p.Expect(ws.Domain().Pins(p.t.Context(), "")).To(BeEmpty())
	p.ends(ws, want)
}

// repented is stopped, and wanted again when its content is released but still there.
func repented(p *play) {
	a := p.w.Node("a")
	a.KillAt("release.marked")
	a.Start()
	ws := p.w.Workspace("one", a)
	ws.Ready()
	ws.Write("first", "first")
	want := harness.Snapshot(p.t, ws.Content())
	ws.Stop()
	p.Expect(a.Wait()).To(MatchError("signal: killed"))
	p.Expect(ws.Content()).NotTo(BeADirectory())
	ws.StartOn(a)
	p.enter("a again", a)
	p.Expect(ws.Ready().Status.Claim).To(BeEquivalentTo(1))
	p.enough("a again")
	p.Expect(harness.Snapshot(p.t, ws.Content())).To(Equal(want))
	ws.Write("second", "second")
	want = harness.Snapshot(p.t, ws.Content())
	ws.Delete().Gone()
	a.Leftovers()
	p.ends(ws, want)
}

// ends compares what the newest backup holds, as tar unpacks it, and makes sure that all backups are whole.
func (p *play) ends(ws *harness.Workspace, want map[string]string) {
	p.t.Helper()
	commits := ws.History()
	p.Expect(commits).NotTo(BeEmpty())
	for i, c := range commits {
		p.Expect(c.Complete()).To(BeTrue(), "backup %s", c.Name)
		p.Expect(ws.Domain().VerifyPacks(p.t.Context(), c.Packs)).To(Succeed(), "backup %s", c.Name)
		if i > 0 {
			p.Expect(c.Name.Compare(commits[i-1].Name)).To(BeNumerically("<", 0))
		}
	}
	list := p.w.Run("archive", "list", "--store", "file://"+p.w.Store, "--domain", p.w.Namespace, "--workspace", ws.Name)
	p.Expect(strings.Count(list, "\n")).To(Equal(len(commits)+1), list)
	p.Expect(harness.Snapshot(p.t, ws.Export())).To(Equal(want))
}

// stray makes sure that there is one stray snapshot, and that it holds what it should.
func (p *play) stray(ws *harness.Workspace, want map[string]string) {
	p.t.Helper()
	pins, err := ws.Domain().Pins(p.t.Context(), "")
	p.Expect(err).NotTo(HaveOccurred())
	p.Expect(pins).To(HaveLen(1))
	pinned, err := ws.Domain().Pinned(p.t.Context(), pins[0].ID)
	p.Expect(err).NotTo(HaveOccurred())
	p.Expect(pinned.Kind).To(Equal(history.PinStray))
	p.Expect(harness.Snapshot(p.t, ws.Export("--snapshot", pins[0].ID))).To(Equal(want))
}

// point is the place of a kill.
type point struct {
	role, name string
	count      int
}

func (p point) String() string { return fmt.Sprintf("%s:%d", p.name, p.count) }

// TestS5_KillAtEveryStep plays every life once to learn which fault points its daemons reach, and then once for each of these
// with a daemon that dies there by SIGKILL and is started again.
func TestS5_KillAtEveryStep(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	reached := map[string]bool{}
	lives := 0
	t.Run("lives", func(t *testing.T) {
		for _, s := range scripts {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				points := trace(t, s)
				mu.Lock()
				lives++
				mu.Unlock()
				for _, at := range points {
					mu.Lock()
					reached[at.name] = true
					mu.Unlock()
					t.Run(strings.ReplaceAll(at.role, " ", "-")+"/"+at.String(), func(t *testing.T) {
						t.Parallel()
						kill(t, s, at)
					})
				}
			})
		}
	})
	for _, name := range written(t) {
		if lives == len(scripts) && !reached[name] && !killedElsewhere(name) {
			t.Errorf("no life reaches the fault point %s", name)
		}
	}
}

// trace plays a life undisturbed and returns where to kill.
func trace(t *testing.T, s script) []point {
	t.Helper()
	roles := map[string]*harness.Node{}
	reached := map[string][]string{}
	var order []string
	s.play(&play{WithT: NewWithT(t), t: t, w: env.World(t), arm: func(role string, n *harness.Node) {
		n.Trace()
		roles[role], order = n, append(order, role)
	}, enough: func(role string) { reached[role] = roles[role].Traced() }})
	var points []point
	for _, role := range order {
		if _, ok := reached[role]; !ok {
			reached[role] = roles[role].Traced()
		}
		points = append(points, choose(role, reached[role])...)
	}
	return points
}

// choose takes of each point the first time, and one in the middle or the second and last one.
func choose(role string, traced []string) []point {
	counts := map[string]int{}
	var points []point
	for _, name := range traced {
		if counts[name]++; counts[name] == 1 {
			points = append(points, point{role, name, 1})
		}
	}
	for _, p := range points {
		if n := counts[p.name]; n > 1 {
			points = append(points, point{role, p.name, n/2 + 1})
		}
	}
	return points
}

// kill plays a life with a daemon that is killed once.
func kill(t *testing.T, s script, at point) {
	t.Helper()
	var victim *harness.Node
	s.play(&play{WithT: NewWithT(t), t: t, w: env.World(t), arm: func(role string, n *harness.Node) {
		if role == at.role {
			victim = n
			n.KillAt(at.String())
		}
	}, enough: func(string) {}})
	if at.count == 1 && !victim.Killed() {
		t.Errorf("the daemon of %s never came to %s", at.role, at)
	}
}

var pointCall = regexp.MustCompile(`faults\.Point\("([^"]+)"\)`)

// elsewhere begins the names of points that no life of a workspace on plain directories leads to. Others kill there.
var elsewhere = []string{
	"journal.reserve.", // only a full disk leads there: the tests of the journal
	"lvm.", "quota.",   // need a kernel with these drivers: their tests in the virtual machine
	"volume.restaged", // only such a driver puts content back: the same
	"backup.viewed",   // only LVM has views: the same
	"lend.", "csi.",   // only a kubelet leads there: the tests of the CSI driver
	"fleet.", // only the cluster controller leads there: its tests
	// Only LVM has templates: the tests of instant starts in the virtual machine.
	"fill.template", "prepare.cloned", "template.dropped",
	"archive.create.moved", // a compaction: the tests of the keeper
	"archive.import.entry", // the command line only
	"collect.",             // takes days: the model of the collection
}

func killedElsewhere(point string) bool {
	return slices.ContainsFunc(elsewhere, func(prefix string) bool { return strings.HasPrefix(point, prefix) })
}

// written returns the names of all fault points in the source.
func written(t *testing.T) []string {
	t.Helper()
	var found []string
	root := filepath.Join(env.Root, "internal")
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, match := range pointCall.FindAllStringSubmatch(string(text), -1) {
			found = append(found, match[1])
		}
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("no fault points found below %s: %v", root, err)
	}
	slices.Sort(found)
	return slices.Compact(found)
}
