package format

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// pageEncoder keeps the memory of one page for the next.
type pageEncoder struct {
	cols    columns
	frames  frameWriter
	locals  []uint32 // by index of p.Frames: 1 more than the index in the encoded page, 0 if it has none yet
	used    []uint32 // indexes of p.Frames in the order of first use
	classes map[class]uint64
	recent  class // the class of the row before, and its number
	number  uint64
	sets    map[string]uint64
	set     []byte
	sec     int64 // time of the row before
	nsec    uint32
	frame   uint32 // where the content before lies
	end     uint32
	raw     []byte
}

func (e *pageEncoder) reset(p *Page) {
	if e.cols == nil {
		e.cols = make(columns, pageColumns)
		e.classes, e.sets = map[class]uint64{}, map[string]uint64{}
	}
	for i := range e.cols {
		e.cols[i] = e.cols[i][:0]
	}
	for _, i := range e.used {
		e.locals[i] = 0
	}
	e.used = e.used[:0]
	if n := len(p.Frames); n > len(e.locals) {
		e.locals = make([]uint32, n+n/2)
	}
	e.frames.reset()
	clear(e.classes)
	clear(e.sets)
	e.recent = class{tag: tagKind} // is none
	e.sec, e.nsec, e.frame, e.end = 0, 0, 0, 0
}

// encode returns the raw page.
func (e *pageEncoder) encode(p *Page) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("encode page: %w", err)
	}
	raw := e.write(p)
	if len(raw) > MaxPageRaw {
		return nil, fmt.Errorf("encode page: %d bytes are more than %d", len(raw), MaxPageRaw)
	}
	return raw, nil
}

// write returns the raw page, whatever is in it.
func (e *pageEncoder) write(p *Page) []byte {
	e.reset(p)
	entries, prev, name := 0, "", ""
	for i := range p.Dirs {
		d := &p.Dirs[i]
		e.dir(prev, d)
		prev = d.Path
		entries += len(d.Entries)
		for j := range d.Entries {
			e.entry(p, name, &d.Entries[j])
			name = d.Entries[j].Name
		}
	}
	f := &e.frames
	e.cols[colPacks], e.cols[colFrames], e.cols[colFrameHashes] = f.ids, f.rows, f.sums
	counts := []uint64{numPacks: uint64(len(f.packs)), numFrames: uint64(f.count), numClasses: uint64(len(e.classes)),
		numSets: uint64(len(e.sets)), numDirs: uint64(len(p.Dirs)), numEntries: uint64(entries)}
	e.raw = appendColumns(e.raw[:0], counts, e.cols)
	return e.raw
}

func (e *pageEncoder) dir(prev string, d *Dir) {
	n := shared(prev, d.Path)
	c := class{tag: tagContinued}
	if !d.Continued {
		c = classOf(0, &d.Meta)
	}
	b := binary.AppendUvarint(e.cols[colDirs], uint64(n))
	b = binary.AppendUvarint(b, uint64(len(d.Entries)))
	e.cols[colDirs] = binary.AppendUvarint(b, e.class(c))
	e.cols[colPaths] = append(append(e.cols[colPaths], d.Path[n:]...), 0)
	if !d.Continued {
		e.meta(c.tag, &d.Meta)
	}
}

func classOf(tag byte, m *Meta) class {
	if m.Extra != nil {
		if len(m.Extra.Xattrs) > 0 {
			tag |= tagXattrs
		}
		if m.Extra.Group != 0 {
			tag |= tagGroup
		}
		if m.Extra.Pieces != nil {
			tag |= tagPieces
		}
	}
	mode := m.Mode
	if m.Partial {
		mode |= modePartial
	}
	return class{tag: tag, mode: mode, uid: m.UID, gid: m.GID}
}

// class returns the number of a class, which is the next one if it is new.
func (e *pageEncoder) class(c class) uint64 {
	if c == e.recent {
		return e.number
	}
	n, ok := e.classes[c]
	if !ok {
		n = uint64(len(e.classes))
		e.classes[c] = n
		b := append(e.cols[colClasses], c.tag)
		b = binary.AppendUvarint(b, uint64(c.mode))
		b = binary.AppendUvarint(b, uint64(c.uid))
		e.cols[colClasses] = binary.AppendUvarint(b, uint64(c.gid))
	}
	e.recent, e.number = c, n
	return n
}

func (e *pageEncoder) entry(p *Page, prev string, n *Entry) {
	s := shared(prev, n.Name)
	e.cols[colShared] = append(e.cols[colShared], byte(s))
	e.cols[colNames] = append(append(e.cols[colNames], n.Name[s:]...), 0)
	tag := byte(n.Kind)
	if n.Flags&FlagUnreadable != 0 {
		tag |= tagUnreadable
	}
	if n.Flags&FlagChanged != 0 {
		tag |= tagChanged
	}
	c := classOf(tag, &n.Meta)
	e.cols[colEntries] = binary.AppendUvarint(e.cols[colEntries], e.class(c))
	e.meta(c.tag, &n.Meta)
	if n.Kind == KindFile && n.Flags&FlagUnreadable == 0 {
		e.content(p, n)
	}
}

