package archive_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// TestMain is also a program that reads a tree, so that a test can do it as another user.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ENGINE_TEST_DIGEST"); dir != "" {
		report, err := archive.Digest(context.Background(), dir, nil)
		_ = json.NewEncoder(os.Stdout).Encode(reply{report, errors.Join(err) != nil})
		return
	}
	os.Exit(m.Run())
}

type reply struct {
	Report archive.Report
	Failed bool
}

// digestAs reads a tree as an ordinary user.
func digestAs(t *testing.T, uid uint32, dir string) archive.Report {
	t.Helper()
	g := NewWithT(t)
	g.Expect(os.Chmod(filepath.Dir(dir), 0o755)).To(Succeed())
	exe, err := os.ReadFile("/proc/self/exe")
	g.Expect(err).NotTo(HaveOccurred())
	program := filepath.Join(t.TempDir(), "test")
	g.Expect(os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(program, exe, 0o755)).To(Succeed())
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{"ENGINE_TEST_DIGEST=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	g.Expect(err).NotTo(HaveOccurred())
	var r reply
	g.Expect(json.Unmarshal(out, &r)).To(Succeed())
	g.Expect(r.Failed).To(BeFalse())
	return r.Report
}

func TestS3_UnreadableFilesAreNamed(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `echo a >a; echo s >secret; chmod 000 secret; ln secret twin; mkdir closed; echo x >closed/x; chmod 000 closed
		mkdir blind; echo y >blind/y; chmod 444 blind; mkdir open; echo z >open/z; echo >"$(printf 'raw\377')"; chmod 0 raw*
		head -c 9M /dev/zero >large; chmod 0 large`)
	report := digestAs(t, 65534, dir)
	const denied = "permission denied"
	g.Expect(report.Unreadable).To(Equal([]archive.Problem{
		{Path: "closed", Error: denied}, {Path: "large", Error: denied}, {Path: `"raw\xff"`, Error: denied},
		{Path: "secret", Error: denied}, {Path: "twin", Error: denied}, {Path: "blind/y", Error: denied},
	}))
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(6))
	g.Expect(report.Files).To(BeEquivalentTo(2), "the rest goes on")
	g.Expect(report.Dirs).To(BeEquivalentTo(3))
}

func TestS3_OnlyAHundredAreNamedButAllAreCounted(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `for i in $(seq 150); do echo x >$i; mkdir d$i; done; chmod 0 *`)
	report := digestAs(t, 65534, dir)
	g.Expect(report.Unreadable).To(HaveLen(100))
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(300))
}

func TestS3_SocketsAndDevicesAreReported(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `mknod null c 1 3; mknod disk b 7 0; mknod whiteout c 0 0; mkfifo pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'`)
	report, err := archive.Digest(t.Context(), dir, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Skipped).To(Equal([]string{"disk", "null", "sock"}))
	g.Expect(report.SkippedCount).To(BeEquivalentTo(3))
	g.Expect(report.Others).To(BeEquivalentTo(2))
	g.Expect(report.UnreadableCount).To(BeZero())
}

func TestS3_MountsAreReported(t *testing.T) {
	g := NewWithT(t)
	dir, s := t.TempDir(), newPackStore()
	sh(t, dir, `mkdir a m z; touch f; mount -t tmpfs none m; echo x >m/x; touch outside; mount --bind outside f; mkdir b; mount --bind a b; echo y >a/y`)
	t.Cleanup(func() {
		for _, name := range []string{"m", "f", "b"} {
			g.Expect(unix.Unmount(filepath.Join(dir, name), 0)).To(Succeed())
		}
	})
	r := create(t, dir, archive.CreateOptions{Sink: s})
	const mounted = "another filesystem is mounted here"
	named := []archive.Problem{{Path: "b", Error: mounted}, {Path: "f", Error: mounted}, {Path: "m", Error: mounted}}
	g.Expect(r.Unreadable).To(Equal(named))
	g.Expect(r.Dirs).To(BeEquivalentTo(3))
	again := create(t, dir, archive.CreateOptions{Sink: s, Source: s, Parent: &r.Root, Index: r.Index})
	g.Expect(again.Unreadable).To(Equal(named), "as long as it is so")
	to, restored, _ := restore(t, again.Root, s, nil)
	g.Expect(restored.Digest).To(Equal(r.Report.Digest))
	g.Expect(sh(t, to, `ls -A`)).To(Equal("a\noutside\nz\n"))
}

// failingStore fails at the n-th call.
type failingStore struct {
	*packStore
	left int
}

var errFull = errors.New("no space left on device")

func (s *failingStore) PutPack(ctx context.Context, id format.PackID, data []byte) error {
	s.mu.Lock()
	s.left--
	fail := s.left < 0
	s.mu.Unlock()
	if fail {
		return errFull
	}
	return s.packStore.PutPack(ctx, id, data)
}

// Whenever the store fails, so does the backup.
func TestS2_ErrorsOfTheStoreAreErrors(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `head -c 100M /dev/urandom >a; echo b >b`)
	for n := 0; ; n++ {
		s := &failingStore{newPackStore(), n}
		r, err := archive.Create(t.Context(), dir, archive.CreateOptions{Sink: s})
		if err == nil {
			g.Expect(n).To(Equal(4), "three packs are full, one is not")
			g.Expect(r.NewPacks).To(HaveLen(n))
			return
		}
		g.Expect(r).To(BeNil())
		g.Expect(err).To(MatchError(errFull))
		g.Expect(err.Error()).To(HavePrefix("create a backup of " + dir + ": store pack "))
	}
}

func TestCreateStopsWithItsContext(t *testing.T) {
	for _, calls := range []int{0, 1, 2, 3} {
		t.Run(strconv.Itoa(calls), func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			sh(t, dir, `head -c 100M /dev/urandom >a; seq 1000 | xargs touch`)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := 0
			open := openDescriptors(t)
			_, err := archive.Create(ctx, dir, archive.CreateOptions{Sink: newPackStore(), Progress: func(int64, int64) {
				if n == calls {
					cancel()
				}
				n++
			}})
			g.Expect(err).To(MatchError(context.Canceled))
			g.Expect(n).To(BeNumerically("<", calls+4))
			g.Eventually(func() int { return openDescriptors(t) }, "60s").Should(Equal(open), "the kernel may still be writing out")
		})
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return len(entries)
}

func TestCreateOfNothing(t *testing.T) {
	g := NewWithT(t)
	_, err := archive.Create(t.Context(), t.TempDir()+"/none", archive.CreateOptions{Sink: newPackStore()})
	g.Expect(err).To(MatchError(os.ErrNotExist))
	link := filepath.Join(t.TempDir(), "link")
	g.Expect(os.Symlink("/etc", link)).To(Succeed())
	_, err = archive.Digest(t.Context(), link, nil)
	g.Expect(err).To(MatchError(ContainSubstring("not a directory")))
}
