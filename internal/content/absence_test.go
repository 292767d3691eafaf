package content_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// backedUp is a store with one backup, and what the object says of it.
func backedUp(t *testing.T) (*fixture, content.FillRequest) {
	t.Helper()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.release(1)
	a.remove(1)
	_, ref := f.commit("1.1")
	r := fillRequest(2)
	r.Expected = ref
	return f, r
}

// refused expects that no content came about, least of all the initializer's.
func (n *node) refused(r content.FillRequest) error {
	n.f.t.Helper()
	err := n.tryFill(r)
	n.f.Expect(err).To(HaveOccurred())
	n.f.Expect(n.path("")).NotTo(BeADirectory())
	n.f.Expect(n.seen().Finished()).To(BeFalse())
	return err
}

func noBackup(f *fixture, err error) *content.NoBackupError {
	f.t.Helper()
	var missing *content.NoBackupError
	f.Expect(errors.As(err, &missing)).To(BeTrue(), "%v", err)
	return missing
}

// What must be in the store and is not is never replaced by the initializer; once it is back, everything goes on.
func TestS10_ExpectedBackupIsMissing(t *testing.T) {
	t.Parallel()
	for what, hidden := range map[string]string{
		"the workspace's backups": "d/team/w/web",
		"the domain":              "d/team",
		"everything":              "d",
	} {
		t.Run(what, func(t *testing.T) {
			f, r := backedUp(t)
			b := f.node("node-b")
			back := f.hide(f.at(hidden))
			missing := noBackup(f, b.refused(r))
			f.Expect(missing.Error()).To(And(ContainSubstring("workspace team/web must have backup 1.1"), ContainSubstring("there is none"), ContainSubstring("bring the store's content back")))
			f.Expect(f.entries()).To(BeEmpty(), "no claim was made over a store that lacks what it should have seen")
			back()
			f.Expect(b.tryFill(r)).To(Succeed())
			f.Expect(b.files()).To(Equal("file=one"))
		})
	}
}

func TestS10_ExpectedBackupIsOlderOrAnother(t *testing.T) {
	t.Parallel()
	f, r := backedUp(t)
	b := f.node("node-b")
	newer := r
	newer.Expected.Name.Number = 2
	f.Expect(noBackup(f, b.refused(newer)).Error()).To(And(ContainSubstring("must have backup 1.2"), ContainSubstring("there is 1.1")))
	other := r
	other.Expected.Hash = strings.Repeat("0", 64)
	f.Expect(noBackup(f, b.refused(other)).Found).To(Equal("1.1"))
	later := r
	later.Expected = history.Ref{Name: history.Name{Claim: 2, Number: 1}}
	f.Expect(noBackup(f, b.refused(later)).Wanted).To(ContainSubstring("backup 2.1"))
	f.Expect(f.entries()).To(Equal("1.1 1.0"))

	older := r
	older.Expected = history.Ref{Name: history.Name{Claim: 1}, Hash: "of an older commit"}
	f.Expect(b.tryFill(older)).To(Succeed(), "a newer one than expected is fine")
	f.Expect(b.files()).To(Equal("file=one"))
}

// The claim was published before the store lost its content.
func TestS10_BackupVanishesAfterTheClaim(t *testing.T) {
	t.Parallel()
	f, r := backedUp(t)
	b := f.node("node-b")
	b.fault = func(op, key string) error {
		if op == "get" && strings.Contains(key, "/p/") {
			return errBroken
		}
		return nil
	}
	f.Expect(b.refused(r)).To(MatchError(errBroken))
	b.fault = nil
	c, _ := f.commit("1.1")
	back := f.hide(f.at(packKey(c.Packs[0])))
	f.Expect(b.refused(r)).To(MatchError(store.ErrNotFound))
	back()
	back = f.hide(f.at("d/team/w/web"))
	f.Expect(b.refused(r)).To(HaveOccurred())
	back()
	f.Expect(b.tryFill(r)).To(Succeed())
	f.Expect(b.files()).To(Equal("file=one"))
}

