package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
)

// realTree walks a directory as a backup does: names, sizes and times are real, hashes are random (equal for equal names
// and sizes in one of three cases, which is what dependencies look like), and files fill frames of BlockSize in order.
type realTree struct {
	frames []Frame
	dirs   []Dir
	off    uint32
	rows   int
}

func (t *realTree) walk(tb testing.TB, root, path string) {
	tb.Helper()
	list, err := os.ReadDir(filepath.Join(root, path))
	if err != nil {
		tb.Fatal(err)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	info, err := os.Lstat(filepath.Join(root, path))
	if err != nil {
		tb.Fatal(err)
	}
	d := Dir{Path: path, Meta: metaOf(info)}
	var sub []string
	for _, l := range list {
		info, err := l.Info()
		if err != nil {
			tb.Fatal(err)
		}
		switch {
		case l.IsDir():
			sub = append(sub, l.Name())
		case info.Mode().IsRegular():
			d.Entries = append(d.Entries, t.file(info))
		}
	}
	t.dirs = append(t.dirs, d)
	t.rows += 1 + len(d.Entries)
	for _, s := range sub {
		t.walk(tb, root, strings.TrimPrefix(path+"/"+s, "/"))
	}
}

func metaOf(info fs.FileInfo) Meta {
	st := info.Sys().(*syscall.Stat_t)
	return Meta{Mode: uint16(st.Mode & 0o7777), UID: st.Uid, GID: st.Gid, Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
}

func (t *realTree) file(info fs.FileInfo) Entry {
	e := Entry{Name: info.Name(), Kind: KindFile, Meta: metaOf(info), Size: info.Size()}
	if e.Size == 0 {
		return e
	}
	seed := binary.LittleEndian.AppendUint64([]byte(info.Name()), uint64(e.Size))
	if e.Size%3 != 0 {
		seed = binary.LittleEndian.AppendUint64(seed, uint64(t.rows+len(t.frames)*7919+int(t.off)))
	}
	e.Hash = sha256.Sum256(seed)
	if e.Size > BlockSize {
		e.Extra = &Extra{Pieces: []Piece{}}
		for at := int64(0); at < e.Size; at += BlockSize {
			n := uint32(min(BlockSize, e.Size-at))
			frame, off := t.place(n)
			e.Extra.Pieces = append(e.Extra.Pieces, Piece{At: at, Len: n, Frame: frame, Off: off, Hash: sha256.Sum256(e.Hash[:])})
		}
		return e
	}
	e.Frame, e.Off = t.place(uint32(e.Size))
	return e
}

func (t *realTree) place(n uint32) (frame, off uint32) {
	if len(t.frames) == 0 || t.off+n > BlockSize {
		i := uint32(len(t.frames))
		t.frames = append(t.frames, Frame{Pack: PackID{byte(i / 24), 1}, Index: i % 24, Offset: 48 + i%24*1234567, Stored: 1200000 + i, Raw: BlockSize,
			Hash: sha256.Sum256([]byte{byte(i), byte(i >> 8)})})
		t.off = 0
	}
	off = t.off
	t.off += n
	return uint32(len(t.frames) - 1), off
}

// loadTree is the tree of BENCH_TREE, or of Go's own sources and modules.
func loadTree(b *testing.B) (*realTree, []*Page) {
	b.Helper()
	roots := []string{os.Getenv("BENCH_TREE")}
	if roots[0] == "" {
		out, err := exec.CommandContext(b.Context(), "go", "env", "GOROOT", "GOMODCACHE").Output()
		if err != nil {
			b.Fatal(err)
		}
		roots = strings.Fields(string(out))
	}
	t := &realTree{}
	var pages []*Page
	for _, root := range roots {
		t.dirs = nil
		t.walk(b, root, "")
		pages = append(pages, cutPages(t.dirs, &t.frames)...)
	}
	for _, p := range pages {
		p.Frames = t.frames
	}
	return t, pages
}

// cutPages cuts directories into pages as a writer does.
func cutPages(dirs []Dir, frames *[]Frame) []*Page {
	var c Cutter
	pages := []*Page{{Frames: *frames}}
	for i := range dirs {
		d := dirs[i]
		h := HashPath(d.Path)
		if c.Dir(h, &d) {
			pages = append(pages, &Page{Frames: *frames})
		}
		p := pages[len(pages)-1]
		begin := 0
		p.Dirs = append(p.Dirs, d)
		for j := range d.Entries {
			if !c.Entry(h, d.Path, &d.Entries[j]) {
				continue
			}
			p.Dirs[len(p.Dirs)-1].Entries = d.Entries[begin:j]
			p = &Page{Frames: *frames, Dirs: []Dir{{Path: d.Path, Continued: true}}}
			pages = append(pages, p)
			begin = j
		}
		p.Dirs[len(p.Dirs)-1].Entries = d.Entries[begin:]
	}
	return pages
}

// pageBench is a tree in pages, encoded.
type pageBench struct {
	rows   int
	pages  []*Page
	refs   []PageRef
	stored [][]byte
	enc    *Encoder
	dec    *Decoder
}

func newPageBench(b *testing.B) *pageBench {
	b.Helper()
	t, pages := loadTree(b)
	p := &pageBench{rows: t.rows, pages: pages, refs: make([]PageRef, len(pages)), stored: make([][]byte, len(pages))}
	p.enc, p.dec = codecs(b)
	p.encode(b)
	return p
}

// encode returns the bytes of all pages.
func (p *pageBench) encode(b *testing.B) int {
	b.Helper()
	total := 0
	for i, page := range p.pages {
		z, raw, err := p.enc.Page(p.stored[i][:0], page)
		if err != nil {
			b.Fatal(err)
		}
		p.stored[i], p.refs[i] = z, refOf(page, z, raw)
		total += len(z)
	}
	return total
}

func (p *pageBench) report(b *testing.B, bytes int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(p.rows), "ns/row")
	b.ReportMetric(float64(bytes)/float64(p.rows), "B/row")
	b.ReportMetric(float64(p.rows), "rows")
	b.ReportMetric(float64(len(p.pages)), "pages")
}

func BenchmarkPageEncode(b *testing.B) {
	p := newPageBench(b)
	total := 0
	for b.Loop() {
		total = p.encode(b)
	}
	p.report(b, total)
}

func BenchmarkPageDecode(b *testing.B) {
	p := newPageBench(b)
	b.ReportAllocs()
	for b.Loop() {
		for i, ref := range p.refs {
			if _, err := p.dec.Page(nil, ref, p.stored[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
	p.report(b, 0)
}

func BenchmarkDigest(b *testing.B) {
	p := newPageBench(b)
	for b.Loop() {
		digestOf(p.pages...)
	}
	p.report(b, 0)
}

func BenchmarkTable(b *testing.B) {
	p := newPageBench(b)
	refs := p.refs
	for i := range refs[1:] {
		if refs[i+1].First == "" {
			refs = refs[:i+1] // where the second tree begins
			break
		}
	}
	total := 0
	for b.Loop() {
		table, err := p.enc.Table(nil, refs)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.dec.Table(nil, table); err != nil {
			b.Fatal(err)
		}
		total = len(table)
	}
	b.ReportMetric(float64(total)/float64(len(refs)), "B/page")
}

// BenchmarkFrame measures what a restore does with a block of 4 MiB.
func BenchmarkFrame(b *testing.B) {
	content := bytes.Repeat([]byte("module.exports = require('./lib/index.js');\n// "), BlockSize/46)
	for i := 0; i < len(content); i += 97 {
		content[i] = byte(i >> 5)
	}
	for name, key := range packKeys {
		b.Run("open/"+name, func(b *testing.B) {
			_, d := codecs(b)
			k := key(b)
			pack, frames := buildPack(b, testID(1), k, content, []byte("page"))
			f := frames[0]
			dst := make([]byte, 0, len(content)+slack)
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.OpenFrame(dst, k, f, FrameData, pack[f.Offset:f.Offset+f.Stored]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
