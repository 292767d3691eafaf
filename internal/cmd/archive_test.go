package cmd

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

const (
	inDomain = "--domain=team"
	ofWeb    = "--workspace=web"
)

// newStoreURL makes a directory that `archive init` has made a store.
func newStoreURL(t *testing.T) string {
	t.Helper()
	url := "--store=file://" + t.TempDir()
	must(t, "archive", "init", url)
	return url
}

// tarball holds a directory, a file, a link and a hard link.
func tarball(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "src/", Mode: 0o750, Uid: 33333, Gid: 33333},
		{Typeflag: tar.TypeReg, Name: "src/main.go", Mode: 0o640, Uid: 1000, Gid: 1001, Size: 12},
		{Typeflag: tar.TypeSymlink, Name: "src/link", Linkname: "main.go", Mode: 0o777, Uid: 33333, Gid: 33333},
		{Typeflag: tar.TypeLink, Name: "src/same", Linkname: "src/main.go", Mode: 0o640, Uid: 1000, Gid: 1001},
	} {
		h.ModTime = time.Unix(1700000000, 123456789)
		h.Format = tar.FormatPAX
		g.Expect(w.WriteHeader(&h)).To(Succeed())
		if h.Size > 0 {
			_, err := w.Write([]byte("package main"))
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	g.Expect(w.Close()).To(Succeed())
	return out.String()
}

// contents lists a tar: type, mode, owner, time, name, and what it holds.
func contents(t *testing.T, data string) map[string]string {
	t.Helper()
	g := NewWithT(t)
	got := map[string]string{}
	for r := tar.NewReader(strings.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		g.Expect(err).NotTo(HaveOccurred())
		body, err := io.ReadAll(r)
		g.Expect(err).NotTo(HaveOccurred())
		name := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
		if name == "" || name == "." {
			continue // the root's attributes are not in the tarball that was imported
		}
		got[name] = strings.Join([]string{string(h.Typeflag), os.FileMode(h.Mode).String(), strconv.Itoa(h.Uid), strconv.Itoa(h.Gid),
			h.ModTime.UTC().Format(time.RFC3339Nano), h.Linkname, string(body)}, " ")
	}
}

func TestArchiveInitLeavesAStoreAsItIs(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	first := must(t, "archive", "init", "--store=file://"+dir)
	g.Expect(first).To(MatchRegexp(`^file://` + dir + ` is store \S{16,}\n$`))
	g.Expect(must(t, "archive", "init", "--store=file://"+dir)).To(Equal(first))
}

func TestArchiveImportsWhatItExports(t *testing.T) {
	g := NewWithT(t)
	at := newStoreURL(t)
	original := tarball(t)
	out, err := call(t.Context(), original, "archive", "import", at, inDomain, ofWeb, "--cluster=some-uid")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).To(MatchRegexp(`^imported backup 1\.1: 2 files, 2 directories, 12 bytes, 12 read, \d+ stored, in \d\.\d s\n$`))

	exported := must(t, "archive", "export", at, inDomain, ofWeb)
	g.Expect(contents(t, exported)).To(Equal(contents(t, original)))

	file := filepath.Join(t.TempDir(), "web.tar")
	g.Expect(must(t, "archive", "export", at, inDomain, ofWeb, "--backup=1.1", file)).To(BeEmpty())
	data, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(contents(t, string(data))).To(Equal(contents(t, original)))
	g.Expect(refused(t, "archive", "export", at, inDomain, ofWeb, file)).To(ContainSubstring("file exists"))
	again, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again).To(Equal(data), "an existing file is never overwritten")

	g.Expect(must(t, "archive", "import", at, inDomain, ofWeb, file)).To(HavePrefix("imported backup 1.1: "), "it is what is there")
}

