// Package volumetest has the tests that every volume driver passes.
package volumetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

const gibibyte = 1 << 30

// Run tests a driver. create returns one with an empty disk of at least 4 GiB, thin provisioned or not limited at all; it is
// called once per test.
func Run(t *testing.T, create func(t *testing.T) volume.Driver) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"Identify", (*suite).identify},
		{"Ensure", (*suite).ensure},
		{"EnsureRefusesNames", (*suite).names},
		{"AbsentVolume", (*suite).absent},
		{"Resize", (*suite).resize},
		{"List", (*suite).list},
		{"Capacity", (*suite).capacity},
		{"Usage", (*suite).usage},
		{"SnapshotAndClone", (*suite).copies},
		{"Templates", (*suite).templates},
		{"Remove", (*suite).remove},
		{"Marker", (*suite).marker},
		{"Life", (*suite).life},
		{"Stage", (*suite).stage},
		{"Unfinished", (*suite).unfinished},
		{"ForeignContent", (*suite).foreign},
		{"LostContent", (*suite).lost},
		{"Discard", (*suite).discard},
		{"CancelledContext", (*suite).cancelled},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{WithT: NewWithT(t), t: t, driver: create(t), ctx: t.Context()})
		})
	}
}

type suite struct {
	*WithT
	t      *testing.T
	driver volume.Driver
	ctx    context.Context //nolint:containedctx // that of the test
}

func (s *suite) identify() {
	s.Expect(s.driver.Identify(s.ctx, "area-1", true)).To(MatchError(volume.ErrOtherDisk), "an empty disk where there should be volumes")
	s.Expect(s.driver.Identify(s.ctx, "area-1", false)).To(Succeed())
	for _, known := range []bool{true, false} {
		s.Expect(s.driver.Identify(s.ctx, "area-1", known)).To(Succeed())
		s.Expect(s.driver.Identify(s.ctx, "area-2", known)).To(MatchError(volume.ErrOtherDisk))
	}
	s.Expect(s.driver.List(s.ctx)).To(BeEmpty(), "the mark is no volume")
}

// Fill stages content with one file, seals it and writes a marker that calls it finished.
func Fill(ctx context.Context, d volume.Driver, info volume.Info, text string) error {
	path, err := d.Stage(ctx, info.ID)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(path, "file"), []byte(text), 0o600); err != nil {
		return err
	}
	content, err := volume.Seal(ctx, path, volume.Content{Source: "Empty", Finished: time.Unix(1700000000, 0).UTC(), Files: 1})
	if err != nil {
		return err
	}
	return volume.WriteMarker(info, volume.Marker{UID: info.ID, Namespace: "team", Name: "web", Claim: 7, Content: &content})
}

func (s *suite) must(id string) volume.Info {
	s.t.Helper()
	info, err := s.driver.Ensure(s.ctx, volume.Spec{ID: id, Size: gibibyte})
	s.Expect(err).NotTo(HaveOccurred())
	return info
}

func (s *suite) filled(id string) volume.Info {
	s.t.Helper()
	info := s.must(id)
	s.Expect(Fill(s.ctx, s.driver, info, "first")).To(Succeed())
	return info
}

// at expects the content to be at one position and its users to see it or not.
func (s *suite) at(info volume.Info, want volume.Position, text string) {
	s.t.Helper()
	s.Expect(s.driver.Position(s.ctx, info.ID)).To(Equal(want))
	if want != volume.None {
		s.Expect(os.ReadFile(filepath.Join(s.driver.Path(info.ID, want), "file"))).To(BeEquivalentTo(text))
	}
	if want != volume.Published {
		_, err := os.Lstat(filepath.Join(info.Path, "file"))
		s.Expect(err).To(HaveOccurred(), "users must not see it")
	}
}

func (s *suite) ensure() {
	info := s.must("a")
	s.Expect(info.ID).To(Equal("a"))
	s.Expect(info.Size).To(BeEquivalentTo(gibibyte))
	s.Expect(info.Path).To(Equal(filepath.Join(info.Dir, "content")))
	s.Expect(s.driver.Path("a", volume.Published)).To(Equal(info.Path))
	s.Expect(s.driver.Path("a", volume.None)).To(BeEmpty())
	s.Expect(s.must("a")).To(Equal(info))
	s.Expect(s.driver.Get(s.ctx, "a")).To(Equal(info))
	s.at(info, volume.None, "")

	again, err := s.driver.Ensure(s.ctx, volume.Spec{ID: "a", Size: 2 * gibibyte})
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(again).To(Equal(info), "Ensure does not resize")
	s.Expect(s.driver.Name()).NotTo(BeEmpty())
}

