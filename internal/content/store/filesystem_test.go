package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

func newStore(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := store.NewFilesystem(dir)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, err = store.Init(t.Context(), s)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s
}

func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	NewWithT(t).Expect(unix.Mount("tmpfs", dir, "tmpfs", 0, options)).To(Succeed())
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestFilesystemConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		s, err := store.NewFilesystem(t.TempDir())
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return s
	})
}

// On some file systems every file has a name.
func TestFilesystemConformsWithNames(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		s, err := store.NewFilesystem(t.TempDir())
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return store.WithNamedTemps(s)
	})
}

func TestFilesystemConformsWithTimeout(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		s, err := store.NewFilesystem(t.TempDir())
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return store.WithTimeout(s, time.Minute, nil)
	})
}

func TestFilesystemNeedsDirectory(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	g.Expect(os.WriteFile(file, nil, 0o600)).To(Succeed())
	for _, path := range []string{filepath.Join(dir, "missing"), file, "relative", "", dir + "\x00"} {
		_, err := store.NewFilesystem(path)
		g.Expect(err).To(HaveOccurred(), path)
	}
	g.Expect(filepath.Join(dir, "missing")).NotTo(BeAnExistingFile(), "the root is never created")
}

func TestFilesystemModes(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	s := newStore(t, dir)
	g.Expect(s.Put(t.Context(), "a/b/c", []byte("x"))).To(Succeed())
	g.Expect(filepath.Join(dir, ".tmp")).NotTo(BeADirectory(), "files have no name before they have a key")
	g.Expect(store.WithNamedTemps(s).Put(t.Context(), "a/b/d", []byte("x"))).To(Succeed())
	for path, want := range map[string]os.FileMode{"a": 0o700, "a/b": 0o700, "a/b/c": 0o600, "a/b/d": 0o600, ".tmp": 0o700, "store.json": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(info.Mode().Perm()).To(Equal(want), path)
	}
	g.Expect(os.ReadDir(filepath.Join(dir, ".tmp"))).To(BeEmpty(), "no temporary file is left")
}

// A full disk is an error; nothing half-written is seen, and the store goes on once there is room.
func TestS2_FilesystemDiskFull(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	mountTmpfs(t, dir, "size=1m")
	s := newStore(t, dir)
	big := make([]byte, 2<<20)
	err := s.Put(t.Context(), "d/big", big)
	g.Expect(err).To(MatchError(unix.ENOSPC))
	g.Expect(err).To(MatchError(MatchRegexp(`^put d/big into file://\S+: write a temporary file: no space left on device: the store is full: give it more room, or raise its quota$`)))
	_, err = s.Stat(t.Context(), "d/big")
	g.Expect(err).To(MatchError(store.ErrNotFound))
	g.Expect(s.List(t.Context(), "d/", "", 0)).To(BeEmpty())
	g.Expect(os.ReadDir(dir)).To(HaveLen(1), "nothing is left but store.json")
	g.Expect(s.Put(t.Context(), "d/big", big[:500<<10])).To(Succeed(), "room is given back")
}

func TestFilesystemThatIsReadOnly(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	mountTmpfs(t, dir, "size=1m")
	s := newStore(t, dir)
	g.Expect(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")).To(Succeed())
	g.Expect(s.Put(t.Context(), "key", nil)).To(MatchError(MatchRegexp(
		`^put key into file://\S+: .*read-only file system: mount the store such that it can be written to$`)))
	g.Expect(s.Get(t.Context(), store.IdentityKey, 1000)).NotTo(BeEmpty())
}

// An unmounted or removed root is an error in every call, never an empty store, and nothing is written into it.
func TestS2_FilesystemRootVanishes(t *testing.T) {
	vanish := map[string]func(g Gomega, dir string){
		"removed":   func(g Gomega, dir string) { g.Expect(os.RemoveAll(dir)).To(Succeed()) },
		"unmounted": func(g Gomega, dir string) { g.Expect(unix.Unmount(dir, 0)).To(Succeed()) },
		"emptied":   func(g Gomega, dir string) { g.Expect(os.Remove(filepath.Join(dir, "store.json"))).To(Succeed()) },
	}
	for name, how := range vanish {
		t.Run(name, func(t *testing.T) {
			g, ctx := NewWithT(t), t.Context()
			dir := filepath.Join(t.TempDir(), "root")
			g.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
			if name == "unmounted" {
				mountTmpfs(t, dir, "size=1m")
			}
			s := newStore(t, dir)
			how(g, dir)
			_, getErr := s.Get(ctx, "a", 64<<20)
			_, statErr := s.Stat(ctx, "a")
			_, listErr := s.List(ctx, "a/", "", 0)
			_, nowErr := s.Now(ctx)
			_, idErr := store.Identity(ctx, s)
			for _, err := range []error{s.Put(ctx, "a", nil), s.Delete(ctx, "a"), getErr, statErr, listErr, nowErr, idErr} {
				g.Expect(err).To(HaveOccurred())
				g.Expect(err).NotTo(MatchError(store.ErrNotFound))
				g.Expect(err).To(MatchError(ContainSubstring(dir)))
			}
			g.Expect(filepath.Join(dir, "a")).NotTo(BeAnExistingFile())
		})
	}
}

func TestS6_FilesystemFollowsNoLinks(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	dir, outside := t.TempDir(), t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(outside, "secret"), []byte("canary"), 0o600)).To(Succeed())
	s := newStore(t, dir)
	g.Expect(s.Put(ctx, "real/file", []byte("x"))).To(Succeed())
	for name, target := range map[string]string{"out": outside, "leaf": filepath.Join(outside, "secret"), "in": "real", "up": "..", "proc": "/proc/self/root"} {
		g.Expect(os.Symlink(target, filepath.Join(dir, name))).To(Succeed())
	}
	for _, key := range []string{"out/secret", "leaf", "in/file", "in/other", "up/x", "proc/etc/passwd"} {
		_, err := s.Get(ctx, key, 64<<20)
		g.Expect(err).To(HaveOccurred(), key)
		_, err = s.Stat(ctx, key)
		g.Expect(err).To(HaveOccurred(), key)
		g.Expect(s.Put(ctx, key, []byte("evil"))).To(HaveOccurred(), key)
	}
	_ = s.Delete(ctx, "out/secret", "up/x") // absent or an error; what counts is the canary
	objects, err := s.List(ctx, "", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects).To(HaveLen(2), "real/file and store.json")
	_, err = s.List(ctx, "out/", "", 0)
	g.Expect(err).To(HaveOccurred())
	g.Expect(os.ReadDir(outside)).To(HaveLen(1))
	g.Expect(os.ReadFile(filepath.Join(outside, "secret"))).To(Equal([]byte("canary")))
}

