package archive_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// disturb runs n goroutines that call mess until the test has called the function returned.
func disturb(n int, mess func(r *rand.Rand)) (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for !done.Load() {
				mess(r)
			}
		})
	}
	return func() { done.Store(true); wg.Wait() }
}

// overwrite neither follows the links nor waits on the FIFOs that the other writers leave.
func overwrite(path string, flags int, content []byte) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|flags, 0o644)
	if err != nil {
		return
	}
	_, _ = f.Write(content)
	_ = f.Close()
}

// messUp does one of the things that can happen to a file.
func messUp(r *rand.Rand, path, other string) {
	switch r.IntN(9) {
	case 0:
		overwrite(path, unix.O_CREAT, bytes.Repeat([]byte("x"), r.IntN(100_000)))
	case 1:
		overwrite(path, unix.O_TRUNC, nil)
	case 2:
		overwrite(path+".new", unix.O_CREAT, []byte("new"))
		_ = os.Rename(path+".new", path)
	case 3:
		_ = os.Remove(path)
	case 4:
		_ = os.Remove(path)
		_ = os.Symlink("/nonexistent/target", path)
	case 5:
		_ = os.Remove(path)
		_ = unix.Mkfifo(path, 0o644)
	case 6:
		_ = os.RemoveAll(path)
		_ = os.MkdirAll(path+"/sub", 0o755)
	case 7:
		_ = os.Link(path, other)
	case 8:
		_ = os.Truncate(path, r.Int64N(9<<20))
	}
}

// Whatever writers do meanwhile: no hang, no error, what was stored restores to exactly the digest reported, and files that
// nobody touches are right.
func TestChangingFiles(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `mkdir d still; for i in $(seq 20); do echo start >d/f$i; echo $i >still/$i; done; head -c 9000000 /dev/urandom >still/large`)
	file := func(r *rand.Rand) string { return filepath.Join(b.dir, "d", "f"+strconv.Itoa(r.IntN(20))) }
	stop := disturb(8, func(r *rand.Rand) { messUp(r, file(r), file(r)) })
	still := independentWalk(t, filepath.Join(b.dir, "still"))
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		r := create(t, b.dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root, Index: b.last.Index})
		to := t.TempDir()
		restored, _, err := archive.Restore(t.Context(), r.Root, to, archive.RestoreOptions{Source: b.store, HashContent: true})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(restored.Digest).To(Equal(r.Report.Digest))
		g.Expect(counts(restored)).To(Equal(counts(r.Report)))
		expectEqualTrees(t, still, independentWalk(t, filepath.Join(to, "still")))
		b.last = r
	}
	stop()
	b.next(nil) // and the next one has the final state
}

// A large file that stops changing while the rest is read is stored as it is at last, under all its names.
func TestLargeFileIsReadAgain(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"grows":    func(path string) error { return appendTo(path, "more") },
		"shrinks":  func(path string) error { return os.Truncate(path, 9_100_001) },
		"empties":  func(path string) error { return os.Truncate(path, 0) },
		"vanishes": os.Remove,
		"rewritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("other"), 0)
			return errors.Join(err, f.Close())
		},
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+"x", []byte("other"), 0o600), os.Rename(path+"x", path))
		},
		"punched": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 8<<20)
			return errors.Join(err, f.Close())
		},
	} {
		for call := range 3 { // before it is opened, after its first block, after its second
			t.Run(name+strconv.Itoa(call), func(t *testing.T) {
				g := NewWithT(t)
				dir, s := t.TempDir(), newPackStore()
				sh(t, dir, `head -c 20M /dev/urandom >b; ln b c; ln b a; echo z >z`)
				n := 0
				r, err := archive.Create(t.Context(), dir, archive.CreateOptions{Sink: s, Progress: func(int64, int64) {
					if n == call {
						g.Expect(change(dir + "/a")).To(Succeed())
					}
					n++
				}})
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(r.Changed).To(BeEmpty())
				to, restored, _ := restore(t, r.Root, s, nil)
				g.Expect(restored.Digest).To(Equal(r.Report.Digest))
				g.Expect(counts(restored)).To(Equal(counts(r.Report)))
				if name == "grows" || name == "rewritten" || name == "punched" { // the others are not done in one instant
					expectEqualTrees(t, independentWalk(t, dir), independentWalk(t, to))
				}
				again := create(t, dir, archive.CreateOptions{Sink: s, Source: s, Parent: &r.Root, Index: r.Index})
				to, _, _ = restore(t, again.Root, s, nil)
				expectEqualTrees(t, independentWalk(t, dir), independentWalk(t, to))
			})
		}
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// A file that never holds still is stored as something, named, and read again by the next backup.
func TestNeverStill(t *testing.T) {
	for _, size := range []int64{3 << 20, 18 << 20} {
		t.Run(strconv.FormatInt(size, 10), func(t *testing.T) {
			g := NewWithT(t)
			b := begin(t, `head -c `+strconv.FormatInt(size, 10)+` /dev/urandom >log`)
			stop := disturb(2, func(r *rand.Rand) { _ = os.Truncate(b.dir+"/log", size-r.Int64N(1<<20)) })
			g.Eventually(func() []string { // a loaded machine may leave the file alone for a moment
				r := create(t, b.dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root, Index: b.last.Index})
				g.Expect(r.UnreadableCount).To(BeZero())
				_, restored, _ := restore(t, r.Root, b.store, nil)
				g.Expect(restored.Digest).To(Equal(r.Report.Digest))
				g.Expect(restored.Changed).To(Equal(r.Changed))
				b.last = r
				return r.Changed
			}, "30s", "1ms").Should(Equal([]string{"log"}))
			stop()
			b.calm()
			r := b.next(nil)
			g.Expect(r.BytesRead).To(BeNumerically(">", 1<<20))
			g.Expect(r.Changed).To(BeEmpty())
		})
	}
}

