package state_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/state"
)

func identity() state.Identity {
	return state.Identity{ID: "area-1", Cluster: "kube-system-uid", Node: "node-a", Created: time.Unix(1700000000, 5).UTC()}
}

func open(t *testing.T, dir string) *state.Area {
	t.Helper()
	a, err := state.Open(dir)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(a.Close)
	return a
}

// initialized returns an area that has an identity.
func initialized(t *testing.T) (*state.Area, string) {
	t.Helper()
	dir := t.TempDir()
	a := open(t, dir)
	NewWithT(t).Expect(a.Init(identity())).To(Succeed())
	return a, dir
}

func TestOpenNeedsADirectory(t *testing.T) {
	g := NewWithT(t)
	_, err := state.Open(filepath.Join(t.TempDir(), "absent"))
	g.Expect(err).To(MatchError(os.ErrNotExist))
	file := filepath.Join(t.TempDir(), "file")
	g.Expect(os.WriteFile(file, nil, 0o600)).To(Succeed())
	_, err = state.Open(file)
	g.Expect(err).To(MatchError(ContainSubstring("not a directory")))
}

func TestS10_AreaWithoutIdentityIsNoEmptyArea(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	a := open(t, dir)
	_, err := a.Identity()
	g.Expect(err).To(MatchError(state.ErrNoIdentity))
	g.Expect(err).To(MatchError(And(ContainSubstring(dir), ContainSubstring("mount the disk, or run ws-daemon area init --config"))))
	g.Expect(a.Check()).To(MatchError(state.ErrNoIdentity))
	g.Expect(a.SetStore("s")).To(MatchError(state.ErrNoIdentity))
	g.Expect(filepath.Join(dir, "identity.json")).NotTo(BeAnExistingFile())
}

func TestIdentityIsWrittenOnce(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	want := identity()
	want.Format = 1
	g.Expect(a.Identity()).To(Equal(want))
	other := identity()
	other.ID = "area-2"
	g.Expect(a.Init(other)).To(MatchError(state.ErrInitialized))
	g.Expect(a.Identity()).To(Equal(want))
	a.Close()
	again := open(t, dir)
	g.Expect(again.Identity()).To(Equal(want))
	g.Expect(again.Init(other)).To(MatchError(state.ErrInitialized))
	g.Expect(again.Dir()).To(Equal(dir))
	files, err := filepath.Glob(filepath.Join(dir, ".tmp-*"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).To(BeEmpty())
}

func TestInitChoosesAnID(t *testing.T) {
	g := NewWithT(t)
	a := open(t, t.TempDir())
	g.Expect(a.Init(state.Identity{Node: "node-a"})).To(Succeed())
	g.Expect(a.Identity()).To(HaveField("ID", HaveLen(26)))
}

func TestStoreIsSetOnce(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	g.Expect(a.SetStore("store-1")).To(Succeed())
	g.Expect(a.Check()).To(Succeed(), "the file was replaced by us")
	g.Expect(a.SetStore("store-1")).To(Succeed())
	err := a.SetStore("store-2")
	g.Expect(err).To(MatchError(state.ErrStoreSet))
	g.Expect(err).To(MatchError(And(ContainSubstring("store-1"), ContainSubstring("store-2"))))
	a.Close()
	g.Expect(open(t, dir).Identity()).To(HaveField("Store", "store-1"))
}

func TestDamagedIdentityIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"format":1,"id":`, "newer": `{"format":2,"id":"x"}`, "without id": `{"format":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			path := filepath.Join(dir, "identity.json")
			g.Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
			_, err := state.Open(dir)
			g.Expect(err).To(MatchError(ContainSubstring(path)))
			g.Expect(os.ReadFile(path)).To(BeEquivalentTo(text))
		})
	}
	t.Run("a pipe", func(t *testing.T) {
		g := NewWithT(t)
		dir := t.TempDir()
		g.Expect(unix.Mkfifo(filepath.Join(dir, "identity.json"), 0o600)).To(Succeed())
		_, err := state.Open(dir)
		g.Expect(err).To(MatchError(ContainSubstring("no regular file")))
	})
}

func TestLockNamesItsHolder(t *testing.T) {
	g := NewWithT(t)
	a, dir := initialized(t)
	_, err := state.Open(dir)
	g.Expect(err).To(MatchError(state.ErrLocked))
	g.Expect(err).To(MatchError(And(ContainSubstring(dir), ContainSubstring("pid "+strconv.Itoa(os.Getpid())))))
	a.Close()
	open(t, dir)
}

func TestS10_CheckSeesAnotherDisk(t *testing.T) {
	mounted := func(t *testing.T, dir string) {
		t.Helper()
		NewWithT(t).Expect(unix.Mount("none", dir, "tmpfs", 0, "size=1m")).To(Succeed())
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	for name, test := range map[string]struct {
		change func(t *testing.T, dir string)
		reason string
	}{
		"an empty disk": {change: mounted, reason: "it is gone"},
		"another area": {reason: "it is another file", change: func(t *testing.T, dir string) {
			t.Helper()
			mounted(t, dir)
			a, err := state.Open(dir)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			defer a.Close()
			NewWithT(t).Expect(a.Init(identity())).To(Succeed())
		}},
		"no directory": {reason: "it is gone", change: func(t *testing.T, dir string) {
			t.Helper()
			NewWithT(t).Expect(os.RemoveAll(dir)).To(Succeed())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			a, dir := initialized(t)
			g.Expect(a.Check()).To(Succeed())
			test.change(t, dir)
			err := a.Check()
			g.Expect(err).To(MatchError(state.ErrReplaced))
			g.Expect(err).To(MatchError(And(ContainSubstring(dir), ContainSubstring(test.reason))))
		})
	}
}

// The daemon of a node whose disk was replaced has the new one open already, and waits for its identity.
func TestInitializeBesideADaemonThatWaits(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	waiting := open(t, dir)
	g.Expect(state.Initialize(dir, identity())).To(Succeed())
	g.Expect(state.HasIdentity(dir)).To(BeTrue())
	other := identity()
	other.ID = "area-2"
	g.Expect(state.Initialize(dir, other)).To(MatchError(state.ErrInitialized))
	g.Expect(waiting.Init(other)).To(MatchError(state.ErrInitialized))
	waiting.Close()
	g.Expect(open(t, dir).Identity()).To(HaveField("ID", "area-1"))
	g.Expect(state.Initialize(filepath.Join(dir, "absent"), other)).To(MatchError(os.ErrNotExist))
}
