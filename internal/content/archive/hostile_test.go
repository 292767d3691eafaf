package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

func rootEntry() tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755} }

func dirEntry(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
}

func fileEntry(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 4}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

func device(name string, major, minor int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeChar, Name: name, Devmajor: major, Devminor: minor}
}

// pack makes a tar of the headers; files contain "evil".
func pack(tb testing.TB, headers ...tar.Header) []byte {
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

// compress makes an archive of a tar.
func compress(tb testing.TB, plain []byte) (*memory, []archive.Pack) {
	tb.Helper()
	g := NewWithT(tb)
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = w.Write(plain)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.Close()).To(Succeed())
	m := newMemory()
	p, err := m.PutPack(tb.Context(), b.Bytes())
	g.Expect(err).NotTo(HaveOccurred())
	return m, []archive.Pack{p}
}

// hostile are archives that must be refused, by the end of the error.
var hostile = map[string]struct {
	headers []tar.Header
	err     string
}{
	"dot dot":                     {[]tar.Header{fileEntry("../evil")}, "is not allowed in an archive"},
	"dot dot inside":              {[]tar.Header{dirEntry("a/"), fileEntry("a/../../evil")}, "is not allowed in an archive"},
	"dot dot at the end":          {[]tar.Header{dirEntry("a/..")}, "is not allowed in an archive"},
	"absolute":                    {[]tar.Header{fileEntry("/evil")}, "is not allowed in an archive"},
	"dot slash absolute":          {[]tar.Header{fileEntry(".//evil")}, "is not allowed in an archive"},
	"empty part":                  {[]tar.Header{dirEntry("a/"), fileEntry("a//evil")}, "is not allowed in an archive"},
	"long name":                   {[]tar.Header{fileEntry(strings.Repeat("x", 256))}, "is not allowed in an archive"},
	"root is a link":              {[]tar.Header{symlink("./", "OUTSIDE")}, "the root must be a directory"},
	"symbolic link as parent":     {[]tar.Header{symlink("a", "OUTSIDE"), fileEntry("a/evil")}, "not a directory"},
	"relative link as parent":     {[]tar.Header{symlink("a", "../outside"), fileEntry("a/evil")}, "not a directory"},
	"link inside as parent":       {[]tar.Header{dirEntry("d/"), symlink("a", "d"), fileEntry("a/evil")}, "not a directory"},
	"link deep as parent":         {[]tar.Header{dirEntry("d/"), symlink("d/a", "OUTSIDE"), fileEntry("d/a/sub/evil")}, "too many levels of symbolic links"},
	"directory in a link":         {[]tar.Header{symlink("a", "OUTSIDE"), dirEntry("a/evil/")}, "not a directory"},
	"file as parent":              {[]tar.Header{fileEntry("a"), fileEntry("a/evil")}, "not a directory"},
	"link to a link's content":    {[]tar.Header{symlink("a", "OUTSIDE"), hardlink("b", "a/canary")}, "not a directory"},
	"link to dot dot":             {[]tar.Header{hardlink("b", "../outside/canary")}, "is not allowed in an archive"},
	"link to absolute":            {[]tar.Header{hardlink("b", "/etc/passwd")}, "is not allowed in an archive"},
	"link to a directory":         {[]tar.Header{dirEntry("d/"), hardlink("b", "d")}, "link target d is a directory"},
	"link to the root":            {[]tar.Header{hardlink("b", ".")}, "is a directory"},
	"link to nothing":             {[]tar.Header{hardlink("b", "none")}, "no such file or directory"},
	"link to itself":              {[]tar.Header{fileEntry("b"), hardlink("b", "b")}, "links a name to itself"},
	"file over a directory":       {[]tar.Header{dirEntry("d/"), fileEntry("d")}, "has a directory under the same name"},
	"link over a directory":       {[]tar.Header{dirEntry("d/"), symlink("d", "OUTSIDE"), fileEntry("d/evil")}, "has a directory under the same name"},
	"owner out of range":          {[]tar.Header{{Typeflag: tar.TypeReg, Name: "a", Uid: 1<<32 - 1, Size: 4}}, "out of range"},
	"negative owner":              {[]tar.Header{{Typeflag: tar.TypeReg, Name: "a", Gid: -2, Size: 4}}, "out of range"},
	"long target":                 {[]tar.Header{symlink("a", strings.Repeat("t", 4096))}, "impossible target"},
	"bad attribute encoding":      {[]tar.Header{withRecord("WSDAEMON.xattr.%%", "=")}, "decode name of attribute"},
	"bad attribute value":         {[]tar.Header{withRecord("WSDAEMON.xattr.dXNlci5h", "=%")}, "decode attribute"},
	"bad time":                    {[]tar.Header{withRecord("WSDAEMON.mtime", "x.y")}, "is no time"},
	"attribute too large for ext": {[]tar.Header{withRecord("SCHILY.xattr.user.a", strings.Repeat("x", 100_000))}, "set attribute"},
}

