package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// packStore is a store of packs in memory that counts what is asked of it.
type packStore struct {
	mu       sync.Mutex
	packs    map[format.PackID][]byte
	requests int
	bytes    int64
	before   func() error // called before each reading
}

func newPackStore() *packStore { return &packStore{packs: map[format.PackID][]byte{}} }

func (s *packStore) PutPack(_ context.Context, id format.PackID, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.packs[id]; ok {
		return errors.New("the pack is there already")
	}
	s.packs[id] = slices.Clone(data)
	return nil
}

func (s *packStore) ReadPack(ctx context.Context, id format.PackID, offset int64, buf []byte) error {
	s.mu.Lock()
	s.requests++
	s.bytes += int64(len(buf))
	data, ok := s.packs[id]
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return errors.New("no such object")
	case offset > int64(len(data)) || copy(buf, data[offset:]) < len(buf):
		return errors.New("the object is too short")
	}
	return nil
}

func (s *packStore) reset() { s.requests, s.bytes = 0, 0 }

// builder makes backups by hand, without the code that makes them from trees.
type builder struct {
	t        testing.TB
	store    *packStore
	key      *format.Key
	dirs     []format.Dir
	contents map[string][]byte // by path of the file
	pageRows int               // rows of a page; 0: 200
	edit     func(*format.Page)
	raw      func([]byte) []byte // changes encoded pages, in ways that the encoder does not
}

func build(tb testing.TB) *builder {
	tb.Helper()
	return &builder{t: tb, store: newPackStore(), contents: map[string][]byte{}}
}

// dir adds a directory; they come in tree order.
func (b *builder) dir(path string, m format.Meta) *builder {
	if m.Mode == 0 {
		m.Mode = 0o755
	}
	b.dirs = append(b.dirs, format.Dir{Path: path, Meta: m})
	return b
}

// entry adds an entry to the last directory; they come in order.
func (b *builder) entry(e format.Entry) *builder {
	if e.Mode == 0 && e.Kind != format.KindSymlink {
		e.Mode = 0o644
	}
	if e.Kind == 0 {
		e.Kind = format.KindFile
	}
	d := &b.dirs[len(b.dirs)-1]
	d.Entries = append(d.Entries, e)
	return b
}

func (b *builder) entries() []format.Entry { return b.dirs[len(b.dirs)-1].Entries }

// file adds a file with content.
func (b *builder) file(name, content string) *builder {
	b.entry(format.Entry{Name: name})
	b.contents[b.path(name)] = []byte(content)
	return b
}

func (b *builder) path(name string) string {
	return strings.TrimPrefix(b.dirs[len(b.dirs)-1].Path+"/"+name, "/")
}

func (b *builder) symlink(name, target string) *builder {
	return b.entry(format.Entry{Name: name, Kind: format.KindSymlink, Meta: format.Meta{Mode: 0o777, Extra: &format.Extra{Target: target}}})
}

// linked adds a further name of a file.
func (b *builder) linked(first, name string) *builder {
	b.file(name, string(b.contents[first]))
	for i := range b.dirs {
		for j := range b.dirs[i].Entries {
			if e := &b.dirs[i].Entries[j]; strings.TrimPrefix(b.dirs[i].Path+"/"+e.Name, "/") == first {
				e.Extra = &format.Extra{Group: format.GroupOf(first)}
			}
		}
	}
	d := &b.dirs[len(b.dirs)-1]
	d.Entries[len(d.Entries)-1].Extra = &format.Extra{Group: format.GroupOf(first)}
	return b
}

// packing writes packs.
type packing struct {
	b       *builder
	enc     *format.Encoder
	w       *format.PackWriter
	id      format.PackID
	packs   []archive.Pack
	frames  map[string]format.Frame // by content
	perPack int                     // frames
}

func (p *packing) expect(err error) {
	p.b.t.Helper()
	NewWithT(p.b.t).Expect(err).NotTo(HaveOccurred())
}

