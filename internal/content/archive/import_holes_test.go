package archive_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// Holes cost nothing, in whatever format GNU tar describes them, and however many there are.
func TestImportOfHoles(t *testing.T) {
	for _, how := range []string{"gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"} {
		t.Run(how, func(t *testing.T) {
			g := NewWithT(t)
			dir, to, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "x.tar")
			sh(t, dir, `truncate -s 15T empty; echo start >both; truncate -s 10T both; echo end >>both; truncate -s 1M "$(printf 'lead%0200d' 0)"; echo x >>lead*
				for i in $(seq 90); do printf $i | dd of=many bs=1 seek=$((i * 65536)) conv=notrunc status=none; done; truncate -s 16M many
				echo plain >plain; ln many also; mkdir d; echo in >d/in`)
			sh(t, dir, "tar --sparse --format="+how+" -cf "+file+" .")
			in, err := os.Open(file)
			g.Expect(err).NotTo(HaveOccurred())
			defer in.Close()
			_, err = archive.Import(t.Context(), in, to)
			g.Expect(err).NotTo(HaveOccurred())
			sh(t, to, `test $(stat -c %s empty) = $((15 << 40)); test $(stat -c %b empty) = 0; test $(stat -c %b both) -le 9000; test $(stat -c %b many) -le 20000`)
			sh(t, to, `cmp <(tail -c 4 both) <(echo end); cmp <(head -c 6 both) <(echo start); cmp lead* `+dir+`/lead*; cmp many `+dir+`/many`)
			sh(t, to, `test many -ef also; cmp plain <(echo plain); cmp d/in <(echo in)`)
		})
	}
}

// holeTars are tars that speak of holes by hand, and what is wrong with them: records, then content.
var holeTars = map[string]holeTar{
	"0.1":                     {records: []string{"map=0,1,9,1", "size=100", "numblocks=2"}, content: "ab"},
	"0.0":                     {records: []string{"size=100", "offset=0", "numbytes=1", "offset=9", "numbytes=1"}, content: "ab"},
	"1.0":                     {records: one("100"), content: mapBlock("2", "0", "1", "9", "1") + "ab"},
	"as large as can be":      {records: one(strconv.FormatInt(math.MaxInt64, 10)), content: mapBlock("2", "0", "1", "9", "1") + "ab"},
	"larger than can be":      {records: one("9223372036854775808"), err: "makes no sense"},
	"negative":                {records: one("-1"), err: "makes no sense"},
	"no size":                 {records: []string{"map=0,1"}, content: "a", err: "makes no sense"},
	"unknown version":         {records: []string{"major=2", "minor=0", "realsize=3"}, err: `version "2.0", which is not known`},
	"odd map":                 {records: []string{"map=0,1,9", "size=100"}, content: "a", err: "makes no sense"},
	"no number":               {records: []string{"map=0,x", "size=100"}, content: "a", err: "makes no sense"},
	"overlapping":             {records: []string{"map=0,5,4,1", "size=100"}, content: "abcdef", err: "makes no sense"},
	"descending":              {records: []string{"map=9,1,0,1", "size=100"}, content: "ab", err: "makes no sense"},
	"outside":                 {records: []string{"map=99,2", "size=100"}, content: "ab", err: "makes no sense"},
	"overflow":                {records: []string{"map=1,9223372036854775807", "size=100"}, content: "ab", err: "makes no sense"},
	"negative length":         {records: []string{"map=5,-1", "size=100"}, content: "", err: "makes no sense"},
	"more than there is":      {records: []string{"map=0,9", "size=100"}, content: "ab", err: "makes no sense"},
	"less than there is":      {records: []string{"map=0,1", "size=100"}, content: "ab", err: "makes no sense"},
	"a map that ends":         {records: one("100"), content: mapBlock("9", "1"), err: "makes no sense"},
	"no map":                  {records: one("100"), content: "x", err: "read its map of holes: unexpected EOF"},
	"a map of something else": {records: one("100"), content: strings.Repeat("z", 512), err: "makes no sense"},
	"a map of too many":       {records: one("100"), content: mapBlock("1048577"), err: "more than 1048576 pieces"},
	"an endless number":       {records: one("100"), content: strings.Repeat("9", 512), err: "makes no sense"},
	"an empty line":           {records: one("100"), content: mapBlock("1", "", "1"), err: "makes no sense"},
}

func one(size string) []string { return []string{"major=1", "minor=0", "name=f", "realsize=" + size} }

func mapBlock(lines ...string) string {
	text := strings.Join(lines, "\n") + "\n"
	return text + strings.Repeat("\x00", 512-len(text)%512)
}

type holeTar struct {
	records []string // without "GNU.sparse."
	content string
	err     string
}

// tar makes the tar of one file "f".
func (h holeTar) tar(tb testing.TB) []byte {
	tb.Helper()
	g := NewWithT(tb)
	var records, b bytes.Buffer
	for _, r := range h.records {
		rest := " GNU.sparse." + r + "\n"
		n := len(rest) + 2
		if n >= 100 {
			n++
		}
		fmt.Fprintf(&records, "%d%s", n, rest)
	}
	w := tar.NewWriter(&b)
	g.Expect(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: int64(records.Len()), Format: tar.FormatUSTAR})).To(Succeed())
	g.Expect(w.Write(records.Bytes())).Error().NotTo(HaveOccurred())
	g.Expect(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o600, Size: int64(len(h.content)), Format: tar.FormatUSTAR})).To(Succeed())
	g.Expect(w.Write([]byte(h.content))).Error().NotTo(HaveOccurred())
	g.Expect(w.Close()).To(Succeed())
	made := b.Bytes()
	made[156] = tar.TypeXHeader // the library would not write these records
	sum := 0
	copy(made[148:156], "        ")
	for _, c := range made[:512] {
		sum += int(c)
	}
	copy(made[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return made
}

func TestS6_ImportOfHostileHoles(t *testing.T) {
	for name, tt := range holeTars {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			to := smallDisk(t, "size=8m")
			_, err := archive.Import(t.Context(), bytes.NewReader(tt.tar(t)), to)
			if tt.err != "" {
				g.Expect(err).To(MatchError(ContainSubstring(tt.err)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			f, err := os.Open(filepath.Join(to, "f"))
			g.Expect(err).NotTo(HaveOccurred())
			defer f.Close()
			start := make([]byte, 10)
			g.Expect(f.ReadAt(start, 0)).To(Equal(10))
			g.Expect(string(start)).To(Equal("a\x00\x00\x00\x00\x00\x00\x00\x00b"))
		})
	}
}

// A file that the filesystem cannot have is refused at once, by what it would have needed.
func TestImportOfMoreThanTheFilesystemCanHave(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `truncate -s 16M image; mkfs.ext4 -q image; mkdir to; mount -o loop image to; rmdir to/lost+found`)
	t.Cleanup(func() { g.Expect(unix.Unmount(filepath.Join(dir, "to"), 0)).To(Succeed()) })
	_, err := archive.Import(t.Context(), bytes.NewReader(holeTars["as large as can be"].tar(t)), filepath.Join(dir, "to"))
	g.Expect(err).To(MatchError(unix.EFBIG))
	g.Expect(err).To(MatchError(ContainSubstring("write f: make it 9223372036854775807 bytes long, holes included: file too large")))
}