func TestS10_BaseIsDamaged(t *testing.T) {
	t.Parallel()
	f, r := backedUp(t)
	b := f.node("node-b")
	objects, err := f.store.List(f.ctx, "d/team/w/web/", "", 1)
	f.Expect(err).NotTo(HaveOccurred())
	path := f.at(objects[0].Key)
	back := f.hide(path)
	f.Expect(os.WriteFile(path, []byte("{"), 0o600)).To(Succeed())
	r.Expected = history.Ref{}
	f.Expect(b.refused(r)).To(MatchError(And(ContainSubstring("object is damaged"), ContainSubstring(objects[0].Key))))
	back()
	c, _ := f.commit("1.1")
	f.hide(f.at(packKey(c.Packs[0])))
	f.Expect(os.WriteFile(f.at(packKey(c.Packs[0])), make([]byte, c.Packs[0].Size), 0o600)).To(Succeed())
	f.Expect(b.refused(r)).To(MatchError(ContainSubstring("the checksum differs")))
}

func TestS10_StoreIsNotTheOneItWas(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		harm func(*fixture, *node)
		want error
		text string
	}{
		"swapped":       {func(f *fixture, n *node) { n.Store = n.through(storetest.Filesystem(f.t)) }, nil, "point the configuration back"},
		"uninitialized": {func(f *fixture, _ *node) { f.hide(f.at(store.IdentityKey)) }, store.ErrNotInitialized, "mount it"},
		"damaged":       {func(f *fixture, _ *node) { f.hide(f.at(store.IdentityKey)); f.put(store.IdentityKey, "{") }, nil, "is damaged"},
		"emptied":       {func(f *fixture, _ *node) { f.hide(f.at("")); f.Expect(os.Mkdir(f.at(""), 0o700)).To(Succeed()) }, store.ErrNotInitialized, "mount it"},
		"unmounted":     {func(f *fixture, _ *node) { f.hide(f.at("")) }, nil, "is it mounted?"},
	} {
		t.Run(what, func(t *testing.T) {
			f, r := backedUp(t)
			b := f.node("node-b")
			b.fill(2) // the node knows the store
			b.write("file", "two")
			c.harm(f, b)
			refuse := func(err error) {
				t.Helper()
				var wrong *content.StoreError
				f.Expect(errors.As(err, &wrong)).To(BeTrue(), "%v", err)
				f.Expect(err).To(MatchError(ContainSubstring(c.text)))
				if c.want != nil {
					f.Expect(err).To(MatchError(c.want))
				}
			}
			refuse(b.Backup(f.ctx, saveRequest(2)))
			f.Expect(b.journal().Backup.Reason).To(Equal("StoreUnavailable"))
			_, err := b.Release(f.ctx, saveRequest(2), idle)
			refuse(err)
			f.Expect(b.seen().Marker.Released).To(BeEmpty())
			_, err = b.Remove(f.ctx, subject(2), content.Consent{}, idle)
			refuse(err)
			f.Expect(files(f, b.withdrawn(""))).To(Equal("file=two"))
			other := r
			other.UID = "uid-2"
			other.Name = "api"
			refuse(b.tryFill(other))
			_, err = b.NewestClaim(f.ctx, subject(2))
			refuse(err)
			_, err = b.Tend(f.ctx, "team", 0)
			refuse(err)
			refuse(b.Bury(f.ctx, subject(2)))
		})
	}
}

func (f *fixture) put(key, data string) {
	f.t.Helper()
	f.Expect(os.WriteFile(f.at(key), []byte(data), 0o600)).To(Succeed())
}

func TestS10_DomainOfAnotherClusterIsRefused(t *testing.T) {
	t.Parallel()
	f, r := backedUp(t)
	b := f.node("node-b")
	b.Cluster = "another"
	f.Expect(b.refused(r)).To(MatchError(history.ErrOtherCluster))
	b.AdoptCluster = true
	f.Expect(b.tryFill(r)).To(Succeed())
	f.Expect(b.files()).To(Equal("file=one"))
}

