package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

func rootEntry() tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755} }

func dirEntry(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
}

func fileEntry(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 4}
}

func symlinkEntry(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func linkEntry(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

func deviceEntry(name string, major, minor int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeChar, Name: name, Devmajor: major, Devminor: minor}
}

func recordEntry(key, value string) tar.Header {
	h := fileEntry("a")
	h.PAXRecords = map[string]string{key: value}
	return h
}

// tarOf makes a tar of the headers; files contain "evil".
func tarOf(tb testing.TB, headers ...tar.Header) []byte {
	tb.Helper()
	g := NewWithT(tb)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Format = tar.FormatPAX
		g.Expect(w.WriteHeader(&h)).To(Succeed())
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte("evil"))
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	g.Expect(w.Close()).To(Succeed())
	return b.Bytes()
}

// GNU tar is an independent writer of what Import reads.
func TestImportReadsTar(t *testing.T) {
	for _, how := range []string{"gnu", "pax", "pax --sparse", "gnu --sparse", "pax --xattrs", "v7", "ustar"} {
		t.Run(how, func(t *testing.T) {
			g := NewWithT(t)
			dir, to := t.TempDir(), t.TempDir()
			sh(t, dir, `mkdir -p d/e; echo x >d/e/f; ln d/e/f h; ln -s d s; mkfifo p; truncate -s 1M sp; echo y >>sp; chmod 4711 h; chown 3:4 d
				touch "$(printf '%090d' 1)"; find . -exec touch -h -d @100 {} +`)
			if strings.Contains(how, "xattrs") {
				sh(t, dir, `setfattr -n user.a -v 1 d; setfattr -n user.b -v 2 sp; setfacl -m u:5:r sp`)
			}
			if how == "v7" {
				sh(t, dir, `rm p; touch -d @100 .`)
			}
			file := filepath.Join(t.TempDir(), "x.tar")
			sh(t, dir, "tar --format="+how+" -cf "+file+" .")
			in, err := os.Open(file)
			g.Expect(err).NotTo(HaveOccurred())
			defer func() { _ = in.Close() }()
			report, err := archive.Import(t.Context(), in, to)
			g.Expect(err).NotTo(HaveOccurred())
			digest, err := archive.Digest(t.Context(), to, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(report).To(Equal(digest))
			expectEqualTrees(t, independentWalk(t, dir), independentWalk(t, to))
		})
	}
}

// hostileTars must be refused, by what the error says.
var hostileTars = map[string]struct {
	headers []tar.Header
	err     string
}{
	"dot dot":                  {[]tar.Header{fileEntry("../evil")}, "is not allowed in an archive"},
	"dot dot inside":           {[]tar.Header{dirEntry("a/"), fileEntry("a/../../evil")}, "is not allowed in an archive"},
	"dot dot at the end":       {[]tar.Header{dirEntry("a/..")}, "is not allowed in an archive"},
	"absolute":                 {[]tar.Header{fileEntry("/evil")}, "is not allowed in an archive"},
	"dot slash absolute":       {[]tar.Header{fileEntry(".//evil")}, "is not allowed in an archive"},
	"empty part":               {[]tar.Header{dirEntry("a/"), fileEntry("a//evil")}, "is not allowed in an archive"},
	"long name":                {[]tar.Header{fileEntry(strings.Repeat("x", 256))}, "is not allowed in an archive"},
	"root is a link":           {[]tar.Header{symlinkEntry("./", "OUTSIDE")}, "the root must be a directory"},
	"symbolic link as parent":  {[]tar.Header{symlinkEntry("a", "OUTSIDE"), fileEntry("a/evil")}, "not a directory"},
	"relative link as parent":  {[]tar.Header{symlinkEntry("a", "../outside"), fileEntry("a/evil")}, "not a directory"},
	"link inside as parent":    {[]tar.Header{dirEntry("d/"), symlinkEntry("a", "d"), fileEntry("a/evil")}, "not a directory"},
	"link deep as parent":      {[]tar.Header{dirEntry("d/"), symlinkEntry("d/a", "OUTSIDE"), fileEntry("d/a/sub/evil")}, "too many levels of symbolic links"},
	"directory in a link":      {[]tar.Header{symlinkEntry("a", "OUTSIDE"), dirEntry("a/evil/")}, "not a directory"},
	"file as parent":           {[]tar.Header{fileEntry("a"), fileEntry("a/evil")}, "not a directory"},
	"link to a link's content": {[]tar.Header{symlinkEntry("a", "OUTSIDE"), linkEntry("b", "a/canary")}, "not a directory"},
	"link to dot dot":          {[]tar.Header{linkEntry("b", "../outside/canary")}, "is not allowed in an archive"},
	"link to absolute":         {[]tar.Header{linkEntry("b", "/etc/passwd")}, "is not allowed in an archive"},
	"link to a directory":      {[]tar.Header{dirEntry("d/"), linkEntry("b", "d")}, "link target d is a directory"},
	"link to the root":         {[]tar.Header{linkEntry("b", ".")}, "is a directory"},
	"link to nothing":          {[]tar.Header{linkEntry("b", "none")}, "no such file or directory"},
	"link to itself":           {[]tar.Header{fileEntry("b"), linkEntry("b", "b")}, "links a name to itself"},
	"file over a directory":    {[]tar.Header{dirEntry("d/"), fileEntry("d")}, "has a directory under the same name"},
	"link over a directory":    {[]tar.Header{dirEntry("d/"), symlinkEntry("d", "OUTSIDE"), fileEntry("d/evil")}, "has a directory under the same name"},
	"owner out of range":       {[]tar.Header{{Typeflag: tar.TypeReg, Name: "a", Uid: 1<<32 - 1, Size: 4}}, "out of range"},
	"negative owner":           {[]tar.Header{{Typeflag: tar.TypeReg, Name: "a", Gid: -2, Size: 4}}, "out of range"},
	"long target":              {[]tar.Header{symlinkEntry("a", strings.Repeat("t", 4096))}, "impossible target"},
	"bad attribute encoding":   {[]tar.Header{recordEntry("WSDAEMON.xattr.%%", "=")}, "decode name of attribute"},
	"bad attribute value":      {[]tar.Header{recordEntry("WSDAEMON.xattr.dXNlci5h", "=%")}, "decode attribute"},
	"bad time":                 {[]tar.Header{recordEntry("WSDAEMON.mtime", "x.y")}, "is no time"},
	"attribute too large":      {[]tar.Header{recordEntry("SCHILY.xattr.user.a", strings.Repeat("x", 100_000))}, "set attribute"},
}

func aim(headers []tar.Header, outside string) []tar.Header {
	headers = slices.Clone(headers)
	for i := range headers {
		headers[i].Linkname = strings.Replace(headers[i].Linkname, "OUTSIDE", outside, 1)
	}
	return headers
}

func TestS6_HostileTarsAreRefused(t *testing.T) {
	for name, tt := range hostileTars {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, outside := place(t)
			before := independentWalk(t, outside)
			_, err := archive.Import(t.Context(), bytes.NewReader(tarOf(t, aim(tt.headers, outside)...)), dir)
			g.Expect(err).To(MatchError(ContainSubstring(tt.err)))
			expectEqualTrees(t, before, independentWalk(t, outside))
			g.Expect(os.ReadDir(filepath.Dir(dir))).To(HaveLen(2))
		})
	}
}