func withRecord(key, value string) tar.Header {
	h := fileEntry("a")
	h.PAXRecords = map[string]string{key: value}
	return h
}

// refused are errors for Restore only: Create never writes them, but other programs do.
var refused = map[string]struct {
	headers []tar.Header
	err     string
}{
	"device":              {[]tar.Header{rootEntry(), device("sda", 8, 0)}, "is a device"},
	"block device":        {[]tar.Header{rootEntry(), {Typeflag: tar.TypeBlock, Name: "sda"}}, "is a device"},
	"trusted attribute":   {[]tar.Header{withRecord("SCHILY.xattr.trusted.overlay.opaque", "y")}, "is not allowed in an archive"},
	"security attribute":  {[]tar.Header{withRecord("SCHILY.xattr.security.selinux", "y")}, "is not allowed in an archive"},
	"disguised attribute": {[]tar.Header{withRecord("WSDAEMON.xattr.dHJ1c3RlZC5h", "=")}, "is not allowed in an archive"},
	"missing directory":   {[]tar.Header{rootEntry(), fileEntry("a/b")}, "no such file or directory"},
	"missing root":        {[]tar.Header{fileEntry("a")}, "the entry of the root directory is missing"},
}

// place returns an empty directory with a canary beside it.
func place(t *testing.T) (dir, outside string) {
	t.Helper()
	base := t.TempDir()
	dir, outside = filepath.Join(base, "in"), filepath.Join(base, "outside")
	NewWithT(t).Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	write(t, outside, "canary", "alive")
	return dir, outside
}

func aim(headers []tar.Header, outside string) []tar.Header {
	headers = slices.Clone(headers)
	for i := range headers {
		headers[i].Linkname = strings.Replace(headers[i].Linkname, "OUTSIDE", outside, 1)
	}
	return headers
}

func TestS6_HostileArchivesAreRefused(t *testing.T) {
	all := maps.Clone(hostile)
	maps.Copy(all, refused)
	for name, tt := range all {
		for _, own := range []bool{true, false} {
			if _, only := refused[name]; only && !own {
				continue
			}
			t.Run(fmt.Sprintf("%s/own=%v", name, own), func(t *testing.T) {
				g := NewWithT(t)
				dir, outside := place(t)
				plain := pack(t, aim(tt.headers, outside)...)
				before := picture(t, outside)
				var err error
				if own {
					m, packs := compress(t, plain)
					_, err = archive.Restore(t.Context(), packs, m, dir, nil)
				} else {
					_, err = archive.Import(t.Context(), bytes.NewReader(plain), dir)
				}
				g.Expect(err).To(MatchError(ContainSubstring(tt.err)))
				g.Expect(picture(t, outside)).To(Equal(before))
				g.Expect(os.ReadDir(filepath.Dir(dir))).To(HaveLen(2))
			})
		}
	}
}

func TestS6_ImportSkipsDevices(t *testing.T) {
	g := NewWithT(t)
	dir, _ := place(t)
	plain := pack(t, device("null", 1, 3), tar.Header{Typeflag: tar.TypeBlock, Name: "sda"}, device("whiteout", 0, 0),
		withRecord("SCHILY.xattr.trusted.overlay.opaque", "y"), fileEntry("x/y/z"))
	report, err := archive.Import(t.Context(), bytes.NewReader(plain), dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Skipped).To(Equal([]string{"null", "sda"}))
	g.Expect(report.SkippedCount).To(BeEquivalentTo(2))
	g.Expect(counts(report)).To(Equal([5]int64{2, 3, 0, 1, 8}))
	g.Expect(sh(t, dir, `find . | sort | tr '\n' ' '; getfattr -d -m - a`)).To(Equal(". ./a ./whiteout ./x ./x/y ./x/y/z "))
}

