package initializer_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// pours serves what is written until nobody listens any more, as often as it is asked.
func pours(t *testing.T, write func(w io.Writer) error) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = write(w) }))
	t.Cleanup(s.Close)
	return s.URL
}

// packs has what is written packed by gzip.
func packs(write func(w io.Writer) error) func(w io.Writer) error {
	return func(w io.Writer) error {
		c := gzip.NewWriter(w)
		if err := write(c); err != nil {
			return err
		}
		return c.Close()
	}
}

// endlessly writes something until nobody takes it.
func endlessly(w io.Writer, data []byte) error {
	data = bytes.Repeat(data, 1+(64<<10)/len(data))
	for {
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
}

// tarHead is a header of a tar as no library writes it.
func tarHead(kind byte, name string, size int64) []byte {
	b := make([]byte, 512)
	for at, text := range map[int]string{
		0: name, 100: "0000644", 108: "0000000", 116: "0000000", 124: fmt.Sprintf("%011o", size), 136: "00000000000", 148: "        ", 156: string(kind), 257: "ustar\x0000",
	} {
		copy(b[at:], text)
	}
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// tarBlock fills a part of a tar up to whole blocks.
func tarBlock(data string) []byte {
	return append([]byte(data), make([]byte, (512-len(data)%512)%512)...)
}

// paxHead is a header that says more about the next one.
func paxHead(kind byte, records ...string) []byte {
	var all strings.Builder
	for _, r := range records {
		n := len(r) + len(" \n")
		for n != len(fmt.Sprint(n))+len(r)+len(" \n") {
			n = len(fmt.Sprint(n)) + len(r) + len(" \n")
		}
		fmt.Fprintf(&all, "%d %s\n", n, r)
	}
	return append(tarHead(kind, "pax", int64(all.Len())), tarBlock(all.String())...)
}

// sparse is the head of a file with holes, as GNU writes it, of so many bytes with its holes.
func sparse(size string) []byte {
	return paxHead('x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=holes", "GNU.sparse.realsize="+size)
}

// Archives that promise more than there is, or never come to an end, are refused as soon as that shows.
func TestS6_ArchivesThatLie(t *testing.T) {
	const damaged, endless, many = "the archive is damaged: ", "the archive is larger than anything that the volume could take", "there are more than the 3000 files and directories"
	for name, tt := range map[string]struct {
		write func(w io.Writer) error
		is    error
		want  string
	}{
		"a header of 1 GB": {packs(func(w io.Writer) error {
			_, err := io.Copy(w, io.MultiReader(bytes.NewReader(tarHead('x', "pax", 1<<30)), io.LimitReader(zeros{}, 1<<30)))
			return err
		}), initializer.ErrInvalid, damaged + "archive/tar: header field too long"},
		"a name of 1 GB": {packs(func(w io.Writer) error {
			_, err := io.Copy(w, io.MultiReader(bytes.NewReader(tarHead('L', "long", 1<<30)), io.LimitReader(zeros{}, 1<<30)))
			return err
		}), initializer.ErrInvalid, damaged + "archive/tar: header field too long"},
		"headers of nothing":  {packs(func(w io.Writer) error { return endlessly(w, paxHead('x', "comment=x")) }), initializer.ErrInvalid, endless},
		"remarks without end": {packs(func(w io.Writer) error { return endlessly(w, paxHead('g', "comment=x")) }), initializer.ErrFull, many},
		"itself without end":  {packs(func(w io.Writer) error { return endlessly(w, tarHead('5', "./", 0)) }), initializer.ErrFull, many},
		"holes of 10 GB": {packs(func(w io.Writer) error {
			_, err := w.Write(append(append(sparse("10737418240"), tarHead('0', "holes", 512)...), tarBlock("0\n")...))
			return err
		}), initializer.ErrFull, `entry "holes" does not fit`},
		"holes without end": {packs(func(w io.Writer) error {
			if _, err := w.Write(append(append(sparse("1024"), tarHead('0', "holes", 1<<32)...), tarBlock("99999999\n"+strings.Repeat("0\n1\n", 126))...)); err != nil {
				return err
			}
			return endlessly(w, []byte("0\n1\n"))
		}), initializer.ErrInvalid, damaged},
		"a size below zero": {packs(func(w io.Writer) error {
			_, err := w.Write(append(append(sparse("-1"), tarHead('0', "holes", 512)...), tarBlock("0\n")...))
			return err
		}), initializer.ErrInvalid, damaged + "archive/tar: invalid tar header"},
		"parts of gzip with nothing in them": {func(w io.Writer) error {
			var empty bytes.Buffer
			if err := gzip.NewWriter(&empty).Close(); err != nil {
				return err
			}
			return endlessly(w, empty.Bytes())
		}, initializer.ErrInvalid, endless},
		"frames of zstd that are to be skipped": {func(w io.Writer) error {
			if _, err := w.Write([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0}); err != nil {
				return err
			}
			return endlessly(w, append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 1, 0, 0}, make([]byte, 256)...))
		}, initializer.ErrInvalid, endless},
		"a window of zstd of 2 GB": {func(w io.Writer) error {
			_, err := w.Write(append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3}, make([]byte, 512)...))
			return err
		}, initializer.ErrInvalid, "window size"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			target.MaxBytes, target.MaxFiles = 16<<20, 3000
			_, err := patientDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: pours(t, tt.write), Unpack: true})
			g.Expect(err).To(And(MatchError(tt.is), MatchError(ContainSubstring(tt.want))))
		})
	}
}