func TestS6_ImportSkipsDevices(t *testing.T) {
	g := NewWithT(t)
	dir, _ := place(t)
	plain := tarOf(t, deviceEntry("null", 1, 3), tar.Header{Typeflag: tar.TypeBlock, Name: "sda"}, deviceEntry("whiteout", 0, 0),
		recordEntry("SCHILY.xattr.trusted.overlay.opaque", "y"), fileEntry("x/y/z"))
	report, err := archive.Import(t.Context(), bytes.NewReader(plain), dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Skipped).To(Equal([]string{"null", "sda"}))
	g.Expect(report.SkippedCount).To(BeEquivalentTo(2))
	g.Expect(counts(report)).To(Equal([5]int64{2, 3, 0, 1, 8}))
	found := independentWalk(t, dir)
	g.Expect(found).To(HaveLen(6))
	g.Expect(found["a"].Xattrs).To(BeEmpty())
}

// A symbolic link that was written is replaced by a later entry, not followed by it.
func TestS6_LaterEntriesReplaceEarlierOnes(t *testing.T) {
	g := NewWithT(t)
	dir, outside := place(t)
	headers := aim([]tar.Header{
		rootEntry(), symlinkEntry("a", "OUTSIDE/canary"), fileEntry("a"), symlinkEntry("b", "OUTSIDE"), dirEntry("b/"), fileEntry("b/canary"),
		fileEntry("c"), linkEntry("d", "c"), fileEntry("c"), dirEntry("e/"), fileEntry("e/f"), dirEntry("e/"),
		symlinkEntry("s", "OUTSIDE/canary"), linkEntry("s2", "s"),
	}, outside)
	report, err := archive.Import(t.Context(), bytes.NewReader(tarOf(t, headers...)), dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.ReadFile(filepath.Join(outside, "canary"))).To(Equal([]byte("alive\n")))
	g.Expect(counts(report)).To(Equal([5]int64{5, 3, 2, 0, 20}))
	g.Expect(sh(t, dir, `stat -c '%F %h %n' a b c d s2 | tr '\n' ';'`)).To(Equal(
		"regular file 1 a;directory 2 b;regular file 1 c;regular file 1 d;symbolic link 2 s2;"))
}