func (s *suite) names() {
	for _, id := range []string{"", ".", "..", ".trash", "a/b", "a.b", "a b", "a\x00", "ä", strings.Repeat("x", 65)} {
		_, err := s.driver.Ensure(s.ctx, volume.Spec{ID: id})
		s.Expect(err).To(MatchError(ContainSubstring("1 to 64 letters, digits and hyphens")), "%q", id)
		s.Expect(s.driver.Remove(s.ctx, id)).NotTo(Succeed(), "%q", id)
		_, err = s.driver.Get(s.ctx, id)
		s.Expect(err).To(HaveOccurred(), "%q", id)
	}
	for _, id := range []string{strings.Repeat("x", 64), "--all", "-f"} { // some look like options
		s.at(s.filled(id), volume.Staged, "first")
	}
	s.Expect(s.driver.Remove(s.ctx, "--all")).To(Succeed())
	s.Expect(s.driver.List(s.ctx)).To(HaveExactElements(HaveField("ID", "-f"), HaveField("ID", strings.Repeat("x", 64))))
}

func (s *suite) absent() {
	_, get := s.driver.Get(s.ctx, "a")
	_, resize := s.driver.Resize(s.ctx, volume.Spec{ID: "a", Size: gibibyte})
	_, usage := s.driver.Usage(s.ctx, "a")
	_, position := s.driver.Position(s.ctx, "a")
	_, stage := s.driver.Stage(s.ctx, "a")
	for _, err := range []error{
		get, resize, usage, position, stage, s.driver.Publish(s.ctx, "a"), s.driver.Withdraw(s.ctx, "a"),
		s.driver.Discard(s.ctx, "a", volume.Staged),
	} {
		s.Expect(err).To(MatchError(volume.ErrNotFound))
	}
	s.Expect(s.driver.Remove(s.ctx, "a")).To(Succeed())
	s.Expect(s.driver.List(s.ctx)).To(BeEmpty())
}

func (s *suite) resize() {
	info := s.must("a")
	grown, err := s.driver.Resize(s.ctx, volume.Spec{ID: "a", Size: 2 * gibibyte})
	s.Expect(err).NotTo(HaveOccurred())
	info.Size = 2 * gibibyte
	s.Expect(grown).To(Equal(info))
	s.Expect(s.driver.Resize(s.ctx, volume.Spec{ID: "a", Size: 2 * gibibyte})).To(Equal(info))
	info.Inodes = 5000
	s.Expect(s.driver.Resize(s.ctx, volume.Spec{ID: "a", Size: 2 * gibibyte, Inodes: 5000})).To(Equal(info), "what is asked for is told back")
	_, err = s.driver.Resize(s.ctx, volume.Spec{ID: "a", Size: 2 * gibibyte, Inodes: 4999})
	s.Expect(err).To(MatchError(volume.ErrShrink))
	_, err = s.driver.Resize(s.ctx, volume.Spec{ID: "a", Size: gibibyte})
	s.Expect(err).To(MatchError(volume.ErrShrink))
	s.Expect(s.driver.Get(s.ctx, "a")).To(Equal(info))
}

func (s *suite) list() {
	b, a := s.must("b"), s.must("a")
	s.Expect(s.driver.List(s.ctx)).To(Equal([]volume.Info{a, b}))
	s.Expect(s.driver.Remove(s.ctx, "a")).To(Succeed())
	s.Expect(s.driver.List(s.ctx)).To(Equal([]volume.Info{b}))
}

func (s *suite) capacity() {
	before, err := s.driver.Capacity(s.ctx)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(before.Allocated).To(BeZero())
	s.Expect(before.Size).To(BeNumerically(">=", before.Free))
	s.Expect(before.Free).To(BeNumerically(">", 0))
	s.must("a")
	s.must("b")
	after, err := s.driver.Capacity(s.ctx)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(after.Allocated).To(BeEquivalentTo(2 * gibibyte))
	s.Expect(after.Size).To(Equal(before.Size))
}

func (s *suite) usage() {
	info := s.filled("a")
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	before, err := s.driver.Usage(s.ctx, "a")
	s.Expect(err).NotTo(HaveOccurred())

	s.Expect(write(filepath.Join(info.Path, "large"), make([]byte, 1<<20))).To(Succeed())
	s.Expect(os.Link(filepath.Join(info.Path, "large"), filepath.Join(info.Path, "link"))).To(Succeed())
	for _, name := range []string{"x", "y", "z"} {
		s.Expect(write(filepath.Join(info.Path, name), []byte(name))).To(Succeed())
	}
	after, err := s.driver.Usage(s.ctx, "a")
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(after.Bytes-before.Bytes).To(And(BeNumerically(">=", 1<<20), BeNumerically("<", 3<<19)), "a link costs nothing")
	s.Expect(after.Inodes - before.Inodes).To(BeNumerically(">=", 4))
}