// meta writes what depends on the row.
func (e *pageEncoder) meta(tag byte, m *Meta) {
	e.cols[colSeconds] = appendSigned(e.cols[colSeconds], m.Sec-e.sec)
	e.cols[colNanoseconds] = appendSigned(e.cols[colNanoseconds], int64(m.Nsec)-int64(e.nsec))
	e.sec, e.nsec = m.Sec, m.Nsec
	if m.Extra == nil {
		return
	}
	if tag&tagXattrs != 0 {
		e.cols[colSets] = binary.AppendUvarint(e.cols[colSets], e.setOf(m.Extra.Xattrs))
	}
	if tag&tagGroup != 0 {
		e.cols[colGroups] = binary.LittleEndian.AppendUint64(e.cols[colGroups], m.Extra.Group)
	}
	if m.Extra.Target != "" {
		b := binary.AppendUvarint(e.cols[colTargets], uint64(len(m.Extra.Target)))
		e.cols[colTargets] = append(b, m.Extra.Target...)
	}
}

// setOf returns the number of a set of extended attributes, which is the next one if it is new.
func (e *pageEncoder) setOf(xattrs []Xattr) uint64 {
	b := binary.AppendUvarint(e.set[:0], uint64(len(xattrs)))
	for _, a := range xattrs {
		b = append(binary.AppendUvarint(b, uint64(len(a.Name))), a.Name...)
		b = append(binary.AppendUvarint(b, uint64(len(a.Value))), a.Value...)
	}
	e.set = b
	n, ok := e.sets[string(b)]
	if !ok {
		n = uint64(len(e.sets))
		e.sets[string(b)] = n
		e.cols[colXattrs] = append(e.cols[colXattrs], b...)
	}
	return n
}

func (e *pageEncoder) content(p *Page, n *Entry) {
	e.cols[colSizes] = binary.AppendUvarint(e.cols[colSizes], uint64(n.Size))
	if n.Size == 0 {
		return
	}
	e.cols[colHashes] = append(e.cols[colHashes], n.Hash[:]...)
	pieces := n.pieces()
	if pieces == nil {
		e.place(colPlaces, p, n.Frame, n.Off, uint32(n.Size))
		return
	}
	e.cols[colPieces] = binary.AppendUvarint(e.cols[colPieces], uint64(len(pieces)))
	at := int64(0)
	for i := range pieces {
		c := &pieces[i]
		b := binary.AppendUvarint(e.cols[colPieces], uint64(c.At-at))
		e.cols[colPieces] = binary.AppendUvarint(b, uint64(c.Len))
		e.place(colPieces, p, c.Frame, c.Off, c.Len)
		e.cols[colHashes] = append(e.cols[colHashes], c.Hash[:]...)
		at = c.At + int64(c.Len)
	}
}

// place writes where content lies: relative to the frame of the content before, and, if it is the same one, right after
// it; else at the beginning. The lowest bit says that it is elsewhere in the frame, and that the offset follows.
func (e *pageEncoder) place(col int, p *Page, frame, off, length uint32) {
	local := e.local(p, frame)
	expected := uint32(0)
	if local == e.frame {
		expected = e.end
	}
	v := zigzag(int64(local)-int64(e.frame)) << 1
	if off != expected {
		v |= 1
	}
	b := binary.AppendUvarint(e.cols[col], v)
	if off != expected {
		b = binary.AppendUvarint(b, uint64(off))
	}
	e.cols[col] = b
	e.frame, e.end = local, off+length
}

// local is the number of a frame in the encoded page, which has those that are used, in the order of first use.
func (e *pageEncoder) local(p *Page, frame uint32) uint32 {
	if e.locals[frame] == 0 {
		e.frames.add(p.Frames[frame])
		e.used = append(e.used, frame)
		e.locals[frame] = uint32(e.frames.count)
	}
	return e.locals[frame] - 1
}

// Page appends a page as one zstd frame to dst, and returns the length of the raw page, too. Equal pages give equal bytes.
// Frames that no entry uses are left out, so p.Frames may be those of the whole tree; a decoded page has its own, in the
// order of first use. A page that breaks a rule of the format is refused.
func (e *Encoder) Page(dst []byte, p *Page) (zstdFrame []byte, raw int, err error) {
	page, err := e.page.encode(p)
	if err != nil {
		return nil, 0, err
	}
	hashes := e.page.cols.size(firstHash, pageColumns)
	numbers := hashes + e.page.cols.size(firstNumber, firstHash)
	z, err := e.blocks(dst, page, len(page)-numbers, len(page)-hashes)
	return z, len(page), err
}

// blocks compresses to one frame with block boundaries at two places, because texts, numbers and hashes have nothing in
// common that a common code would use.
func (e *Encoder) blocks(dst, raw []byte, first, second int) ([]byte, error) {
	out := appender{dst}
	e.parts.ResetContentSize(&out, int64(len(raw)))
	var err error
	for _, part := range [][]byte{raw[:first], raw[first:second]} {
		_, werr := e.parts.Write(part)
		err = errors.Join(err, werr, e.parts.Flush())
	}
	_, werr := e.parts.Write(raw[second:])
	if err = errors.Join(err, werr, e.parts.Close()); err != nil {
		return nil, fmt.Errorf("compress page: %w", err)
	}
	return out.b, nil
}

// appender writes to memory.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}
