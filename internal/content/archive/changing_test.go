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
func disturb(n int, mess func(r *rand.Rand, i int)) (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for !done.Load() {
				mess(r, i)
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

// Whatever writers do meanwhile: no hang, no error, and what was stored restores to exactly the digest reported.
func TestChangingFiles(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	for i := range 20 {
		write(t, dir, "f"+strconv.Itoa(i), "start")
	}
	stop := disturb(8, func(r *rand.Rand, _ int) {
		path := filepath.Join(dir, "f"+strconv.Itoa(r.IntN(20)))
		switch r.IntN(8) {
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
			_ = os.Link(path, filepath.Join(dir, "f"+strconv.Itoa(r.IntN(20))))
		}
	})
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		m := newMemory()
		report, packs, err := archive.Create(t.Context(), dir, m, nil)
		g.Expect(err).NotTo(HaveOccurred())
		restored, err := archive.Restore(t.Context(), packs, m, t.TempDir(), nil)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(restored.Digest).To(Equal(report.Digest))
	}
	stop()
	roundTrip(t, dir)
}

// A large file that stops changing while the rest is read is stored as it is at last, under all its names.
func TestLargeFileIsReadAgain(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"grows":    func(path string) error { return appendTo(path, "more") },
		"shrinks":  func(path string) error { return os.Truncate(path, 9<<20) },
		"vanishes": os.Remove,
		"rewritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("other"), 0)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			sh(t, dir, `head -c 100M /dev/zero >b; ln b c; ln b a; echo z >z`)
			old, once := time.Unix(1000, 0), sync.Once{}
			g.Expect(os.Chtimes(dir+"/b", old, old)).To(Succeed())
			m := newMemory()
			// The first progress comes when the file was opened and looked at, before its content is read.
			report, packs, err := archive.Create(t.Context(), dir, m, func(int64, int64) {
				once.Do(func() { g.Expect(change(dir + "/a")).To(Succeed()) })
			})
			g.Expect(err).NotTo(HaveOccurred())
			to := t.TempDir()
			restored, err := archive.Restore(t.Context(), packs, m, to, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(restored.Digest).To(Equal(report.Digest))
			g.Expect(counts(restored)).To(Equal(counts(report)))
			if name == "vanishes" {
				g.Expect(report.Changed).NotTo(BeEmpty())
				return
			}
			g.Expect(report.Changed).To(BeEmpty())
			expectSame(t, picture(t, dir), picture(t, to))
		})
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

// A file that never holds still is stored as something, and named.
func TestNeverStill(t *testing.T) {
	for _, size := range []int64{7 << 20, 30 << 20} {
		t.Run(strconv.FormatInt(size, 10), func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			write(t, dir, "log", "")
			g.Expect(os.Truncate(dir+"/log", size)).To(Succeed())
			stop := disturb(2, func(r *rand.Rand, _ int) { _ = os.Truncate(dir+"/log", size+r.Int64N(1000)) })
			defer stop()
			g.Eventually(func() []string { // a loaded machine may leave the file alone for a moment
				m := newMemory()
				report, packs, err := archive.Create(t.Context(), dir, m, nil)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(report.UnreadableCount).To(BeZero())
				restored, err := archive.Restore(t.Context(), packs, m, t.TempDir(), nil)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(restored.Digest).To(Equal(report.Digest))
				g.Expect(counts(restored)).To(Equal(counts(report)))
				return report.Changed
			}, "30s", "1ms").Should(Equal([]string{"log"}))
		})
	}
}

// A FIFO nobody writes to must not stop a backup.
func TestFIFODoesNotBlock(t *testing.T) {
	dir := t.TempDir()
	sh(t, dir, `mkfifo p; echo x >f`)
	roundTrip(t, dir)
}

// Somebody makes directories into links to a directory outside, and moves them there and back, while we read.
func TestS6_SwappedDirectoriesLeadNowhere(t *testing.T) {
	g := NewWithT(t)
	base := t.TempDir()
	dir, outside := filepath.Join(base, "content"), filepath.Join(base, "outside")
	const canary = "canary-canary-canary"
	write(t, outside, "f", canary)
	write(t, outside, "sub/f", canary)
	for i := range 10 {
		write(t, dir, "d"+strconv.Itoa(i)+"/f", "inside")
		write(t, dir, "d"+strconv.Itoa(i)+"/sub/f", "inside")
	}
	stop := disturb(4, func(r *rand.Rand, _ int) {
		d := filepath.Join(dir, "d"+strconv.Itoa(r.IntN(10)))
		for _, at := range []string{d, d + "/sub", d + "/f", d + "/sub/f"} {
			if os.Rename(at, at+".away") == nil {
				_ = os.Symlink(outside+map[bool]string{true: "/f", false: ""}[filepath.Base(at) == "f"], at)
				_ = os.Remove(at)
				_ = os.Rename(at+".away", at)
			}
		}
	})
	for until := time.Now().Add(4 * time.Second); time.Now().Before(until); {
		m := newMemory()
		_, packs, err := archive.Create(t.Context(), dir, m, nil)
		g.Expect(err).NotTo(HaveOccurred())
		var out bytes.Buffer
		g.Expect(archive.Export(t.Context(), packs, m, &out)).To(Succeed())
		g.Expect(bytes.Contains(out.Bytes(), []byte(canary))).To(BeFalse())
	}
	stop()
}
