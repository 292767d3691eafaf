package format

import (
	"bytes"
)

// pageDecoder takes a page apart. Its columns are read side by side, row by row.
type pageDecoder struct {
	cols    [pageColumns]reader
	counts  [pageCounts]uint64
	page    *Page
	classes []class
	sets    [][]Xattr
	entries []Entry // not given to a directory yet
	paths   pathReader
	extras  []Extra // a slab; its elements never move
	sec     int64   // time of the row before
	nsec    uint32
	frame   uint32 // where the content before lies
	end     uint32
}

// DecodePage decodes a raw page; nothing of it is kept. Rows with equal extended attributes share them.
func DecodePage(raw []byte) (*Page, error) {
	d := &pageDecoder{page: &Page{}}
	if len(raw) > MaxPageRaw {
		return nil, damaged("page", "%d bytes are more than %d", len(raw), MaxPageRaw)
	}
	if err := readColumns("page", raw, d.counts[:], d.cols[:]); err != nil {
		return nil, err
	}
	if err := d.prepare(); err != nil {
		return nil, err
	}
	if err := d.rows(); err != nil {
		return nil, err
	}
	if err := d.page.check(); err != nil {
		return nil, damaged("page", "%v", err)
	}
	return d.page, nil
}

// prepare reads what rows refer to, and takes the memory for them.
func (d *pageDecoder) prepare() error {
	n, c := &d.counts, &d.cols
	if n[numDirs] < 1 || n[numDirs] > MaxPageRows || n[numEntries] > MaxPageRows-n[numDirs] {
		return damaged("page", "it has %d directories and %d entries", n[numDirs], n[numEntries])
	}
	if rows := n[numDirs] + n[numEntries]; n[numClasses] > rows || n[numSets] > rows {
		return damaged("page", "it has more classes or sets than rows")
	}
	if uint64(len(c[colShared].b)) != n[numEntries] {
		return damaged("page", "its names do not fit the number of entries")
	}
	var err error
	d.page.Frames, err = readFrames("page", n[numPacks], n[numFrames], c[colPacks], c[colFrames], c[colFrameHashes])
	if err != nil {
		return err
	}
	c[colPacks], c[colFrames], c[colFrameHashes] = reader{}, reader{}, reader{}
	if err := d.readClasses(); err != nil {
		return err
	}
	if err := d.readSets(); err != nil {
		return err
	}
	d.page.Dirs, d.entries = make([]Dir, n[numDirs]), make([]Entry, n[numEntries])
	if !d.paths.measure(c[colDirs], c[colPaths], len(d.page.Dirs), 2, MaxPagePaths) {
		return damaged("page", "its directories do not fit, or their paths are too long")
	}
	return d.readNames()
}

func (d *pageDecoder) readClasses() error {
	d.classes = make([]class, d.counts[numClasses])
	r := &d.cols[colClasses]
	for i := range d.classes {
		c := class{tag: r.byte(), mode: uint16(r.upTo(modePartial | maxMode)), uid: uint32(r.upTo(1<<32 - 1)), gid: uint32(r.upTo(1<<32 - 1))}
		if kind := c.tag & tagKind; kind > byte(KindWhiteout) {
			return unsupported("page", "it has entries of kind %d", kind)
		}
		d.classes[i] = c
	}
	return nil
}

func (d *pageDecoder) readSets() error {
	r := &d.cols[colXattrs]
	copied := reader{b: bytes.Clone(r.b)} // what is returned does not lie in the caller's memory
	r.at = len(r.b)
	d.sets = make([][]Xattr, d.counts[numSets])
	total := uint64(0)
	for i := range d.sets {
		n := copied.uvarint()
		total += min(n, MaxXattrRows+1)
		if n < 1 || n > uint64(copied.left()) || total > MaxXattrRows {
			return damaged("page", "it has a set of %d extended attributes", n)
		}
		set := make([]Xattr, n)
		for j := range set {
			set[j].Name = string(copied.bytes(copied.upTo(MaxXattrName)))
			set[j].Value = copied.bytes(copied.upTo(MaxXattr))
		}
		d.sets[i] = set
	}
	if !copied.done() {
		return damaged("page", "its extended attributes do not fit")
	}
	return nil
}

func (d *pageDecoder) rows() error {
	for i := range d.page.Dirs {
		dir := &d.page.Dirs[i]
		dir.Path = d.paths.next(&d.cols[colDirs], &d.cols[colPaths])
		n := d.cols[colDirs].upTo(uint64(len(d.entries)))
		d.dir(dir)
		dir.Entries, d.entries = d.entries[:n:n], d.entries[n:]
		for j := range dir.Entries {
			d.entry(&dir.Entries[j])
		}
	}
	return d.finish()
}

// readNames names the entries. The names lie one after the other in one piece of memory.
func (d *pageDecoder) readNames() error {
	same, rest := d.cols[colShared].b, &d.cols[colNames]
	total := len(rest.b)
	for _, n := range same {
		total += int(n)
	}
	memory, ends := make([]byte, 0, total), make([]int32, len(same))
	start := 0 // of the name before
	for i, n := range same {
		end := len(memory)
		if int(n) > end-start {
			return damaged("page", "entry %d shares more with the name before than it has", i)
		}
		memory = append(memory, memory[start:start+int(n)]...)
		memory = append(memory, rest.text()...)
		start, ends[i] = end, int32(len(memory))
	}
	names, begin := string(memory), int32(0)
	for i, end := range ends {
		d.entries[i].Name = names[begin:end]
		begin = end
	}
	d.cols[colShared].at = len(same)
	return nil
}

