package cmd

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// A machine is told what was verified, and at which cost.
func TestArchiveVerifyPrintsOneObject(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	got := report(t, "archive", "verify", at, inDomain, ofWeb, "--read-data")
	g.Expect(got).To(And(HaveField("Backup", "1.1"), HaveField("Files", int64(2)), HaveField("Directories", int64(2)), HaveField("Bytes", int64(8013))))
	g.Expect(got.Requests.Get).To(BeNumerically(">", 0))
	g.Expect(got.Requests.Put).To(BeZero())
}

// What a file system cannot hold is told to people and to machines, and makes nothing incomplete.
func TestArchiveReportNamesWhatIsAltered(t *testing.T) {
	g := NewWithT(t)
	s := new(place).restored("1.1", archive.Report{
		Files: 2, Dirs: 1, Bytes: 12, Altered: []archive.Problem{{Path: "f", Error: "the filesystem cannot hold its time"}}, AlteredCount: 3,
	}, time.Now())
	s.Seconds = 0
	var out, errOut bytes.Buffer
	g.Expect(s.print(&out, &errOut, false, "restored")).To(Succeed())
	g.Expect(out.String()).To(Equal("restored backup 1.1: 2 files, 1 directories, 12 bytes, 0 read, 0 stored, in 0.0 s\n"))
	g.Expect(errOut.String()).To(Equal("not as it was: f: the filesystem cannot hold its time\nnot as it was: 2 more\n"))
	out.Reset()
	g.Expect(s.print(&out, &errOut, true, "restored")).To(Succeed())
	var got map[string]any
	g.Expect(json.Unmarshal(out.Bytes(), &got)).To(Succeed())
	g.Expect(got).To(And(HaveKeyWithValue("altered", []any{"f: the filesystem cannot hold its time"}), HaveKeyWithValue("alteredCount", 3.0), Not(HaveKey("incomplete"))))
}

// Machines get an object for each line, names of any bytes among them.
func TestArchiveRowsForMachines(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	then := time.Date(1969, 7, 20, 20, 17, 40, 5, time.UTC)
	for _, name := range []string{"README", "src/main.go"} {
		g.Expect(os.Chtimes(filepath.Join(dir, name), then, then)).To(Succeed())
	}
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	g.Expect(os.Symlink("main.go", filepath.Join(dir, "src", "\xffname"))).To(Succeed())
	g.Expect(os.Chmod(filepath.Join(dir, "README"), 0o755)).To(Succeed())
	must(t, "archive", "create", at, inDomain, ofWeb, dir)

	rows := objects(t, must(t, "archive", "ls", at, inDomain, ofWeb, "--recursive", "--json"))
	g.Expect(rows).To(HaveLen(5))
	g.Expect(rows[0]).To(And(HaveKeyWithValue("path", ""), HaveKeyWithValue("type", "directory")))
	uid := float64(os.Geteuid())
	g.Expect(rows[1]).To(Equal(map[string]any{
		"path": "README", "type": "file", "mode": "0755", "uid": uid, "gid": uid, "size": 8000.0, "time": "1969-07-20T20:17:40.000000005Z",
		"sha256": fmt.Sprintf("%x", sha256.Sum256(bytes.Repeat([]byte("read me\n"), 1000))),
	}))
	g.Expect(rows[4]).To(And(HaveKeyWithValue("path", "src/\uFFFDname"), HaveKeyWithValue("pathBase64", "c3JjL/9uYW1l"),
		HaveKeyWithValue("type", "symlink"), HaveKeyWithValue("target", "main.go")))

	g.Expect(objects(t, must(t, "archive", "diff", at, inDomain, ofWeb, "--json", "1.1"))).To(ConsistOf(
		map[string]any{"path": "README", "change": "changed", "what": []any{"mode"}},
		HaveKeyWithValue("path", "src"),
		And(HaveKeyWithValue("pathBase64", "c3JjL/9uYW1l"), HaveKeyWithValue("change", "added")),
	))

	file := filepath.Join(t.TempDir(), "x.tar")
	g.Expect(report(t, "archive", "export", at, inDomain, ofWeb, file)).To(And(HaveField("Backup", "1.2"), HaveField("Bytes", int64(8013))))
	g.Expect(file).To(BeARegularFile())
	g.Expect(refused(t, "archive", "export", at, inDomain, ofWeb, "--json")).To(ContainSubstring("--json needs a FILE"))
}

// objects decodes an object on each line.
func objects(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var object map[string]any
		NewWithT(t).Expect(json.Unmarshal([]byte(line), &object)).To(Succeed())
		all = append(all, object)
	}
	return all
}