// Holes that fit arrive as what they stand for.
func TestSparseFilesAreUnpacked(t *testing.T) {
	g := NewWithT(t)
	url := pours(t, func(w io.Writer) error {
		_, err := w.Write(bytes.Join([][]byte{sparse("5000"), tarHead('0', "holes", 512+3), tarBlock("1\n4096\n3\n"), tarBlock("abc"), make([]byte, 1024)}, nil))
		return err
	})
	target := newTarget(t)
	_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: url, Unpack: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read(t, target.Dir, "holes")).To(Equal(strings.Repeat("\x00", 4096) + "abc" + strings.Repeat("\x00", 901)))
}

// The last of several entries with one name counts, as in tar; what it replaces is removed, and not followed.
func TestS6_NamesThatComeTwice(t *testing.T) {
	outside := t.TempDir()
	NewWithT(t).Expect(os.Chmod(filepath.Dir(outside), 0o777)).To(Succeed())
	NewWithT(t).Expect(os.Chmod(outside, 0o777)).To(Succeed())
	write(t, outside, "secret", "s3cret")
	reg := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}
	}
	dir := tar.Header{Typeflag: tar.TypeDir, Name: "a/", Mode: 0o755}
	link := tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: outside + "/secret", Mode: 0o777}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	for name, tt := range map[string]struct {
		entries []tar.Header
		mode    os.FileMode
		want    string
		tarOnly bool
	}{
		"file, file":             {[]tar.Header{reg("a", 0o644), reg("a", 0o600)}, 0o600, "", false},
		"link, file":             {[]tar.Header{link, reg("a", 0o600)}, 0o600, "", false},
		"file, link":             {[]tar.Header{reg("a", 0o600), link}, os.ModeSymlink | 0o777, "", false},
		"directory, directory":   {[]tar.Header{dir, dir}, os.ModeDir | 0o755, "", false},
		"directory, file":        {[]tar.Header{dir, reg("a", 0o600)}, 0, `entry "a" is there already as a directory`, false},
		"file, directory":        {[]tar.Header{reg("a", 0o600), dir}, 0, `entry "a": not a directory`, false},
		"link, directory":        {[]tar.Header{link, dir}, 0, `entry "a": not a directory`, false},
		"hard link, file":        {[]tar.Header{reg("b", 0o644), hard("a", "b"), reg("a", 0o600)}, 0o600, "", true},
		"hard link to itself":    {[]tar.Header{reg("a", 0o600), hard("a", "./a")}, 0o600, "", true},
		"hard link to come":      {[]tar.Header{hard("a", "b"), reg("b", 0o600)}, 0, `link "a": "b" is no file of the archive`, true},
		"hard link to a link":    {[]tar.Header{link, hard("b", "a")}, 0, `link "b": "a" is no file of the archive`, true},
		"hard link, a directory": {[]tar.Header{dir, hard("b", "a")}, 0, `link "b": "a" is no file of the archive`, true},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, data := range packed(t, tt.entries...) {
				if kind == "zip" && tt.tarOnly {
					continue
				}
				g := NewWithT(t)
				target := newTarget(t)
				_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: newFileServer(t, data).URL, Unpack: true})
				g.Expect(os.ReadFile(filepath.Join(outside, "secret"))).To(BeEquivalentTo("s3cret"))
				if tt.want != "" {
					g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring(tt.want))), kind)
					continue
				}
				g.Expect(err).NotTo(HaveOccurred(), kind)
				info, err := os.Lstat(filepath.Join(target.Dir, "a"))
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(info.Mode()).To(Equal(tt.mode), kind)
			}
		})
	}
}