func write(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync() // blocks that are not allocated yet are not used yet
}

func (s *suite) copies() {
	info := s.filled("a")
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	view, err := s.driver.Snapshot(s.ctx, "a")
	if err != nil {
		s.Expect(err).To(MatchError(volume.ErrNotSupported))
		_, err = s.driver.Clone(s.ctx, "a", volume.Spec{ID: "b", Size: gibibyte})
		s.Expect(err).To(MatchError(volume.ErrNotSupported))
		s.Expect(s.driver.List(s.ctx)).To(Equal([]volume.Info{info}))
		return
	}
	s.Expect(os.WriteFile(filepath.Join(info.Path, "file"), []byte("second"), 0o600)).To(Succeed())
	s.Expect(os.ReadFile(filepath.Join(view.Path, "file"))).To(BeEquivalentTo("first"))
	s.Expect(os.WriteFile(filepath.Join(view.Path, "file"), nil, 0o600)).NotTo(Succeed())
	s.Expect(view.Close()).To(Succeed())

	_, err = s.driver.Clone(s.ctx, "a", volume.Spec{ID: "b", Size: gibibyte})
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(s.driver.List(s.ctx)).To(HaveLen(2))
}

func (s *suite) remove() {
	info := s.filled("a")
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	s.Expect(os.MkdirAll(filepath.Join(info.Path, "x", "y"), 0)).To(Succeed())
	other := s.filled("aa")
	s.Expect(s.driver.Remove(s.ctx, "a")).To(Succeed())
	s.Expect(info.Dir).NotTo(BeADirectory())
	s.Expect(s.driver.Remove(s.ctx, "a")).To(Succeed())
	s.Expect(s.driver.Sweep(s.ctx)).To(Succeed())
	s.at(other, volume.Staged, "first")

	info = s.must("a")
	s.at(info, volume.None, "")
	_, err := volume.ReadMarker(info)
	s.Expect(err).To(MatchError(volume.ErrNotFound), "a new volume knows nothing of the old one")
}

func (s *suite) marker() {
	info := s.must("a")
	_, err := volume.ReadMarker(info)
	s.Expect(err).To(MatchError(volume.ErrNotFound))
	marker := volume.Marker{
		UID: "a", Namespace: "team", Name: "web", Cluster: "c", Node: "n", Area: "area", Claim: 7, Released: "7.2",
		Content: &volume.Content{Source: "Backup", Backup: "6.41", Finished: time.Unix(1, 2).UTC(), Inode: 5, Files: 6, Bytes: 7},
	}
	s.Expect(volume.WriteMarker(info, marker)).To(Succeed())
	marker.Format = 1
	s.Expect(volume.ReadMarker(info)).To(Equal(marker))
	marker.Content, marker.Claim = nil, 8
	s.Expect(volume.WriteMarker(info, marker)).To(Succeed())
	s.Expect(volume.ReadMarker(info)).To(Equal(marker))

	open, err := volume.OpenMarker(info)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(open.Check()).To(Succeed())
	s.Expect(open.Close()).To(Succeed())
}

func (s *suite) life() {
	info := s.filled("a")
	s.at(info, volume.Staged, "first")
	for _, step := range []struct {
		do func(context.Context, string) error
		at volume.Position
	}{
		{s.driver.Publish, volume.Published},
		{s.driver.Withdraw, volume.Withdrawn},
		{s.driver.Publish, volume.Published},
	} {
		s.Expect(step.do(s.ctx, "a")).To(Succeed())
		s.at(info, step.at, "first")
		s.Expect(step.do(s.ctx, "a")).To(Succeed(), "a second time")
		s.at(info, step.at, "first")
	}
	s.Expect(s.driver.Ensure(s.ctx, volume.Spec{ID: "a", Size: gibibyte})).To(Equal(info))
	s.at(info, volume.Published, "first")
}

func (s *suite) stage() {
	info := s.must("a")
	path, err := s.driver.Stage(s.ctx, "a")
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(path).To(Equal(s.driver.Path("a", volume.Staged)))
	s.Expect(os.ReadDir(path)).To(BeEmpty())
	s.Expect(os.WriteFile(filepath.Join(path, "file"), []byte("half"), 0o600)).To(Succeed())
	s.at(info, volume.Staged, "half")
	s.Expect(s.driver.Stage(s.ctx, "a")).To(Equal(path))
	s.Expect(os.ReadDir(path)).To(BeEmpty())

	s.Expect(Fill(s.ctx, s.driver, info, "first")).To(Succeed())
	_, err = s.driver.Stage(s.ctx, "a")
	s.Expect(err).To(MatchError(volume.ErrFinished))
	s.at(info, volume.Staged, "first")

	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	_, err = s.driver.Stage(s.ctx, "a")
	s.Expect(err).NotTo(HaveOccurred(), "beside published content")
	s.at(info, volume.Published, "first")
}

