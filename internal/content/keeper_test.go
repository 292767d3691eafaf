package content_test

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	cluster = "cluster"
	uid     = "uid-1"
)

var (
	errBroken = errors.New("broken")
	errBusy   = errors.New("busy")
)

// TestMain lets many tests run at once: they wait for the disk most of the time.
func TestMain(m *testing.M) {
	initializer.Enter()
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// fixture is one store that nodes share.
type fixture struct {
	Gomega
	t     *testing.T
	ctx   context.Context //nolint:containedctx // it lives as long as the test
	store store.Store
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{Gomega: NewWithT(t), t: t, ctx: t.Context(), store: storetest.Filesystem(t)}
}

// node is one node: its disk, and its way to the store.
type node struct {
	*content.Keeper
	f    *fixture
	disk string

	mu    sync.Mutex
	calls []string                   // of the store: "put d/team/…"
	fault func(op, key string) error // before a call
	lost  func(key string) bool      // the reply of a put
	now   func(time.Time) time.Time
}

func (f *fixture) node(name string) *node {
	f.t.Helper()
	return f.nodeAt(filepath.Join(f.t.TempDir(), "disk"), name)
}

// nodeAt makes a node whose disk lies in a directory.
func (f *fixture) nodeAt(disk, name string) *node {
	f.t.Helper()
	n := &node{f: f, disk: disk}
	f.Expect(os.Mkdir(n.disk, 0o700)).To(Succeed())
	f.Expect(os.Mkdir(filepath.Join(n.disk, "volumes"), 0o700)).To(Succeed())
	area, err := state.Open(n.disk)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(area.Init(state.Identity{Cluster: cluster, Node: name})).To(Succeed())
	area.Close()
	n.open(name)
	f.t.Cleanup(func() { n.Area.Close() })
	return n
}

// open starts the daemon of a node.
func (n *node) open(name string) {
	n.f.t.Helper()
	var area *state.Area
	n.f.Eventually(func() (err error) { // a process that another test is starting has the lock until it is itself
		area, err = state.Open(n.disk)
		return err
	}, "10s").Should(Succeed())
	driver, err := volume.NewDirectory(filepath.Join(n.disk, "volumes"))
	n.f.Expect(err).NotTo(HaveOccurred())
	n.Keeper = &content.Keeper{
		Area: area, Store: n.through(n.f.store), Volumes: map[string]volume.Driver{"default": driver},
		Cluster: cluster, Node: name, StrayRetention: 720 * time.Hour, RetryMax: time.Minute, Now: n.clock,
	}
}

func (n *node) clock() time.Time {
	if n.now == nil {
		return time.Now()
	}
	return n.now(time.Now())
}

// through leads to a store by way of the node's faults.
func (n *node) through(s store.Store) store.Store {
	lossy := storetest.LostReply(s, func(key string) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.lost != nil && n.lost(key)
	})
	return storetest.Faulty(lossy, func(op, key string) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.calls = append(n.calls, op+" "+key)
		if n.fault == nil {
			return nil
		}
		return n.fault(op, key)
	})
}

// restart ends the daemon and starts it again. What the old one held in memory is gone.
func (n *node) restart() []content.Subject {
	n.f.t.Helper()
	name := n.Node
	n.Area.Close()
	n.open(name)
	found, err := n.Recover(n.f.ctx)
	n.f.Expect(err).NotTo(HaveOccurred())
	return found
}

// forget loses the journal of a node that is down.
func (n *node) forget() {
	n.f.t.Helper()
	name := n.Node
	n.Area.Close()
	n.f.Expect(os.RemoveAll(filepath.Join(n.disk, "journal"))).To(Succeed())
	n.open(name)
	_, err := n.Recover(n.f.ctx)
	n.f.Expect(err).NotTo(HaveOccurred())
}

