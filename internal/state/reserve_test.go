package state_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults/faultstest"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// small is a working area on a small disk of its own.
type small struct {
	*WithT
	dir  string
	area *state.Area
}

func newSmall(t *testing.T, options string) *small {
	t.Helper()
	s := &small{WithT: NewWithT(t), dir: t.TempDir()}
	s.Expect(unix.Mount("none", s.dir, "tmpfs", 0, options)).To(Succeed())
	t.Cleanup(func() { s.Expect(unix.Unmount(s.dir, unix.MNT_DETACH)).To(Succeed()) })
	s.area = open(t, s.dir)
	s.Expect(s.area.Init(identity())).To(Succeed())
	return s
}

// fill takes every block that is left, as a user does with cat /dev/zero.
func (s *small) fill() {
	f, err := os.OpenFile(filepath.Join(s.dir, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	s.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	s.Expect(errors.Is(err, unix.ENOSPC)).To(BeTrue(), "%v", err)
}

// free gives the blocks back.
func (s *small) free() { s.Expect(os.Remove(filepath.Join(s.dir, "filler"))).To(Succeed()) }

// reopen returns the journal as the next daemon finds it.
func (s *small) reopen(t *testing.T) *state.Journal {
	t.Helper()
	s.area.Close()
	s.area = open(t, s.dir)
	return s.area.Journal()
}

// whole says whether the reserve has all its room.
func (s *small) whole() bool {
	files, err := filepath.Glob(filepath.Join(s.dir, "reserve", "*"))
	s.Expect(err).NotTo(HaveOccurred())
	for _, file := range files {
		info, err := os.Stat(file)
		s.Expect(err).NotTo(HaveOccurred())
		if info.Size() != 64<<10 {
			return false
		}
	}
	return len(files) == 16
}

// A user who fills the disk must not switch off backups: each of them begins with a note in the journal. There are more
// volumes than files in the reserve, and whatever is freed for an instant the user takes.
func TestS9_JournalOnAFullDisk(t *testing.T) {
	s := newSmall(t, "size=4m")
	s.Expect(s.whole()).To(BeTrue())
	const volumes = 40
	uid := func(i int) string { return fmt.Sprintf("u%02d", i) }
	for i := range volumes {
		s.Expect(s.area.Journal().Put(entry(uid(i), "web"))).To(Succeed())
	}
	s.fill()
	s.Expect(os.WriteFile(filepath.Join(s.dir, "more"), []byte("x"), 0o600)).NotTo(Succeed(), "the disk is full")
	j := s.reopen(t)
	for round := range 5 {
		for i := range volumes {
			_, err := j.Update(uid(i), func(e *state.Entry, _ bool) bool {
				e.Backup.Last += int64(round)
				return true
			})
			s.Expect(err).NotTo(HaveOccurred())
			s.fill()
		}
	}
	want := entry("u00", "web")
	want.Backup.Last += 0 + 1 + 2 + 3 + 4
	var all []state.Entry
	for i := range volumes {
		want.UID = uid(i)
		all = append(all, want)
	}
	s.Expect(j.List()).To(Equal(all))
	j = s.reopen(t)
	s.Expect(j.List()).To(Equal(all))
	s.Expect(j.Damaged()).To(BeEmpty())

	s.free()
	s.Expect(j.Put(all[0])).To(Succeed())
	s.Expect(s.whole()).To(BeTrue(), "made again when there was space")
}

func TestS9_JournalBesideAWriterThatNeverStops(t *testing.T) {
	s := newSmall(t, "size=3m")
	for _, uid := range []string{"u1", "u2"} {
		s.Expect(s.area.Journal().Put(entry(uid, "web"))).To(Succeed())
	}
	s.fill()
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.fill()
			}
		}
	})
	for n := range 300 {
		e := entry([]string{"u1", "u2"}[n%2], "web")
		e.Backup.Problem = strings.Repeat("p", n%200*20) // a record grows and shrinks
		s.Expect(s.area.Journal().Put(e)).To(Succeed())
	}
	close(stop)
	writer.Wait()
	s.Expect(s.area.Journal().List()).To(Equal(s.reopen(t).List()))
}

