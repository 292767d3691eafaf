package archive_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// ofRoot is a backup of files that belong to root, as an ordinary user may get it.
func ofRoot(tb testing.TB) *builder {
	tb.Helper()
	caps := format.Meta{Mode: 0o755, Extra: &format.Extra{Xattrs: []format.Xattr{
		{Name: "security.capability", Value: []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
		{Name: "user.kept", Value: []byte("v")},
	}}}
	b := build(tb).dir("", format.Meta{Mode: 0o755}).file("a", "hello").symlink("l", "a").linked("a", "more").
		node(format.Entry{Name: "none", Meta: caps}).node(format.Entry{Name: "pipe", Kind: format.KindFIFO}).
		entry(format.Entry{Name: "suid", Meta: format.Meta{Mode: 0o6755}}).node(format.Entry{Name: "white", Kind: format.KindWhiteout})
	b.contents["suid"] = []byte("x")
	b.dir("closed", format.Meta{Mode: 0o100}).file("in", "x").dir("closed/inner", format.Meta{Mode: 0o001}).file("x", text(5<<20)).entries()[0].Mode = 0o400
	return b.dir("ro", format.Meta{Mode: 0o555}).file("f", "")
}

// TestRestoreHelper is the program of [TestRestoreAsAnOrdinaryUser]; on its own it does nothing.
func TestRestoreHelper(t *testing.T) {
	dir := os.Getenv("ENGINE_TEST_RESTORE")
	if dir == "" {
		return
	}
	g := NewWithT(t)
	b := ofRoot(t)
	root := b.root(1000)
	_, _, err := archive.Restore(t.Context(), root, dir+"/owner", archive.RestoreOptions{Source: b.store})
	g.Expect(err).To(MatchError(syscall.EPERM))
	report, index, err := archive.Restore(t.Context(), root, dir+"/skip", archive.RestoreOptions{Source: b.store, SkipOwner: true, HashContent: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(index).To(BeNil(), "the owners are not those of the backup")
	g.Expect(counts(report)).To(Equal([5]int64{7, 4, 1, 2, 5 + 1 + 1 + 5<<20}))

	_, err = archive.Import(t.Context(), ofOthers(t), dir+"/tar")
	g.Expect(err).NotTo(HaveOccurred())
}

// ofOthers is a tar of files that belong to somebody else.
func ofOthers(tb testing.TB) io.Reader {
	tb.Helper()
	g := NewWithT(tb)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "ro/", Mode: 0o555, Uid: 1, Gid: 2},
		{Typeflag: tar.TypeReg, Name: "ro/suid", Mode: 0o4755, Uid: 1, Gid: 2},
		{Typeflag: tar.TypeSymlink, Name: "ro/link", Linkname: "suid", Uid: 1, Gid: 2},
	} {
		g.Expect(w.WriteHeader(&h)).To(Succeed())
	}
	g.Expect(w.Close()).To(Succeed())
	return &out
}

func TestRestoreAsAnOrdinaryUser(t *testing.T) {
	g := NewWithT(t)
	base := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(base), 0o755)).To(Succeed())
	exe, err := os.ReadFile("/proc/self/exe")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(base+"/test", exe, 0o755)).To(Succeed())
	sh(t, base, `chmod 755 .; mkdir -p to/owner to/skip to/tar tmp; chown -R 12345:12345 to tmp`)
	cmd := exec.CommandContext(t.Context(), base+"/test", "-test.run=^TestRestoreHelper$")
	cmd.Dir, cmd.Env = base, []string{"ENGINE_TEST_RESTORE=" + base + "/to", "TMPDIR=" + base + "/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	out, err := cmd.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), "%s", out)

	found := independentWalk(t, base+"/to/skip")
	for path, s := range found {
		g.Expect(s.Owner).To(Equal("12345:12345"), path)
	}
	for path, mode := range map[string]string{"suid": "755", "none": "755", "closed": "100", "closed/inner": "1", "ro": "555", "a": "644"} {
		g.Expect(found[path].Mode).To(Equal(mode), path)
	}
	g.Expect(found["none"].Xattrs).To(Equal([]string{"user.kept=76"}))
	g.Expect(found["a"].Group).To(Equal("a (2)"))
	g.Expect(found["closed/inner/x"].Size).To(BeEquivalentTo(5 << 20))

	imported := independentWalk(t, base+"/to/tar")
	for path, mode := range map[string]string{"ro": "555", "ro/suid": "755", "ro/link": "777"} {
		g.Expect(imported[path]).To(And(HaveField("Owner", "12345:12345"), HaveField("Mode", mode)), path)
	}
}