// zipOf makes a zip of one file whose content is "content".
func zipOf(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, err = f.Write([]byte("content"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(z.Close()).To(Succeed())
	return b.Bytes()
}

// A zip says everything twice. Only one of both counts, and that is judged.
func TestS6_ZipsWhoseHeadersDiffer(t *testing.T) {
	const list, size, method, offset = "PK\x01\x02", 24, 10, 42
	at := func(data []byte, field int, value ...byte) []byte {
		copy(data[bytes.Index(data, []byte(list))+field:], value)
		return data
	}
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"another name at the file": {bytes.Replace(zipOf(t, "good"), []byte("good"), []byte("../x"), 1), ""},
		"another name in the list": {bytes.Replace(zipOf(t, "../x"), []byte("../x"), []byte("good"), 1), `entry "../x" has a name that leads out`},
		"another size":             {at(zipOf(t, "good"), size, 2, 0, 0, 0), "the archive is damaged: zip: not a valid zip file"},
		"another method":           {at(zipOf(t, "good"), method, 0, 0), "the archive is damaged: zip: "},
		"a method that is none":    {at(zipOf(t, "good"), method, 99, 0), `entry "good": the archive is damaged: zip: unsupported compression algorithm`},
		"a place that is none":     {at(zipOf(t, "good"), offset, 1, 0, 0, 0), `entry "good": the archive is damaged: zip: not a valid zip file`},
		"a place after the end":    {at(zipOf(t, "good"), offset, 0, 0, 0, 0x7f), `entry "good": the archive is damaged: `},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: newFileServer(t, tt.data).URL, Unpack: true})
			g.Expect(os.ReadDir(filepath.Dir(target.Dir))).To(HaveLen(1))
			if tt.want != "" {
				g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring(tt.want))))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(read(t, target.Dir, "good")).To(Equal("content"))
		})
	}
}

// zipBomb writes a zip whose list has so many entries, all of one empty file.
func zipBomb(entries int) (write func(w io.Writer) error, size int64) {
	le := binary.LittleEndian
	head := append([]byte("PK\x03\x04\x14"), make([]byte, 25)...)
	le.PutUint16(head[26:], 1)
	head = append(head, 'f')
	entry := append([]byte("PK\x01\x02\x14\x00\x14"), make([]byte, 39)...)
	le.PutUint16(entry[28:], 1)
	entry = append(entry, 'f')
	list := int64(len(entry)) * int64(entries)
	end := append([]byte("PK\x06\x06\x2c"), make([]byte, 51)...)
	for _, at := range []int{24, 32} {
		le.PutUint64(end[at:], uint64(entries))
	}
	le.PutUint64(end[40:], uint64(list))
	le.PutUint64(end[48:], uint64(len(head)))
	locator := append([]byte("PK\x06\x07"), make([]byte, 16)...)
	le.PutUint64(locator[8:], uint64(int64(len(head))+list))
	locator[16] = 1
	end = append(append(append(end, locator...), "PK\x05\x06\x00\x00\x00\x00"...), bytes.Repeat([]byte{0xff}, 12)...)
	end = append(end, 0, 0)
	return func(w io.Writer) error {
		_, err := w.Write(head)
		thousand := bytes.Repeat(entry, 1000)
		for left := entries; left > 0 && err == nil; left -= 1000 {
			_, err = w.Write(thousand[:min(left, 1000)*len(entry)])
		}
		if err == nil {
			_, err = w.Write(end)
		}
		return err
	}, int64(len(head)+len(end)) + list
}

// The list of a zip is not taken into memory as a whole where it is longer than the volume could take, or than any may be.
func TestS6_ZipsOfMillions(t *testing.T) {
	for name, tt := range map[string]struct {
		entries int
		files   int64
		is      error
		want    string
	}{
		"10 million entries":       {10_000_000, 3000, initializer.ErrFull, "the zip has more than the 3000 files and directories that the volume may have"},
		"more than a zip may have": {1_100_000, 0, initializer.ErrInvalid, "the zip has more than 1000000 files and directories, as many as a zip may have: make a tar of it"},
		"a thousand":               {1000, 0, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			write, size := zipBomb(tt.entries)
			target.MaxBytes, target.MaxFiles = size, tt.files
			if tt.files == 0 {
				target.Dir = mounted(t, fmt.Sprintf("size=%d,nr_inodes=0", size+1<<20)).Dir
			}
			_, err := patientDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: pours(t, write), Unpack: true})
			if tt.is == nil {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(read(t, target.Dir, "f")).To(BeEmpty())
				return
			}
			g.Expect(err).To(And(MatchError(tt.is), MatchError(ContainSubstring(tt.want))))
		})
	}
}