func (p *packing) begin() {
	var err error
	p.id = format.NewPackID()
	p.w, err = format.NewPackWriter(p.id, p.b.key, make([]byte, 0, format.MaxPack))
	p.expect(err)
}

func (p *packing) finish() {
	if p.w.Frames() == 0 {
		return
	}
	data, err := p.w.Finish()
	p.expect(err)
	p.expect(p.b.store.PutPack(p.b.t.Context(), p.id, data))
	p.packs = append(p.packs, archive.Pack{ID: p.id, Size: int64(len(data)), CRC32C: crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)), Live: int64(len(data))})
	p.begin()
}

func (p *packing) add(t format.FrameType, raw int, z []byte) format.Frame {
	if p.perPack > 0 && p.w.Frames() == p.perPack {
		p.finish()
	}
	slot, ok := p.w.Reserve(t, raw, len(z))
	if !ok {
		p.finish()
		slot, ok = p.w.Reserve(t, raw, len(z))
		NewWithT(p.b.t).Expect(ok).To(BeTrue())
	}
	return slot.Fill(z)
}

// block is a frame that is being gathered.
type block struct {
	raw     []byte
	entries []*format.Entry
}

// root stores everything. blockSize is the size to which files are gathered.
func (b *builder) root(blockSize int) archive.Root { return b.rootPacks(blockSize, 0) }

// rootPacks is root with a number of frames in each pack.
func (b *builder) rootPacks(blockSize, perPack int) archive.Root {
	b.t.Helper()
	enc, err := format.NewEncoder()
	p := &packing{b: b, enc: enc, frames: map[string]format.Frame{}, perPack: perPack}
	p.expect(err)
	p.begin()
	frameOf := map[*format.Entry]format.Frame{}
	pieceOf := map[*format.Piece]format.Frame{}
	var cur block
	flush := func() {
		if len(cur.raw) == 0 {
			return
		}
		f := p.add(format.FrameData, len(cur.raw), enc.Compress(nil, cur.raw))
		for _, e := range cur.entries {
			frameOf[e] = f
		}
		cur = block{}
	}
	for i := range b.dirs {
		for j := range b.dirs[i].Entries {
			e := &b.dirs[i].Entries[j]
			data := b.contents[strings.TrimPrefix(b.dirs[i].Path+"/"+e.Name, "/")]
			if len(data) == 0 || e.Flags&format.FlagUnreadable != 0 {
				continue
			}
			if e.Extra != nil && e.Extra.Pieces != nil || len(data) > format.BlockSize {
				flush()
				b.pieces(p, e, data, pieceOf)
				continue
			}
			if len(cur.raw)+len(data) > blockSize {
				flush()
			}
			e.Size, e.Hash, e.Off = int64(len(data)), sha256.Sum256(data), uint32(len(cur.raw))
			cur.raw = append(cur.raw, data...)
			cur.entries = append(cur.entries, e)
		}
	}
	flush()
	digest := format.NewDigester()
	refs := b.pages(p, frameOf, pieceOf, digest)
	p.finish()
	table, err := enc.Table(b.key, refs)
	p.expect(err)
	return archive.Root{Table: table, Packs: p.packs, Digest: digest.Sum()}
}

// pieces stores a file in pieces: those that it has, or whole blocks. The content that a hole stands for must be zero.
func (b *builder) pieces(p *packing, e *format.Entry, data []byte, pieceOf map[*format.Piece]format.Frame) {
	if e.Extra == nil {
		e.Extra = &format.Extra{}
	}
	if e.Extra.Pieces == nil {
		for at := 0; at < len(data); at += format.BlockSize {
			e.Extra.Pieces = append(e.Extra.Pieces, format.Piece{At: int64(at), Len: uint32(min(format.BlockSize, len(data)-at))})
		}
	}
	for i := range e.Extra.Pieces {
		c := &e.Extra.Pieces[i]
		part := data[c.At : c.At+int64(c.Len)]
		c.Hash = sha256.Sum256(part)
		f, ok := p.frames[string(c.Hash[:])]
		if !ok {
			f = p.add(format.FrameData, len(part), p.enc.Compress(nil, part))
			p.frames[string(c.Hash[:])] = f
		}
		pieceOf[c] = f
	}
	var h format.FileHasher
	_, _ = h.Write(data)
	e.Size, e.Hash = int64(len(data)), h.Sum()
}