// However often a large file with an older version is written to while it is read, its hash is that of what is stored.
func TestS3_LargeFileThatNeverHoldsStillIsWhole(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `head -c 20M /dev/urandom >db`)
	stop := disturb(2, func(r *rand.Rand) {
		f, err := os.OpenFile(b.dir+"/db", os.O_WRONLY, 0)
		if err == nil {
			_, _ = f.WriteAt([]byte(strconv.FormatInt(r.Int64(), 10)), r.Int64N(20<<20))
			_ = f.Close()
		}
	})
	defer stop()
	for range 5 {
		r := create(t, b.dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root, Index: b.last.Index})
		g.Expect(archive.Verify(t.Context(), r.Root, b.store, nil, true, nil)).To(Succeed())
		_, _, err := archive.Restore(t.Context(), r.Root, t.TempDir(), archive.RestoreOptions{Source: b.store, HashContent: true})
		g.Expect(err).NotTo(HaveOccurred())
		b.last = r
	}
}

// A file that has come to rest is stored once more, so that it is not called changing, and then no more.
func TestFileThatHasComeToRest(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `head -c 3M /dev/urandom >log; head -c 9M /dev/urandom >other`)
	stop := disturb(2, func(*rand.Rand) { _ = os.Chtimes(b.dir+"/log", time.Unix(1000, 0), time.Unix(1000, 0)) })
	g.Eventually(func() []string {
		b.last = create(t, b.dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root, Index: b.last.Index})
		return b.last.Changed
	}, "30s", "1ms").Should(Equal([]string{"log"}))
	stop()
	b.calm()
	before := b.last
	r := b.next(nil)
	g.Expect(r.Root.Digest).To(Equal(before.Root.Digest))
	g.Expect(r.Unchanged).To(BeFalse(), "the manifest says something else of it")
	g.Expect(r.Stored).To(BeNumerically("<", 4000))
	g.Expect(b.next(nil).Unchanged).To(BeTrue())
	g.Expect(b.last.BytesRead).To(BeZero())
}

// Somebody makes directories into links to a directory outside, and moves them there and back, while we read.
func TestS6_SwappedDirectoriesLeadNowhere(t *testing.T) {
	g := NewWithT(t)
	parent := t.TempDir()
	dir, outside := filepath.Join(parent, "content"), filepath.Join(parent, "outside")
	const canary = "canary-canary-canary"
	sh(t, parent, `mkdir -p outside/sub; echo `+canary+` >outside/f; echo `+canary+` >outside/sub/f
		for i in 0 1 2 3 4 5 6 7 8 9; do mkdir -p content/d$i/sub; echo inside >content/d$i/f; echo inside >content/d$i/sub/f; done`)
	stop := disturb(4, func(r *rand.Rand) {
		d := filepath.Join(dir, "d"+strconv.Itoa(r.IntN(10)))
		for _, at := range []string{d, d + "/sub", d + "/f", d + "/sub/f"} {
			if os.Rename(at, at+".away") == nil {
				_ = os.Symlink(outside+map[bool]string{true: "/f", false: ""}[filepath.Base(at) == "f"], at)
				_ = os.Remove(at)
				_ = os.Rename(at+".away", at)
			}
		}
	})
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		s := newPackStore()
		r := create(t, dir, archive.CreateOptions{Sink: s})
		to, _, _ := restore(t, r.Root, s, nil)
		g.Expect(filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				var content []byte
				content, err = os.ReadFile(path)
				g.Expect(string(content)).NotTo(ContainSubstring(canary))
			}
			return err
		})).To(Succeed())
	}
	stop()
}