func (s *suite) unfinished() {
	info := s.must("a")
	_, err := s.driver.Stage(s.ctx, "a")
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(s.driver.Publish(s.ctx, "a")).To(MatchError(volume.ErrUnfinished))
	s.Expect(s.driver.Withdraw(s.ctx, "a")).To(MatchError(volume.ErrUnfinished))
	s.Expect(volume.WriteMarker(info, volume.Marker{UID: "a"})).To(Succeed())
	s.Expect(s.driver.Publish(s.ctx, "a")).To(MatchError(volume.ErrUnfinished))
	s.Expect(info.Path).NotTo(BeADirectory())

	s.Expect(Fill(s.ctx, s.driver, info, "first")).To(Succeed())
	s.Expect(s.driver.Withdraw(s.ctx, "a")).To(MatchError(volume.ErrNotFound), "it is staged")
}

func (s *suite) foreign() {
	info := s.filled("a")
	s.Expect(os.Mkdir(info.Path, 0o755)).To(Succeed()) //nolint:gosec // as a kubelet does it
	s.at(info, volume.Staged, "first")
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed(), "an empty directory is no content")
	s.Expect(s.driver.Withdraw(s.ctx, "a")).To(Succeed())

	for reason, plant := range map[string]func() error{
		"a directory that is not empty": func() error { return os.MkdirAll(filepath.Join(info.Path, "x"), 0o755) }, //nolint:gosec // as above
		"a file":                        func() error { return os.WriteFile(info.Path, nil, 0o600) },
		"a symbolic link":               func() error { return os.Symlink(s.t.TempDir(), info.Path) },
	} {
		s.Expect(plant()).To(Succeed())
		s.Expect(s.driver.Publish(s.ctx, "a")).To(And(foreign(), MatchError(ContainSubstring(reason))))
		s.at(info, volume.Withdrawn, "first")
		s.Expect(os.RemoveAll(info.Path)).To(Succeed())
	}
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	s.at(info, volume.Published, "first")
}

func (s *suite) lost() {
	info := s.filled("a")
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	s.Expect(os.Rename(info.Path, filepath.Join(info.Dir, "elsewhere"))).To(Succeed())
	s.Expect(os.Mkdir(info.Path, 0o755)).To(Succeed()) //nolint:gosec // as a kubelet does it
	s.Expect(s.driver.Position(s.ctx, "a")).To(Equal(volume.None))
	s.Expect(s.driver.Publish(s.ctx, "a")).To(MatchError(volume.ErrNotFound))
	s.Expect(s.driver.Withdraw(s.ctx, "a")).To(MatchError(volume.ErrNotFound))
}

func (s *suite) discard() {
	info := s.filled("a")
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	s.Expect(s.driver.Discard(s.ctx, "a", volume.Published)).NotTo(Succeed())
	s.Expect(s.driver.Discard(s.ctx, "a", volume.None)).NotTo(Succeed())
	s.Expect(s.driver.Discard(s.ctx, "a", volume.Staged)).To(Succeed(), "there is none")
	s.at(info, volume.Published, "first")

	s.Expect(s.driver.Withdraw(s.ctx, "a")).To(Succeed())
	s.Expect(Fill(s.ctx, s.driver, info, "second")).To(Succeed())
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	s.at(info, volume.Published, "second")
	s.Expect(s.driver.Withdraw(s.ctx, "a")).To(And(foreign(), MatchError(ContainSubstring("not empty"))))
	s.at(info, volume.Published, "second")
	s.Expect(s.driver.Discard(s.ctx, "a", volume.Withdrawn)).To(Succeed())
	s.Expect(s.driver.Withdraw(s.ctx, "a")).To(Succeed())
	s.at(info, volume.Withdrawn, "second")
}

func (s *suite) cancelled() {
	info := s.filled("a")
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, ensure := s.driver.Ensure(ctx, volume.Spec{ID: "b", Size: gibibyte})
	_, usage := s.driver.Usage(ctx, "a")
	_, stage := s.driver.Stage(ctx, "a")
	for _, err := range []error{
		ensure, usage, stage, s.driver.Publish(ctx, "a"), s.driver.Withdraw(ctx, "a"), s.driver.Remove(ctx, "a"),
	} {
		s.Expect(err).To(MatchError(context.Canceled))
	}
	s.Expect(s.driver.List(s.ctx)).To(Equal([]volume.Info{info}))
	s.at(info, volume.Staged, "first")
}

func foreign() types.GomegaMatcher {
	return WithTransform(func(err error) bool {
		var foreign *volume.ForeignError
		return errors.As(err, &foreign)
	}, BeTrue())
}