// Ten gigabytes in ten megabytes are refused by what the zip says of them, or, where that is a lie, by what comes.
func TestS6_AZipOfTenGigabytes(t *testing.T) {
	const mebibytes = 10 << 10
	var one bytes.Buffer
	c, err := flate.NewWriter(&one, flate.BestCompression)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, err = c.Write(make([]byte, 1<<20))
	NewWithT(t).Expect(errors.Join(err, c.Flush())).To(Succeed())
	data := append(bytes.Repeat(one.Bytes(), mebibytes), 3, 0) // an empty block that is the last
	for name, tt := range map[string]struct {
		says uint64
		is   error
		want string
	}{
		"as it says":        {mebibytes << 20, initializer.ErrFull, `entry "bomb" does not fit: the volume may have 16 MiB`},
		"of a hundred":      {100, initializer.ErrInvalid, "the archive is damaged: zip: not a valid zip file"},
		"of more than fits": {16 << 20, initializer.ErrFull, `entry "bomb" does not fit`},
		"of 16 EB":          {math.MaxUint64, initializer.ErrFull, `entry "bomb" does not fit`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			f, err := z.CreateRaw(&zip.FileHeader{Name: "bomb", Method: zip.Deflate, CompressedSize64: uint64(len(data)), UncompressedSize64: tt.says})
			g.Expect(err).NotTo(HaveOccurred())
			_, err = f.Write(data)
			g.Expect(errors.Join(err, z.Close())).To(Succeed())
			target := newTarget(t)
			target.MaxBytes = 16 << 20
			if tt.says == 16<<20 {
				target.MaxBytes--
			}
			_, err = newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: newFileServer(t, b.Bytes()).URL, Unpack: true})
			g.Expect(err).To(And(MatchError(tt.is), MatchError(ContainSubstring(tt.want))))
		})
	}
}

// Many entries of one piece of the archive are as many files.
func TestS6_ZipsThatOverlap(t *testing.T) {
	g := NewWithT(t)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.CreateHeader(&zip.FileHeader{Name: "000", Method: zip.Deflate})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = f.Write(make([]byte, 1<<20))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(z.Close()).To(Succeed())
	begins, ends := bytes.Index(b.Bytes(), []byte("PK\x01\x02")), bytes.Index(b.Bytes(), []byte("PK\x05\x06"))
	data, entry, end := b.Bytes()[:begins], b.Bytes()[begins:ends], bytes.Clone(b.Bytes()[ends:])
	data = bytes.Clone(data)
	for i := range 100 {
		data = append(data, bytes.Replace(entry, []byte("000"), fmt.Appendf(nil, "%03d", i), 1)...)
	}
	for _, at := range []int{8, 10} {
		binary.LittleEndian.PutUint16(end[at:], 100)
	}
	binary.LittleEndian.PutUint32(end[12:], uint32(100*len(entry)))
	target := newTarget(t)
	target.MaxBytes = 16 << 20
	_, err = newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: newFileServer(t, append(data, end...)).URL, Unpack: true})
	g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring(`entry "016" does not fit: the volume may have 16 MiB`))))
}

// A thousand directories deep, each entry makes one more: that costs no more than elsewhere.
func TestS6_NewDirectoriesFarBelow(t *testing.T) {
	g := NewWithT(t)
	deep := strings.Repeat("d/", 1500)
	var b bytes.Buffer
	a := tar.NewWriter(&b)
	for i := range 1000 {
		g.Expect(a.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s%d/f", deep, i), Mode: 0o644})).To(Succeed())
	}
	g.Expect(a.Close()).To(Succeed())
	target := newTarget(t)
	result, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: newFileServer(t, b.Bytes()).URL, Unpack: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Files).To(Equal(int64(1000)))
	g.Expect(read(t, target.Dir, deep, "999/f")).To(BeEmpty())
}