// A store that lost what a running workspace has in it gets it again.
func TestS10_StoreLosesTheBackupsOfARunningWorkspace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.settled(1)
	f.Expect(os.RemoveAll(f.at("d"))).To(Succeed())
	a.backup(1)
	f.Expect(a.journal().Lost).To(Equal("1.1"))
	f.Expect(f.entries()).To(Equal("1.2 1.0"))
	a.release(1)
	a.remove(1)
	b.fill(2)
	f.Expect(b.files()).To(Equal("file=one"))
}

func TestS10_AreaIsUnmounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	back := f.hide(a.disk)
	f.Expect(os.MkdirAll(filepath.Join(a.disk, "volumes"), 0o700)).To(Succeed())
	_, release := a.Release(f.ctx, saveRequest(1), idle)
	_, remove := a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	_, recovering := a.Recover(f.ctx)
	for what, err := range map[string]error{
		"provision": a.Provision(f.ctx, subject(1), 1, 0), "fill": a.try(fillRequest(1)), "backup": a.Backup(f.ctx, saveRequest(1)), "release": release,
		"remove": remove, "recover": recovering, "discard": a.Discard(f.ctx, subject(1), idle),
	} {
		f.Expect(err).To(MatchError(state.ErrReplaced), what)
	}
	_, err := a.Observe(f.ctx, subject(1))
	f.Expect(err).To(MatchError(volume.ErrReplaced))
	left, err := os.ReadDir(filepath.Join(a.disk, "volumes"))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(left).To(BeEmpty(), "nothing was written below the mount point")
	back()
	a.backup(1)
	f.Expect(a.files()).To(Equal("file=one"))
}

// Only the volumes' disk is away.
func TestS10_VolumesAreUnmounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	back := f.hide(filepath.Join(a.disk, "volumes"))
	f.Expect(os.Mkdir(filepath.Join(a.disk, "volumes"), 0o700)).To(Succeed())
	f.Expect(a.tryFill(fillRequest(1))).To(MatchError(volume.ErrReplaced))
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(volume.ErrReplaced))
	found, err := a.Recover(f.ctx)
	f.Expect(err).To(MatchError(volume.ErrReplaced))
	f.Expect(found).To(BeEmpty())
	_, known := a.Area.Journal().Get(uid)
	f.Expect(known).To(BeTrue(), "what cannot be seen is not forgotten")
	back()
	a.backup(1)
}

// A disk that comes later than the daemon is brought in order then, as it would have been at the start.
func TestS5_VolumesOfADiskThatComesLate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	// as a crash leaves it that came before the last step of filling
	f.Expect(os.Rename(filepath.Join(a.dir(), "content"), filepath.Join(a.dir(), ".ws", "staging"))).To(Succeed())
	name := a.Node
	a.Area.Close()
	back := f.hide(filepath.Join(a.disk, "volumes"))
	a.open(name)
	found, err := a.Recover(f.ctx)
	f.Expect(err).To(MatchError(volume.ErrOtherDisk))
	f.Expect(found).To(BeEmpty())
	_, err = a.Capacity(f.ctx, "default")
	f.Expect(err).To(MatchError(volume.ErrOtherDisk))
	_, known := a.Area.Journal().Get(uid)
	f.Expect(known).To(BeTrue(), "what cannot be seen is not forgotten")

	back()
	_, err = a.Capacity(f.ctx, "default")
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(a.seen().Position).To(Equal(volume.Published))
	a.backup(1)
	f.Expect(a.files()).To(Equal("file=one"))
}

func TestEvictionEndsWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		caches, enough, want int
		err                  error
	}{
		"there is room":   {5, 0, 0, nil},
		"some go":         {5, 3, 3, nil},
		"all go":          {2, 3, 2, nil},
		"one cannot go":   {5, 3, 0, errors.New("it is held")},
		"there were none": {0, 1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			a := f.node("node-a")
			n, err := a.Evict(f.ctx, "default", func(volume.Capacity) bool { return false })
			f.Expect(err).NotTo(HaveOccurred())
			f.Expect(n).To(BeZero(), "a driver without caches")
			f.Expect(a.CanEvict("default")).To(BeFalse())

			d := &caching{Driver: a.Volumes["default"], left: c.caches, err: c.err}
			a.Volumes["default"] = d
			f.Expect(a.CanEvict("default")).To(BeTrue())
			n, err = a.Evict(f.ctx, "default", func(volume.Capacity) bool { return c.caches-d.left >= c.enough })
			f.Expect(n).To(Equal(c.want))
			if c.err == nil {
				f.Expect(err).NotTo(HaveOccurred())
			} else {
				f.Expect(err).To(MatchError(c.err))
			}
		})
	}
}