func (d *pageDecoder) dir(dir *Dir) {
	c := d.class(colDirs)
	dir.Continued = c.tag&tagContinued != 0
	if c.tag&^(tagContinued|tagXattrs) != 0 || dir.Continued && c != (class{tag: tagContinued}) {
		d.cols[colDirs].bad = true
		return
	}
	if !dir.Continued {
		d.meta(c, &dir.Meta)
	}
}

// class reads the number of a class from a column.
func (d *pageDecoder) class(col int) class {
	r := &d.cols[col]
	i := r.uvarint()
	if i >= uint64(len(d.classes)) {
		r.bad = true
		return class{}
	}
	return d.classes[i]
}

func (d *pageDecoder) entry(e *Entry) {
	c := d.class(colEntries)
	e.Kind = Kind(c.tag & tagKind)
	if c.tag&tagUnreadable != 0 {
		e.Flags |= FlagUnreadable
	}
	if c.tag&tagChanged != 0 {
		e.Flags |= FlagChanged
	}
	d.meta(c, &e.Meta)
	switch {
	case e.Flags&FlagUnreadable != 0:
	case e.Kind == KindFile:
		d.content(e, c.tag)
		return
	case e.Kind == KindSymlink:
		r := &d.cols[colTargets]
		d.extra(&e.Meta).Target = string(r.bytes(r.upTo(MaxTarget)))
	}
	if c.tag&tagPieces != 0 {
		d.cols[colPieces].bad = true
	}
}

// meta reads what depends on the row.
func (d *pageDecoder) meta(c class, m *Meta) {
	d.sec += d.cols[colSeconds].signed()
	nsec := int64(d.nsec) + d.cols[colNanoseconds].signed()
	d.nsec = uint32(nsec)
	if nsec < 0 || nsec > maxNsec {
		d.cols[colNanoseconds].bad = true
	}
	m.Mode, m.UID, m.GID, m.Sec, m.Nsec = c.mode&maxMode, c.uid, c.gid, d.sec, d.nsec
	m.Partial = c.mode&modePartial != 0
	if c.tag&tagXattrs != 0 {
		r := &d.cols[colSets]
		i := r.uvarint()
		if i >= uint64(len(d.sets)) {
			r.bad = true
			return
		}
		d.extra(m).Xattrs = d.sets[i]
	}
	if c.tag&tagGroup != 0 {
		d.extra(m).Group = d.group()
	}
}

func (d *pageDecoder) group() uint64 {
	r := &d.cols[colGroups]
	var v uint64
	for i, b := range r.bytes(8) {
		v |= uint64(b) << (8 * i)
	}
	r.bad = r.bad || v == 0
	return v
}

func (d *pageDecoder) extra(m *Meta) *Extra {
	if m.Extra == nil {
		if len(d.extras) == cap(d.extras) {
			d.extras = make([]Extra, 0, 16)
		}
		d.extras = append(d.extras, Extra{})
		m.Extra = &d.extras[len(d.extras)-1]
	}
	return m.Extra
}

func (d *pageDecoder) content(e *Entry, tag byte) {
	e.Size = int64(d.cols[colSizes].upTo(1<<63 - 1))
	if e.Size == 0 {
		if tag&tagPieces != 0 {
			d.cols[colPieces].bad = true
		}
		return
	}
	d.cols[colHashes].hash(&e.Hash)
	if tag&tagPieces == 0 {
		if e.Size > BlockSize {
			d.cols[colSizes].bad = true
			return
		}
		e.Frame, e.Off = d.place(colPlaces, uint32(e.Size))
		return
	}
	r := &d.cols[colPieces]
	n := r.upTo(uint64(d.cols[colHashes].left() / hashSize)) // every piece has its hash, so memory is in proportion
	pieces := make([]Piece, n)
	at := int64(0)
	for i := range pieces {
		p := &pieces[i]
		p.At = at + int64(r.upTo(uint64(e.Size-at)))
		p.Len = uint32(r.upTo(uint64(min(e.Size-p.At, maxStretch))))
		p.Frame, p.Off = d.place(colPieces, p.Len)
		d.cols[colHashes].hash(&p.Hash)
		at = p.At + int64(p.Len)
	}
	d.extra(&e.Meta).Pieces = pieces
}

// place reads where content of that length lies.
func (d *pageDecoder) place(col int, length uint32) (frame, off uint32) {
	r := &d.cols[col]
	v := r.uvarint()
	delta := int64(v>>2) ^ -int64(v>>1&1)
	if delta != 0 {
		d.frame, d.end = uint32(int64(d.frame)+delta), 0
	}
	off = d.end
	if v&1 != 0 {
		off = uint32(r.upTo(1<<32 - 1))
	}
	d.end = off + length
	return d.frame, off
}

// finish checks that all columns were read to their ends.
func (d *pageDecoder) finish() error {
	if len(d.entries) > 0 {
		return damaged("page", "%d entries are in no directory", len(d.entries))
	}
	for i := range d.cols {
		if !d.cols[i].done() {
			return damaged("page", "column %d does not fit", i)
		}
	}
	return nil
}
