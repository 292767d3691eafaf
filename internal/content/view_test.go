package content_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// viewing is a driver that can make views: copies, here.
type viewing struct {
	volume.Driver

	t *testing.T
	// fails is what Snapshot returns, nil if it makes views.
	fails error
	// during is called while a view exists, before anything is read from it.
	during func()
	// open and made count views.
	open, made int
}

func (v *viewing) Snapshot(_ context.Context, id string) (volume.View, error) {
	if v.fails != nil {
		return volume.View{}, fmt.Errorf("snapshot volume %s: %w", id, v.fails)
	}
	path := filepath.Join(v.t.TempDir(), "content")
	if err := os.CopyFS(path, os.DirFS(v.Path(id, volume.Published))); err != nil {
		return volume.View{}, err
	}
	v.open++
	v.made++
	v.during()
	return volume.View{Path: path, Close: func() error {
		v.open--
		return os.RemoveAll(path)
	}}, nil
}

// viewing gives a node a driver that can make views.
func (n *node) viewing() *viewing {
	v := &viewing{Driver: n.Volumes["default"], t: n.f.t, during: func() {}}
	n.Volumes["default"] = v
	return v
}

func (f *fixture) saved(name string) string {
	f.t.Helper()
	c, _ := f.commit(name)
	return f.restored(c)
}

// A backup of content in use is what it was at one moment, and the view is given up.
func TestBackupReadsAView(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	v := a.viewing()
	a.fill(1)
	a.write("file", "before")
	v.during = func() { a.write("file", "after") }
	a.backup(1)
	f.Expect([]int{v.made, v.open}).To(Equal([]int{1, 0}))
	v.during = func() {}
	f.Expect(f.saved("1.1")).To(Equal("file=before"))

	a.backup(1)
	f.Expect(f.saved("1.2")).To(Equal("file=after"), "what the view did not have is not lost")
}

// transparent is a driver whose views show the content itself.
type transparent struct {
	volume.Driver
	made int
}

func (d *transparent) Snapshot(_ context.Context, id string) (volume.View, error) {
	d.made++
	return volume.View{Path: d.Path(id, volume.Published), Close: func() error { return nil }}, nil
}

// While nobody works on a tree, a look at it does for a view. Who begins again gets one.
func TestIdleTreeNeedsNoView(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	d := &transparent{Driver: a.Volumes["default"]}
	a.Volumes["default"] = d
	backup := func() int {
		f.Eventually(func() time.Duration { return time.Since(newest(f, a.path("."))) }).Should(BeNumerically(">", 50*time.Millisecond), "what changed just now is read again")
		a.backup(1)
		return d.made
	}
	a.write("file", "one")
	f.Expect(backup()).To(Equal(1))
	f.Expect(backup()).To(Equal(2), "that nobody works is not known yet")
	f.Expect(backup()).To(Equal(2))
	f.Expect(backup()).To(Equal(2))
	f.Expect(f.entries()).To(Equal("1.1 1.0"))
	a.write("file", "two")
	f.Expect(backup()).To(Equal(3))
	f.Expect(f.saved("1.2")).To(Equal("file=two"))
}

// newest returns when something in a directory of files changed last.
func newest(f *fixture, dir string) time.Time {
	entries, err := os.ReadDir(dir)
	f.Expect(err).NotTo(HaveOccurred())
	var last time.Time
	for _, e := range entries {
		info, err := e.Info()
		f.Expect(err).NotTo(HaveOccurred())
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// The final backup reads the content itself: nobody writes to it any more, and it is what will be removed.
func TestFinalBackupNeedsNoView(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	v := a.viewing()
	a.fill(1)
	a.write("file", "one")
	f.Expect(a.Release(f.ctx, saveRequest(1), idle)).To(Equal("1.1"))
	f.Expect(v.made).To(BeZero())
}

func TestBackupWithoutAView(t *testing.T) {
	for name, test := range map[string]struct {
		fails error
		saved bool
	}{
		"the driver makes none":    {volume.ErrNotSupported, true},
		"the disk has no room":     {volume.ErrCapacity, true},
		"something else is broken": {errBroken, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			a := f.node("node-a")
			a.viewing().fails = test.fails
			a.fill(1)
			a.write("file", "one")
			err := a.Backup(f.ctx, saveRequest(1))
			if !test.saved {
				f.Expect(err).To(MatchError(test.fails))
				f.Expect(f.entries()).To(Equal("1.0"))
				return
			}
			f.Expect(err).NotTo(HaveOccurred())
			f.Expect(f.saved("1.1")).To(Equal("file=one"))
		})
	}
}

func TestViewIsGivenUpWhenTheBackupFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	v := a.viewing()
	a.fill(1)
	a.write("file", "one")
	a.fault = func(op, _ string) error {
		if op == "put" {
			return errBroken
		}
		return nil
	}
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(errBroken))
	f.Expect([]int{v.made, v.open}).To(Equal([]int{1, 0}))
}

// A process that keeps hold of content that was to be taken away keeps it from being released, and is no failed backup.
func TestS1_HeldContentIsNotReleased(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.Volumes["default"] = held{a.Volumes["default"]}
	_, err := a.Release(f.ctx, saveRequest(1), idle)
	f.Expect(err).To(MatchError(And(ContainSubstring("content is in use"), ContainSubstring("process 7"))))
	f.Expect(a.journal().Backup.Attempts).To(BeZero())
	f.Expect(a.seen().Position).To(Equal(volume.Published))
}

// held is a driver whose volumes somebody holds.
type held struct{ volume.Driver }

func (held) Withdraw(context.Context, string) error {
	return fmt.Errorf("%w: process 7", volume.ErrInUse)
}