// caching is a driver with templates.
type caching struct {
	volume.Driver
	volume.Templater

	left int
	err  error
}

func (c *caching) Templates(context.Context) ([]volume.Template, error) {
	var list []volume.Template
	for i := range c.left {
		list = append(list, volume.Template{Name: strconv.Itoa(i)})
	}
	return list, nil
}

func (c *caching) DropTemplate(context.Context, string) error {
	if c.err == nil {
		c.left--
	}
	return c.err
}

// A marker that cannot be understood is nobody's: the content stays, and the others go on.
func TestS10_DamagedMarker(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	other := fillRequest(1)
	other.UID, other.Name = "uid-2", "api"
	f.Expect(a.tryFill(other)).To(Succeed())
	f.Expect(os.WriteFile(filepath.Join(a.dir(), ".ws", "marker"), []byte("{"), 0o600)).To(Succeed())

	name := a.Node
	a.Area.Close()
	a.open(name)
	found, err := a.Recover(f.ctx)
	f.Expect(err).To(MatchError(volume.ErrDamaged))
	f.Expect(found).To(Equal([]content.Subject{other.Subject}))
	_, known := a.Area.Journal().Get(uid)
	f.Expect(known).To(BeTrue())
	_, release := a.Release(f.ctx, saveRequest(1), idle)
	_, remove := a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	for what, err := range map[string]error{
		"fill": a.tryFill(fillRequest(1)), "backup": a.Backup(f.ctx, saveRequest(1)), "release": release, "remove": remove,
		"discard": a.Discard(f.ctx, subject(1), idle),
	} {
		f.Expect(err).To(MatchError(volume.ErrDamaged), what)
	}
	f.Expect(a.files()).To(Equal("file=one"))
	r := saveRequest(1)
	r.Subject = other.Subject
	f.Expect(a.Backup(f.ctx, r)).To(Succeed())
}

func TestS10_InitializersThatDemandSomething(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	r := fillRequest(1)
	r.Initializer.Backup = true
	f.Expect(noBackup(f, a.refused(r)).Wanted).To(Equal("a backup"))
	r.Initializer = content.Initializer{SnapshotID: named("none")}
	f.Expect(noBackup(f, a.refused(r)).Wanted).To(Equal("snapshot none"))
	r.Initializer, r.Rewind = content.Initializer{}, "1.5"
	f.Expect(noBackup(f, a.refused(r)).Wanted).To(Equal("backup 1.5"))
	r.Rewind = "yesterday"
	f.Expect(a.refused(r)).To(MatchError(ContainSubstring(`backup name "yesterday"`)))
	f.Expect(a.try(func() content.FillRequest { r := fillRequest(1); r.UID = "uid-9"; return r }())).To(MatchError(content.ErrNotOurs))
}

func TestErrors(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	fenced := &content.FencedError{Err: history.ErrFenced}
	g.Expect(fenced).To(MatchError(history.ErrFenced))
	g.Expect(fenced.Error()).To(HaveSuffix("; nothing was unsaved"))
	fenced.Stray = "stray.x"
	g.Expect(fenced.Error()).To(HaveSuffix("; unsaved work was kept as snapshot stray.x"))
	g.Expect((&content.StoreError{Store: "file:///x", Err: errBroken}).Error()).To(Equal("object store file:///x: broken"))
	g.Expect(&content.StoreError{Err: errBroken}).To(MatchError(errBroken))
	g.Expect((&content.IncompleteError{Backup: "1.2", Count: 7, Files: []string{"a", "b"}}).Error()).To(
		Equal("backup 1.2 is incomplete, 7 files could not be read: a, b"))
}