// Records with long messages need more than one block.
func TestLongEntryOnAFullDisk(t *testing.T) {
	s := newSmall(t, "size=3m")
	e := entry("u1", "web")
	s.Expect(s.area.Journal().Put(e)).To(Succeed())
	s.fill()
	for n := range 4 {
		e.Backup.Failure = strings.Repeat("x", 20_000+n)
		s.Expect(s.area.Journal().Put(e)).To(Succeed())
	}
	s.Expect(s.reopen(t).List()).To(Equal([]state.Entry{e}))
	e.Backup.Failure = strings.Repeat("x", 70_000)
	s.Expect(s.area.Journal().Put(e)).To(MatchError(unix.ENOSPC), "there is an end to it")
	s.Expect(s.reopen(t).List()).To(HaveLen(1), "and what was there is there")
}

// New records give no room back, so they get only half of it: workspaces that cannot be used anyway must not take it from
// those that are.
func TestNewEntriesOnAFullDisk(t *testing.T) {
	s := newSmall(t, "size=3m")
	s.Expect(s.area.Journal().Put(entry("old", "web"))).To(Succeed())
	s.fill()
	made := 0
	for i := range 16 {
		err := s.area.Journal().Put(entry(fmt.Sprintf("new%02d", i), "web"))
		s.fill()
		if err != nil {
			s.Expect(err).To(And(MatchError(unix.ENOSPC), MatchError(ContainSubstring("what is left of it is for files that exist already"))))
			continue
		}
		made++
	}
	s.Expect(made).To(Equal(8))
	for range 20 {
		s.Expect(s.area.Journal().Put(entry("old", "web"))).To(Succeed())
	}
	s.Expect(s.reopen(t).List()).To(HaveLen(9))
}

func TestS9_JournalWithoutFreeInodes(t *testing.T) {
	s := newSmall(t, "size=8m,nr_inodes=60")
	s.Expect(s.area.Journal().Put(entry("u1", "web"))).To(Succeed())
	var err error
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(s.dir, fmt.Sprint("inode", i)), nil, 0o600)
	}
	s.Expect(errors.Is(err, unix.ENOSPC)).To(BeTrue())
	changed := entry("u1", "web")
	for range 40 {
		changed.Claim++
		s.Expect(s.area.Journal().Put(changed)).To(Succeed())
	}
	s.Expect(s.reopen(t).List()).To(Equal([]state.Entry{changed}))
}

func TestStoreIsRecordedOnAFullDisk(t *testing.T) {
	s := newSmall(t, "size=3m")
	s.fill()
	s.Expect(s.area.SetStore("store-1")).To(Succeed())
	s.Expect(s.area.Check()).To(Succeed())
	s.reopen(t)
	s.Expect(s.area.Identity()).To(HaveField("Store", "store-1"))
}

// An area that was never initialized may be a mount point: nothing is kept there.
func TestS10_NoReserveWithoutIdentity(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	a := open(t, dir)
	g.Expect(filepath.Join(dir, "reserve")).NotTo(BeADirectory())
	g.Expect(a.Init(identity())).To(Succeed())
	g.Expect(filepath.Join(dir, "reserve", "15")).To(BeARegularFile())
}

// A reserve that somebody removed is missed, said, and made again.
func TestReserveThatWasRemoved(t *testing.T) {
	s := newSmall(t, "size=3m")
	s.Expect(s.area.Journal().Put(entry("u1", "web"))).To(Succeed())
	s.Expect(os.RemoveAll(filepath.Join(s.dir, "reserve"))).To(Succeed())
	s.fill()
	s.Expect(s.area.Journal().Put(entry("u1", "db"))).To(And(MatchError(unix.ENOSPC), MatchError(ContainSubstring("the reserve did not help"))))
	s.free()
	s.Expect(s.area.Journal().Put(entry("u1", "db"))).To(Succeed())
	s.Expect(s.whole()).To(BeTrue())
}

func TestS5_JournalOnAFullDiskIsOldOrNewAfterKill(t *testing.T) {
	binary := faultstest.Build(t)
	for point, claim := range map[string]int64{"journal.reserve.written": 7, "journal.reserve.placed": 8} {
		t.Run(point, func(t *testing.T) {
			s := newSmall(t, "size=3m")
			s.Expect(s.area.Journal().Put(entry("u1", "web"))).To(Succeed())
			s.fill()
			s.area.Close()
			s.Expect(binary.Run(t.Context(), areaVariable+"="+s.dir, faultstest.Kill(point))).To(MatchError("signal: killed: fault point " + point + " reached for the 1. time: killed\n"))
			got, ok := s.reopen(t).Get("u1")
			s.Expect(ok).To(BeTrue())
			s.Expect(got.Claim).To(Equal(claim))
			s.Expect(s.area.Journal().Damaged()).To(BeEmpty())
			s.Expect(s.area.Journal().Put(got)).To(Succeed(), "the reserve is still there")
		})
	}
}