// counted returns the calls of the store that something makes.
func (n *node) counted(what func()) []string {
	n.mu.Lock()
	n.calls = nil
	n.mu.Unlock()
	what()
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

func matching(calls []string, part string) []string {
	return slices.DeleteFunc(slices.Clone(calls), func(call string) bool { return !strings.Contains(call, part) })
}

func subject(claim int64) content.Subject {
	return content.Subject{UID: uid, Namespace: "team", Name: "web", Class: "default", Claim: claim}
}

func fillRequest(claim int64) content.FillRequest {
	return content.FillRequest{Subject: subject(claim), Owner: 1000, Group: 1000, InUse: idle}
}

func saveRequest(claim int64) content.SaveRequest {
	return content.SaveRequest{Subject: subject(claim), Keep: history.Keep{Last: 10}}
}

// idle says that nobody uses the content, busy that somebody does.
func idle(context.Context) error { return nil }

func busy(context.Context) error { return errors.Join(content.ErrInUse, errBusy) }

func (n *node) fill(claim int64) {
	n.f.t.Helper()
	n.f.Expect(n.tryFill(fillRequest(claim))).To(Succeed())
}

func (n *node) tryFill(r content.FillRequest) error {
	if err := n.Provision(n.f.ctx, r.Subject, 1<<30, 0); err != nil {
		return err
	}
	return n.try(r)
}

// try fills a volume that is there.
func (n *node) try(r content.FillRequest) error {
	_, err := n.Fill(n.f.ctx, r)
	return err
}

// damage cuts a backup's commit short.
func (f *fixture) damage(name string) {
	f.t.Helper()
	found := 0
	f.Expect(filepath.WalkDir(f.at("d/team/w/web"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), `"name":"`+name+`"`) && strings.HasPrefix(string(data), `{"format":1,"id"`) {
			found++
			return os.Truncate(path, 20)
		}
		return err
	})).To(Succeed())
	f.Expect(found).To(BeNumerically(">", 0), "no commit "+name)
}

// named is a snapshot whose id is known.
func named(id string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return id, nil }
}

func (n *node) backup(claim int64) {
	n.f.t.Helper()
	n.f.Expect(n.Backup(n.f.ctx, saveRequest(claim))).To(Succeed())
}

func (n *node) release(claim int64) string {
	n.f.t.Helper()
	name, err := n.Release(n.f.ctx, saveRequest(claim), idle)
	n.f.Expect(err).NotTo(HaveOccurred())
	return name
}

func (n *node) remove(claim int64) string {
	n.f.t.Helper()
	stray, err := n.Remove(n.f.ctx, subject(claim), content.Consent{}, idle)
	n.f.Expect(err).NotTo(HaveOccurred())
	n.f.Expect(n.dir()).NotTo(BeADirectory())
	return stray
}

func (n *node) seen() content.Observation {
	n.f.t.Helper()
	o, err := n.Observe(n.f.ctx, subject(0))
	n.f.Expect(err).NotTo(HaveOccurred())
	return o
}

func (n *node) journal() state.Entry { return n.seen().Journal }

func (n *node) dir() string { return filepath.Join(n.disk, "volumes", uid) }

func (n *node) path(name string) string {
	return filepath.Join(n.Volumes["default"].Path(uid, volume.Published), name)
}

func (n *node) withdrawn(name string) string {
	return filepath.Join(n.Volumes["default"].Path(uid, volume.Withdrawn), name)
}

func (n *node) write(name, data string) {
	n.f.t.Helper()
	n.f.Expect(os.WriteFile(n.path(name), []byte(data), 0o644)).To(Succeed())
}

// files returns the content that users see, as "name=data name=data".
func (n *node) files() string {
	n.f.t.Helper()
	return files(n.f, n.path(""))
}

func files(f *fixture, dir string) string {
	f.t.Helper()
	entries, err := os.ReadDir(dir)
	f.Expect(err).NotTo(HaveOccurred())
	var all []string
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		f.Expect(err).NotTo(HaveOccurred())
		all = append(all, e.Name()+"="+string(data))
	}
	return strings.Join(all, " ")
}

func (f *fixture) open() (*history.Domain, *history.Log) {
	f.t.Helper()
	d, err := history.OpenDomain(f.ctx, f.store, "team", cluster, false)
	f.Expect(err).NotTo(HaveOccurred())
	return d, d.Workspace("web")
}

// entries lists the workspace's history, newest first.
func (f *fixture) entries() string {
	f.t.Helper()
	_, log := f.open()
	entries, err := log.Entries(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name.String())
	}
	return strings.Join(names, " ")
}

