package archive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// TestMain is also a program that makes a backup, or imports one, so that a test can do it as another user.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ARCHIVE_TEST_CREATE"); dir != "" {
		report, _, err := archive.Create(context.Background(), dir, newMemory(), nil)
		answer(report, err)
		return
	}
	if dir := os.Getenv("ARCHIVE_TEST_IMPORT"); dir != "" {
		answer(archive.Import(context.Background(), os.Stdin, dir))
		return
	}
	os.Exit(m.Run())
}

// reply is what the program prints.
type reply struct {
	Report archive.Report
	Error  string
}

func answer(report archive.Report, err error) {
	r := reply{Report: report}
	if err != nil {
		r.Error = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
}

// as runs the program as an ordinary user.
func as(t *testing.T, uid uint32, task, dir string, input []byte) reply {
	t.Helper()
	g := NewWithT(t)
	g.Expect(os.Chmod(filepath.Dir(dir), 0o755)).To(Succeed())
	exe, err := os.ReadFile("/proc/self/exe")
	g.Expect(err).NotTo(HaveOccurred())
	program := filepath.Join(t.TempDir(), "test")
	g.Expect(os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(program, exe, 0o755)).To(Succeed())
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{task + "=" + dir}
	cmd.Stdin = bytes.NewReader(input)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	g.Expect(err).NotTo(HaveOccurred())
	var r reply
	g.Expect(json.Unmarshal(out, &r)).To(Succeed())
	return r
}

func createAs(t *testing.T, uid uint32, dir string) archive.Report {
	t.Helper()
	r := as(t, uid, "ARCHIVE_TEST_CREATE", dir, nil)
	NewWithT(t).Expect(r.Error).To(BeEmpty())
	return r.Report
}

// Without the right to give files away, what belongs to others is an error, and what is one's own is not.
func TestRestoreAsOrdinaryUser(t *testing.T) {
	for owner, want := range map[int]string{65534: "", 65533: "set owner 65533:65534: operation not permitted"} {
		g := NewWithT(t)
		dir := t.TempDir()
		g.Expect(os.Chown(dir, 65534, 65534)).To(Succeed())
		file := fileEntry("f")
		file.Uid, file.Gid = owner, 65534
		r := as(t, 65534, "ARCHIVE_TEST_IMPORT", dir, pack(t, file))
		g.Expect(r.Error).To(HaveSuffix(want))
		g.Expect(r.Error == "").To(Equal(want == ""))
	}
}

func TestS3_UnreadableFilesAreNamed(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `echo a >a; echo s >secret; chmod 000 secret; ln secret twin; mkdir closed; echo x >closed/x; chmod 000 closed
		mkdir blind; echo y >blind/y; chmod 444 blind; mkdir open; echo z >open/z; echo >"$(printf 'raw\377')"; chmod 0 raw*`)
	report := createAs(t, 65534, dir)
	const denied = "permission denied"
	g.Expect(report.Unreadable).To(Equal([]archive.Problem{
		{Path: "blind", Error: denied}, {Path: "closed", Error: denied}, {Path: `"raw\xff"`, Error: denied},
		{Path: "secret", Error: denied}, {Path: "twin", Error: denied},
	}))
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(5))
	g.Expect(report.Files).To(BeEquivalentTo(2), "the rest goes on")
	g.Expect(report.Dirs).To(BeEquivalentTo(4))
}

func TestS3_OnlyAHundredAreNamedButAllAreCounted(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `touch $(seq 150); chmod 0 *`)
	report := createAs(t, 65534, dir)
	g.Expect(report.Unreadable).To(HaveLen(100))
	g.Expect(report.UnreadableCount).To(BeEquivalentTo(150))
}

func TestS3_SocketsAndDevicesAreReported(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `mknod null c 1 3; mknod disk b 7 0; mknod whiteout c 0 0; mkfifo pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'`)
	_, _, report := create(t, dir)
	g.Expect(report.Skipped).To(Equal([]string{"disk", "null", "sock"}))
	g.Expect(report.SkippedCount).To(BeEquivalentTo(3))
	g.Expect(report.Others).To(BeEquivalentTo(2))
	g.Expect(report.UnreadableCount).To(BeZero())
}

func TestS3_MountsAreReported(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `mkdir m; touch f; mount -t tmpfs none m; echo x >m/x; touch outside; mount --bind outside f`)
	t.Cleanup(func() {
		g.Expect(unix.Unmount(dir+"/m", 0)).To(Succeed())
		g.Expect(unix.Unmount(dir+"/f", 0)).To(Succeed())
	})
	report, err := archive.Digest(t.Context(), dir)
	g.Expect(err).NotTo(HaveOccurred())
	const mounted = "another filesystem is mounted here"
	g.Expect(report.Unreadable).To(Equal([]archive.Problem{{Path: "f", Error: mounted}, {Path: "m", Error: mounted}}))
}

func TestS2_ErrorsOfTheStoreAreErrors(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `head -c 70M /dev/urandom >a; echo b >b`)
	m := newMemory()
	m.fail = errors.New("no space left on device")
	_, packs, err := archive.Create(t.Context(), dir, m, nil)
	g.Expect(err).To(MatchError(m.fail))
	g.Expect(packs).To(BeNil())
}

func TestCreateStopsWithItsContext(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `touch $(seq 1000)`)
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := archive.Create(ctx, dir, newMemory(), func(files, _ int64) {
		if files == 500 {
			cancel()
		}
	})
	g.Expect(err).To(MatchError(context.Canceled))
}

func TestCreateOfNothing(t *testing.T) {
	g := NewWithT(t)
	_, _, err := archive.Create(t.Context(), t.TempDir()+"/none", newMemory(), nil)
	g.Expect(err).To(MatchError(os.ErrNotExist))
	link := filepath.Join(t.TempDir(), "link")
	g.Expect(os.Symlink("/etc", link)).To(Succeed())
	_, _, err = archive.Create(t.Context(), link, newMemory(), nil)
	g.Expect(err).To(MatchError(ContainSubstring("not a directory")))
}