// pages cuts the rows into pages and stores them.
func (b *builder) pages(p *packing, frameOf map[*format.Entry]format.Frame, pieceOf map[*format.Piece]format.Frame, digest *format.Digester) []format.PageRef {
	limit := b.pageRows
	if limit == 0 {
		limit = 200
	}
	var refs []format.PageRef
	page, numbers := &format.Page{}, map[format.Frame]uint32{}
	number := func(f format.Frame) uint32 {
		n, ok := numbers[f]
		if !ok {
			n = uint32(len(page.Frames))
			numbers[f] = n
			page.Frames = append(page.Frames, f)
		}
		return n
	}
	flush := func() {
		refs = append(refs, b.storePage(p, page, digest))
		page, numbers = &format.Page{}, map[format.Frame]uint32{}
	}
	for i := range b.dirs {
		if page.Rows() >= limit {
			flush()
		}
		d := b.dirs[i]
		entries := d.Entries
		d.Entries = nil
		page.Dirs = append(page.Dirs, d)
		for j := range entries {
			if page.Rows() >= limit {
				flush()
				page.Dirs = append(page.Dirs, format.Dir{Path: d.Path, Continued: true})
			}
			e := entries[j]
			if f, ok := frameOf[&entries[j]]; ok {
				e.Frame = number(f)
			}
			if e.Extra != nil && len(e.Extra.Pieces) > 0 {
				extra := *e.Extra
				extra.Pieces = slices.Clone(extra.Pieces)
				for k := range extra.Pieces {
					extra.Pieces[k].Frame = number(pieceOf[&e.Extra.Pieces[k]])
				}
				e.Extra = &extra
			}
			last := &page.Dirs[len(page.Dirs)-1]
			last.Entries = append(last.Entries, e)
		}
	}
	flush()
	return refs
}

func (b *builder) storePage(p *packing, page *format.Page, digest *format.Digester) format.PageRef {
	if b.edit != nil {
		b.edit(page)
	}
	for i := range page.Dirs {
		digest.Dir(&page.Dirs[i])
		for j := range page.Dirs[i].Entries {
			digest.Entry(&page.Dirs[i].Entries[j])
		}
	}
	z, raw, err := p.enc.Page(nil, page)
	p.expect(err)
	if b.raw != nil {
		z, raw = b.recode(p, z, raw)
	}
	return page.Ref(p.add(format.FramePage, raw, z))
}

// recode changes the bytes of a page before they are compressed.
func (b *builder) recode(p *packing, z []byte, raw int) ([]byte, int) {
	plain := b.raw(unzstd(b.t, z, raw))
	return p.enc.Compress(nil, plain), len(plain)
}

func unzstd(tb testing.TB, z []byte, raw int) []byte {
	tb.Helper()
	d, err := format.NewDecoder()
	NewWithT(tb).Expect(err).NotTo(HaveOccurred())
	defer d.Close()
	plain, err := d.OpenFrame(make([]byte, 0, raw), nil, format.Frame{Offset: 64, Stored: uint32(len(z)), Raw: uint32(raw), Hash: sha256.Sum256(z)}, format.FramePage, z)
	NewWithT(tb).Expect(err).NotTo(HaveOccurred())
	return bytes.Clone(plain)
}

// restore restores a backup into a new directory and expects success.
func restore(tb testing.TB, root archive.Root, source archive.Source, key *format.Key) (string, archive.Report, *archive.Index) {
	tb.Helper()
	dir := tb.TempDir()
	report, index, err := archive.Restore(tb.Context(), root, dir, archive.RestoreOptions{Source: source, Key: key})
	NewWithT(tb).Expect(err).NotTo(HaveOccurred())
	return dir, report, index
}

// text returns content that does not repeat.
func text(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%x\n", sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	return b.String()[:n]
}