// A symbolic link that was written is replaced by a later entry, not followed by it.
func TestS6_LaterEntriesReplaceEarlierOnes(t *testing.T) {
	g := NewWithT(t)
	dir, outside := place(t)
	headers := aim([]tar.Header{
		rootEntry(), symlink("a", "OUTSIDE/canary"), fileEntry("a"), symlink("b", "OUTSIDE"), dirEntry("b/"), fileEntry("b/canary"),
		fileEntry("c"), hardlink("d", "c"), fileEntry("c"), dirEntry("e/"), fileEntry("e/f"), dirEntry("e/"),
		symlink("s", "OUTSIDE/canary"), hardlink("s2", "s"),
	}, outside)
	m, packs := compress(t, pack(t, headers...))
	report, err := archive.Restore(t.Context(), packs, m, dir, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.ReadFile(filepath.Join(outside, "canary"))).To(Equal([]byte("alive")))
	read, err := archive.Digest(t.Context(), dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(counts(report)).To(Equal(counts(read)))
	g.Expect(counts(read)).To(Equal([5]int64{5, 3, 2, 0, 20}))
	g.Expect(sh(t, dir, `stat -c '%F %h %n' a b c d s2 | tr '\n' ';'`)).To(Equal(
		"regular file 1 a;directory 2 b;regular file 1 c;regular file 1 d;symbolic link 2 s2;"))
}

func TestRestoreNeedsAnEmptyDirectory(t *testing.T) {
	g := NewWithT(t)
	m, packs, _ := create(t, t.TempDir())
	dir := t.TempDir()
	write(t, dir, "precious", "x")
	_, err := archive.Restore(t.Context(), packs, m, dir, nil)
	g.Expect(err).To(MatchError(ContainSubstring(`the directory is not empty ("precious" is there)`)))
	_, err = archive.Restore(t.Context(), packs, m, dir+"/none", nil)
	g.Expect(err).To(MatchError(os.ErrNotExist))
}

// A directory may have inherited a default ACL, which must not spread to what is restored.
func TestRestoreIgnoresInheritance(t *testing.T) {
	g := NewWithT(t)
	from, parent := t.TempDir(), t.TempDir()
	sh(t, from, `mkdir d; touch f d/g; chmod 755 .`)
	sh(t, parent, `setfacl -d -m u:7:rwx .; chmod 2777 .; mkdir to; setfattr -n user.x -v y to`)
	m, packs, _ := create(t, from)
	_, err := archive.Restore(t.Context(), packs, m, parent+"/to", nil)
	g.Expect(err).NotTo(HaveOccurred())
	expectSame(t, picture(t, from), picture(t, parent+"/to"))
}

// Whatever is missing or damaged in the packs, there is an error, or the digest tells.
func TestDamagedPacksAreNoticed(t *testing.T) {
	dir := t.TempDir()
	sh(t, dir, `mkdir d; for i in $(seq 50); do echo $i >d/$i; done; head -c 100000 /dev/urandom >r`)
	m, packs, report := create(t, dir)
	whole := m.packs[packs[0].ID]
	damage := map[string][]byte{"empty": {}, "no end": whole[:len(whole)-1], "no beginning": whole[1:], "twice": append(slices.Clone(whole), whole...)}
	for i := range 60 {
		at := i * len(whole) / 60
		flipped := slices.Clone(whole)
		flipped[at] ^= 1 << (i % 8)
		damage[fmt.Sprintf("bit flipped at %d", at)] = flipped
		damage[fmt.Sprintf("cut at %d", at)] = whole[:at]
	}
	for name, data := range damage {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			m := newMemory()
			p, err := m.PutPack(t.Context(), data)
			g.Expect(err).NotTo(HaveOccurred())
			restored, err := archive.Restore(t.Context(), []archive.Pack{p}, m, t.TempDir(), nil)
			if err == nil {
				g.Expect(restored.Digest).To(Equal(report.Digest), "only damage that does no harm may pass")
			}
		})
	}
}