func TestArchiveListsNewestFirst(t *testing.T) {
	g := NewWithT(t)
	at := newStoreURL(t)
	for range 2 {
		_, err := call(t.Context(), tarball(t), "archive", "import", at, inDomain, ofWeb, "--cluster=some-uid")
		g.Expect(err).NotTo(HaveOccurred())
	}
	lines := strings.Split(strings.TrimSpace(must(t, "archive", "list", at, inDomain, ofWeb)), "\n")
	g.Expect(lines).To(HaveLen(3))
	g.Expect(strings.Fields(lines[0])).To(Equal([]string{"NAME", "TIME", "FILES", "BYTES", "STORED", "NODE", "COMPLETE"}))
	g.Expect(lines[1]).To(MatchRegexp(`^1\.2 .* true$`))
	g.Expect(lines[2]).To(MatchRegexp(`^1\.1 .* true$`))
	g.Expect(refused(t, "archive", "list", at, inDomain, "--workspace=other")).To(ContainSubstring("no workspace other"))
}

func TestArchiveRefusals(t *testing.T) {
	at, empty := newStoreURL(t), t.TempDir()
	_, err := call(t.Context(), tarball(t), "archive", "import", at, inDomain, ofWeb, "--cluster=some-uid")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	dir := strings.TrimPrefix(at, "--store=")
	tests := map[string]struct {
		args []string
		want string
	}{
		"no store":           {[]string{"list", inDomain, ofWeb}, "--store is missing, for example --store file:///mnt/backups"},
		"other scheme":       {[]string{"list", "--store=ftp://x/y", inDomain, ofWeb}, "ftp"},
		"no directory":       {[]string{"list", "--store=file:///nowhere/at/all", inDomain, ofWeb}, "/nowhere/at/all"},
		"not a store":        {[]string{"list", "--store=file://" + empty, inDomain, ofWeb}, "archive init"},
		"no domain":          {[]string{"list", at, ofWeb}, "--domain and --workspace are needed: the namespace and the name of the workspace"},
		"no workspace":       {[]string{"export", at, inDomain}, "--domain and --workspace are needed"},
		"unknown domain":     {[]string{"list", at, "--domain=other", ofWeb}, "there is no domain other in " + dir + ": check the name"},
		"domain is a path":   {[]string{"list", at, "--domain=../..", ofWeb}, ".."},
		"workspace a path":   {[]string{"list", at, inDomain, "--workspace=../../x"}, ".."},
		"no backup":          {[]string{"export", at, inDomain, "--workspace=none"}, "workspace team/none has no complete backup in this store: check the names, or make one"},
		"bad backup":         {[]string{"export", at, inDomain, ofWeb, "--backup=newest"}, `parse backup name "newest": it has the form <claim>.<number>, like 7.2`},
		"backup not there":   {[]string{"export", at, inDomain, ofWeb, "--backup=9.9"}, "workspace team/web has no backup 9.9: `ws-daemon archive list` names those that it has"},
		"snapshot not there": {[]string{"export", at, inDomain, ofWeb, "--snapshot=s.1"}, "there is no snapshot s.1 in domain team"},
		"import of nothing":  {[]string{"import", at, inDomain, ofWeb, "/nowhere.tar"}, "open /nowhere.tar: no such file or directory"},
		"import of no tar":   {[]string{"import", at, inDomain, ofWeb, "/proc/self/cmdline"}, "read tar: unexpected EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(refused(t, append([]string{"archive"}, tt.args...)...)).To(ContainSubstring(tt.want))
		})
	}
	lines := strings.Split(strings.TrimSpace(must(t, "archive", "list", at, inDomain, ofWeb)), "\n")
	NewWithT(t).Expect(lines).To(HaveLen(2), "nothing was stored or lost")
}

// A half-written tar must not look like a backup, nor stand in the way of the next attempt.
func TestArchiveExportLeavesNoHalfWrittenFile(t *testing.T) {
	g := NewWithT(t)
	at := newStoreURL(t)
	_, err := call(t.Context(), tarball(t), "archive", "import", at, inDomain, ofWeb, "--cluster=some-uid")
	g.Expect(err).NotTo(HaveOccurred())
	packs, err := filepath.Glob(strings.TrimPrefix(at, "--store=file://") + "/d/team/p/*/*")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(packs).NotTo(BeEmpty())
	for _, pack := range packs {
		g.Expect(os.Remove(pack)).To(Succeed())
	}
	file := filepath.Join(t.TempDir(), "web.tar")
	g.Expect(refused(t, "archive", "export", at, inDomain, ofWeb, file)).To(ContainSubstring("not found"))
	g.Expect(file).NotTo(BeAnExistingFile())
}
