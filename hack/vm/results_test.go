package vm

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// archive gives a tar archive as the guest sends it: pairs of a name and a content; a name that ends in a slash is a
// directory.
func archive(t *testing.T, namesAndContents ...string) []byte {
	t.Helper()
	g := NewWithT(t)
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for i := 0; i < len(namesAndContents); i += 2 {
		name, content := namesAndContents[i], namesAndContents[i+1]
		header := &tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			header.Typeflag = tar.TypeDir
		}
		g.Expect(w.WriteHeader(header)).To(Succeed())
		_, err := w.Write([]byte(content))
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(w.Close()).To(Succeed())
	return buffer.Bytes()
}

func TestReceive(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	stream := bytes.Join([][]byte{
		archive(t, "ready", ""),
		archive(t, "results/xfs/a/", "", "results/xfs/a/code", "2\n", "results/xfs/a/left", "mount /x\nfile y\n", "results/xfs/a/milliseconds", "1500\n"),
		archive(t, "results/b/code", "0\n", "results/b/left", "", "results/b/milliseconds", "7\n", "results/b/sub/file", strings.Repeat("x", 5000)),
		archive(t, "finished", ""),
	}, nil)
	var events []string
	g.Expect(receive(bytes.NewReader(stream), dir, func(name string) { events = append(events, name) })).To(Succeed())
	g.Expect(events).To(Equal([]string{"ready", "results/xfs/a", "results/b/code", "finished"}))

	g.Expect(readResult(dir, "xfs/a")).To(Equal(Result{
		Name: "xfs/a", Code: 2, Time: 1500 * time.Millisecond, Left: []string{"mount /x", "file y"},
		Dir: filepath.Join(dir, "results", "xfs", "a"),
	}))
	g.Expect(readResult(dir, "b")).To(Equal(Result{Name: "b", Time: 7 * time.Millisecond, Dir: filepath.Join(dir, "results", "b")}))
	g.Expect(os.ReadFile(filepath.Join(dir, "results", "b", "sub", "file"))).To(HaveLen(5000))
	_, err := readResult(dir, "c")
	g.Expect(err).To(MatchError(os.ErrNotExist))
}

// What came before the cut is kept, and a job whose files did not all come has not ended.
func TestReceiveIsCut(t *testing.T) {
	stream := append(archive(t, "results/a/code", "0\n", "results/a/left", "", "results/a/milliseconds", "7\n"),
		archive(t, "results/b/left", "", "results/b/code", "0\n")...)
	for _, c := range []struct {
		length int
		a      bool
		err    string
	}{
		{length: 0},
		{length: 512, err: "unexpected EOF"},
		{length: 5 * 512, a: true},
		{length: len(stream) - 1200, a: true},
	} {
		g := NewWithT(t)
		dir := t.TempDir()
		err := receive(bytes.NewReader(stream[:c.length]), dir, func(string) {})
		if c.err == "" {
			g.Expect(err).NotTo(HaveOccurred(), "%d", c.length)
		} else {
			g.Expect(err).To(MatchError(ContainSubstring(c.err)), "%d", c.length)
		}
		_, err = readResult(dir, "a")
		g.Expect(err == nil).To(Equal(c.a), "%d", c.length)
		_, err = readResult(dir, "b")
		g.Expect(err).To(MatchError(os.ErrNotExist), "%d", c.length)
	}
}

func TestReceiveStaysInItsDirectory(t *testing.T) {
	outside := t.TempDir()
	for _, name := range []string{"../x/y", "results/../../x/y", filepath.Join(outside, "y")} {
		dir := t.TempDir()
		err := receive(bytes.NewReader(archive(t, name, "bad")), dir, func(string) {})
		NewWithT(t).Expect(err).To(HaveOccurred(), name)
	}
	NewWithT(t).Expect(os.ReadDir(outside)).To(BeEmpty())
}

func TestReport(t *testing.T) {
	g := NewWithT(t)
	var out strings.Builder
	good := Result{Name: "xfs/a", Time: 1234 * time.Millisecond, Left: []string{"mount /x"}}
	g.Expect(report(&out, []Result{good})).To(Succeed())
	g.Expect(out.String()).To(Equal("\nok\txfs/a\t1.2 s\n\tleft behind: mount /x\n"))

	out.Reset()
	bad := Result{Name: "xfs/b", Code: 1, Time: 2 * time.Second}
	g.Expect(report(&out, []Result{good, bad})).To(MatchError("tests failed in the VM: xfs/b"))
	g.Expect(out.String()).To(HaveSuffix("FAIL\txfs/b\t2.0 s\texit code 1\n"))
}

func TestMergeCoverage(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	var results []Result
	for name, profile := range map[string]string{"a": "mode: atomic\np/f.go:1.1,2.2 1 1\n", "b": ""} {
		result := Result{Name: name, Dir: filepath.Join(dir, name)}
		results = append(results, result)
		g.Expect(os.Mkdir(result.Dir, 0o755)).To(Succeed())
		if profile != "" {
			g.Expect(os.WriteFile(filepath.Join(result.Dir, "cover.out"), []byte(profile), 0o644)).To(Succeed())
		}
	}
	file := filepath.Join(dir, "cover.out")
	g.Expect(mergeCoverage(results, file)).To(Succeed())
	g.Expect(os.ReadFile(file)).To(BeEquivalentTo("mode: atomic\np/f.go:1.1,2.2 1 1\n"))
}
