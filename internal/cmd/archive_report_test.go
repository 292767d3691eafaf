package cmd

import (
	"bytes"
	"encoding/json"
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