func TestTruncatedTarsAreNoticed(t *testing.T) {
	plain := tarOf(t, fileEntry("a"), fileEntry("b"))
	for _, size := range []int{0, 512, 1024, 1536, 2048, 2560} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			_, err := archive.Import(t.Context(), bytes.NewReader(plain[:size]), t.TempDir())
			NewWithT(t).Expect(err).To(MatchError(Or(ContainSubstring("something is missing"), ContainSubstring("unexpected EOF"))))
		})
	}
	_, err := archive.Import(t.Context(), bytes.NewReader(plain), t.TempDir())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

// A few kilobytes that unpack to a huge file end with the disk, not with the memory.
func TestS6_BombsEndWithTheDisk(t *testing.T) {
	g := NewWithT(t)
	dir := smallDisk(t, "size=4m")
	header := tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Size: 1 << 30, Format: tar.FormatPAX}
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := tw.WriteHeader(&header)
		for err == nil {
			_, err = tw.Write(bytes.Repeat([]byte("x"), 1<<20))
		}
		_ = w.CloseWithError(err)
	}()
	_, err := archive.Import(t.Context(), r, dir)
	_ = r.Close()
	g.Expect(err).To(MatchError(ContainSubstring("write bomb: no space left on device")))
}

// An impossible size is no reason to allocate it.
func TestS6_HugeSizesAreRefused(t *testing.T) {
	g := NewWithT(t)
	var b bytes.Buffer
	g.Expect(tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1 << 62, Format: tar.FormatPAX})).To(Succeed())
	_, err := archive.Import(t.Context(), &b, t.TempDir())
	g.Expect(err).To(MatchError(ContainSubstring("write a: read its content: unexpected EOF")))
}

func TestImportReportsErrorsOfItsReader(t *testing.T) {
	g := NewWithT(t)
	broken := errors.New("connection reset")
	plain := tarOf(t, fileEntry("a"), fileEntry("b"))
	_, err := archive.Import(t.Context(), io.MultiReader(bytes.NewReader(plain[:700]), &failing{broken}), t.TempDir())
	g.Expect(err).To(MatchError(broken))
	full := t.TempDir()
	sh(t, full, `echo >precious`)
	_, err = archive.Import(t.Context(), bytes.NewReader(plain), full)
	g.Expect(err).To(MatchError(ContainSubstring("the directory is not empty (precious is there)")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = archive.Import(ctx, bytes.NewReader(plain), t.TempDir())
	g.Expect(err).To(MatchError(context.Canceled))
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzImport checks that no tar, however it is made, changes anything outside or hangs.
func FuzzImport(f *testing.F) {
	for _, tt := range hostileTars {
		f.Add(tarOf(f, aim(tt.headers, "/nonexistent")...))
	}
	f.Add(tarOf(f, rootEntry(), dirEntry("d/"), fileEntry("d/f"), linkEntry("g", "d/f"), symlinkEntry("s", "d"),
		tar.Header{Typeflag: tar.TypeFifo, Name: "p", ModTime: time.Unix(-1, 5)}))
	for _, tt := range holeTars {
		f.Add(tt.tar(f))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g := NewWithT(t)
		base := t.TempDir()
		g.Expect(os.Mkdir(base+"/in", 0o700)).To(Succeed())
		_, _ = archive.Import(t.Context(), bytes.NewReader(data), base+"/in")
		g.Expect(os.ReadDir(base)).To(HaveLen(1))
	})
}