// A FIFO must not hang a reader.
func TestS6_FilesystemIgnoresSpecialFiles(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	s := newStore(t, dir)
	g.Expect(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)).To(Succeed())
	_, err := s.Get(t.Context(), "fifo", 1)
	g.Expect(err).To(MatchError(ContainSubstring("not a regular file")))
	objects, err := s.List(t.Context(), "", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects).To(HaveLen(1))
}

// A writer killed between writing and naming leaves a file nobody sees, swept a day later: by the first Put of the next process,
// and whenever somebody asks for it.
func TestS2_FilesystemKilledWriter(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	dir := t.TempDir()
	newStore(t, dir)
	tmp := filepath.Join(dir, ".tmp")
	g.Expect(os.Mkdir(tmp, 0o700)).To(Succeed())
	now := time.Now()
	killed := func() {
		for name, age := range map[string]time.Duration{".tmp-old": 25 * time.Hour, ".tmp-young": 23 * time.Hour, "other": 25 * time.Hour} {
			path := filepath.Join(tmp, name)
			g.Expect(os.WriteFile(path, []byte("half"), 0o600)).To(Succeed())
			g.Expect(os.Chtimes(path, now.Add(-age), now.Add(-age))).To(Succeed())
		}
	}
	left := func() (names []string) {
		entries, err := os.ReadDir(tmp)
		g.Expect(err).NotTo(HaveOccurred())
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	killed()
	s := newStore(t, dir)
	objects, err := s.List(ctx, "", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects).To(HaveLen(1))
	g.Expect(s.Put(ctx, "a", nil)).To(Succeed())
	g.Expect(left()).To(Equal([]string{".tmp-young", "other"}))

	killed()
	g.Expect(s.Put(ctx, "b", nil)).To(Succeed())
	g.Expect(left()).To(ContainElement(".tmp-old"), "a Put has better things to do")
	g.Expect(store.Sweep(ctx, store.WithTimeout(s, time.Minute, nil))).To(Succeed())
	g.Expect(left()).To(Equal([]string{".tmp-young", "other"}))
}

func TestSweepSaysWhatIsWrong(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	s := newStore(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(store.Sweep(ctx, s)).To(MatchError(context.Canceled))
	g.Expect(store.Sweep(t.Context(), s)).To(Succeed(), "nothing was ever left")
	g.Expect(os.MkdirAll(filepath.Join(dir, ".tmp", ".tmp-dir"), 0o700)).To(Succeed())
	old := time.Now().Add(-48 * time.Hour)
	g.Expect(os.Chtimes(filepath.Join(dir, ".tmp", ".tmp-dir"), old, old)).To(Succeed())
	g.Expect(store.Sweep(t.Context(), s)).To(MatchError(And(ContainSubstring("sweep file://"+dir), ContainSubstring("is a directory"))))
	g.Expect(os.Remove(filepath.Join(dir, store.IdentityKey))).To(Succeed())
	g.Expect(store.Sweep(t.Context(), s)).To(MatchError(store.ErrNotInitialized))
	plain := struct{ store.Store }{s}
	g.Expect(store.Sweep(t.Context(), plain)).To(Succeed(), "a store that has nothing to sweep")
}

// Readers beside writers and removers see whole objects and ordered listings, or nothing.
func TestS2_FilesystemConcurrentListing(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	s := newStore(t, t.TempDir())
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	failures := make(chan error, 8)
	for w := range 2 {
		writers.Go(func() {
			for i := range 200 {
				key := strings.Repeat(string(rune('a'+w)), i%5+1) + "/x"
				if err := s.Put(ctx, key, []byte(key)); err != nil && !errors.Is(err, store.ErrExists) {
					failures <- err
					return
				}
				if err := s.Delete(ctx, key); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	readers.Go(func() {
		for {
			objects, err := s.List(ctx, "", "", 0)
			for i := range objects {
				if i > 0 && objects[i-1].Key >= objects[i].Key {
					err = errors.New("out of order: " + objects[i].Key)
				}
			}
			if err != nil {
				failures <- err
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	writers.Wait()
	close(done)
	readers.Wait()
	g.Expect(failures).To(BeEmpty())
}