func (f *fixture) pins(prefix string) []string {
	f.t.Helper()
	d, _ := f.open()
	pins, err := d.Pins(f.ctx, prefix)
	f.Expect(err).NotTo(HaveOccurred())
	ids := make([]string, 0, len(pins))
	for _, p := range pins {
		ids = append(ids, p.ID)
	}
	return ids
}

func (f *fixture) commit(name string) (history.Commit, history.Ref) {
	f.t.Helper()
	_, log := f.open()
	n, err := history.ParseName(name)
	f.Expect(err).NotTo(HaveOccurred())
	c, ref, err := log.Read(f.ctx, n)
	f.Expect(err).NotTo(HaveOccurred())
	return c, ref
}

// restored brings a commit back somewhere and returns its files.
func (f *fixture) restored(c history.Commit) string {
	f.t.Helper()
	d, _ := f.open()
	dir := f.t.TempDir()
	report, err := content.Standalone{Domain: d, Namespace: "team", Workspace: "web"}.Restore(f.ctx, c, dir, nil, false, "")
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(report.Digest).To(Equal(c.Tree.Digest))
	return files(f, dir)
}

func (f *fixture) pinned(id string) string {
	f.t.Helper()
	d, _ := f.open()
	p, err := d.Pinned(f.ctx, id)
	f.Expect(err).NotTo(HaveOccurred())
	return f.restored(p.Commit)
}

// at returns where the filesystem store keeps a key.
func (f *fixture) at(key string) string {
	return filepath.Join(strings.TrimPrefix(f.store.String(), "file://"), key)
}

func packKey(p history.Pack) string { return "d/team/p/" + p.ID[:2] + "/" + p.ID }

func (f *fixture) packs() []string {
	f.t.Helper()
	objects, err := f.store.List(f.ctx, "d/team/p/", "", 0)
	f.Expect(err).NotTo(HaveOccurred())
	keys := make([]string, 0, len(objects))
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// hide takes a directory or file away and returns what brings it back.
func (f *fixture) hide(path string) (back func()) {
	f.t.Helper()
	f.Expect(os.Rename(path, path+".hidden")).To(Succeed())
	return func() {
		f.t.Helper()
		f.Expect(os.RemoveAll(path)).To(Succeed())
		f.Expect(os.Rename(path+".hidden", path)).To(Succeed())
	}
}

// unreadable makes a file that cannot be opened, until the test ends or calls what it returns: a lease is on it.
func unreadable(f *fixture, path string) (readable func()) {
	f.t.Helper()
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	f.Expect(err).NotTo(HaveOccurred())
	f.t.Cleanup(func() { _ = file.Close() })
	_, err = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	f.Expect(err).NotTo(HaveOccurred())
	return func() {
		f.t.Helper()
		_, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		f.Expect(err).NotTo(HaveOccurred())
	}
}

// mounted mounts an empty filesystem on a new directory, which no backup looks into, until the test ends or calls what it
// returns.
func mounted(f *fixture, path string) (gone func()) {
	f.t.Helper()
	f.Expect(os.Mkdir(path, 0o755)).To(Succeed())
	f.Expect(unix.Mount("none", path, "tmpfs", 0, "size=64k")).To(Succeed())
	there := true
	gone = func() {
		if there {
			there = false
			_ = unix.Unmount(path, unix.MNT_DETACH)
		}
	}
	f.t.Cleanup(gone)
	return gone
}

var otherOwner = history.Owner{UID: uid, Node: "node-x", Area: "area-x"}

// later sets the node's clock forward: strays are named by the second.
func (n *node) later(seconds int) {
	n.now = func(now time.Time) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
}

// busyOnceWithdrawn says that somebody began to use the content just before it was out of reach.
func (n *node) busyOnceWithdrawn() func(context.Context) error {
	return func(ctx context.Context) error {
		if n.seen().Position == volume.Withdrawn {
			return busy(ctx)
		}
		return nil
	}
}

// holding keeps back the puts that hold wants, and fails them.
type holding struct {
	store.Store
	hold func(key string, data []byte) bool
}

func (h *holding) Put(ctx context.Context, key string, data []byte) error {
	if h.hold(key, data) {
		return errBroken
	}
	return h.Store.Put(ctx, key, data)
}