func TestTruncatedTarIsNoticed(t *testing.T) {
	plain := pack(t, fileEntry("a"), fileEntry("b"))
	for _, size := range []int{0, 512, 1024, 1536, 2048, 2560} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			_, err := archive.Import(t.Context(), bytes.NewReader(plain[:size]), t.TempDir())
			NewWithT(t).Expect(err).To(MatchError(Or(ContainSubstring("something is missing"), ContainSubstring("unexpected EOF"))))
		})
	}
	_, err := archive.Import(t.Context(), bytes.NewReader(plain), t.TempDir())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func TestRestoreNamesTheMissingPack(t *testing.T) {
	g := NewWithT(t)
	m, packs, _ := create(t, t.TempDir())
	delete(m.packs, packs[0].ID)
	_, err := archive.Restore(t.Context(), packs, m, t.TempDir(), nil)
	g.Expect(err).To(MatchError(ContainSubstring("read pack 0: no such pack")))
	m, packs, _ = create(t, t.TempDir())
	packs[0].Size++
	_, err = archive.Restore(t.Context(), packs, m, t.TempDir(), nil)
	g.Expect(err).To(MatchError(ContainSubstring("bytes instead of")))
}

// A few kilobytes that unpack to a huge file end with the disk, not with the memory.
func TestS6_BombsEndWithTheDisk(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `mount -t tmpfs -o size=4m none .`)
	t.Cleanup(func() { g.Expect(unix.Unmount(dir, 0)).To(Succeed()) })
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

// A window larger than ours would need memory that we do not give.
func TestS6_LargeWindowsAreRefused(t *testing.T) {
	g := NewWithT(t)
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(256<<20))
	g.Expect(err).NotTo(HaveOccurred())
	for range 40 {
		_, err = w.Write(make([]byte, 8<<20))
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(w.Close()).To(Succeed())
	m := newMemory()
	p, err := m.PutPack(t.Context(), b.Bytes())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = archive.Restore(t.Context(), []archive.Pack{p}, m, t.TempDir(), nil)
	g.Expect(err).To(MatchError(zstd.ErrWindowSizeExceeded))
}

// An impossible size is no reason to allocate it.
func TestS6_HugeSizesAreRefused(t *testing.T) {
	g := NewWithT(t)
	var b bytes.Buffer
	g.Expect(tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1 << 62, Format: tar.FormatPAX})).To(Succeed())
	_, err := archive.Import(t.Context(), &b, t.TempDir())
	g.Expect(err).To(MatchError(io.ErrUnexpectedEOF))
}

func TestImportReportsErrorsOfItsReader(t *testing.T) {
	g := NewWithT(t)
	broken := errors.New("connection reset")
	plain := pack(t, fileEntry("a"), fileEntry("b"))
	r := io.MultiReader(bytes.NewReader(plain[:700]), &failing{broken})
	_, err := archive.Import(t.Context(), r, t.TempDir())
	g.Expect(err).To(MatchError(broken))
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzImport checks that no archive, however it is made, changes anything outside or hangs.
func FuzzImport(f *testing.F) {
	for _, tt := range hostile {
		f.Add(pack(f, aim(tt.headers, "/nonexistent")...))
	}
	for _, tt := range refused {
		f.Add(pack(f, tt.headers...))
	}
	f.Add(pack(f, rootEntry(), dirEntry("d/"), fileEntry("d/f"), hardlink("g", "d/f"), symlink("s", "d"),
		tar.Header{Typeflag: tar.TypeFifo, Name: "p", ModTime: time.Unix(-1, 5)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := NewWithT(t)
		base := t.TempDir()
		g.Expect(os.Mkdir(base+"/in", 0o700)).To(Succeed())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a sparse file may have any size
		defer cancel()
		_, _ = archive.Import(ctx, bytes.NewReader(data), base+"/in")
		g.Expect(os.ReadDir(base)).To(HaveLen(1))
	})
}

// FuzzRestore checks the same for the compressed form.
func FuzzRestore(f *testing.F) {
	for _, tt := range hostile {
		m, packs := compress(f, pack(f, aim(tt.headers, "/nonexistent")...))
		f.Add(m.packs[packs[0].ID])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g := NewWithT(t)
		base := t.TempDir()
		g.Expect(os.Mkdir(base+"/in", 0o700)).To(Succeed())
		m := newMemory()
		p, err := m.PutPack(t.Context(), data)
		g.Expect(err).NotTo(HaveOccurred())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = archive.Restore(ctx, []archive.Pack{p}, m, base+"/in", nil)
		g.Expect(os.ReadDir(base)).To(HaveLen(1))
	})
}
