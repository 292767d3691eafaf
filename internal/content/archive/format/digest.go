package format

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Digester computes the digest of a tree from its rows in tree order: equal for equal trees, wherever they are stored.
type Digester struct {
	sum hash.Hash
	buf []byte
}

// digestBuffer is the size at which rows are hashed, in bytes.
const digestBuffer = 32 << 10

// NewDigester returns one at the beginning of a tree.
func NewDigester() *Digester {
	return &Digester{sum: sha256.New(), buf: append(make([]byte, 0, digestBuffer+4096), treePrefix...)}
}

// Dir adds a directory; a continued one adds nothing.
func (d *Digester) Dir(dir *Dir) {
	if dir.Continued {
		return
	}
	d.text('D', dir.Path)
	d.meta(&dir.Meta)
	d.flush()
}

// Entry adds an entry of the directory that was added last. Of one that could not be read only the name counts.
func (d *Digester) Entry(e *Entry) {
	if e.Flags&FlagUnreadable != 0 {
		d.text('U', e.Name)
		return
	}
	d.text("?FLPW"[e.Kind], e.Name)
	d.meta(&e.Meta)
	if e.Kind == KindFile {
		d.buf = binary.AppendUvarint(d.buf, uint64(e.Size))
		d.buf = append(d.buf, e.Hash[:]...)
	}
	d.flush()
}

// Sum is the digest of all rows added.
func (d *Digester) Sum() Hash {
	d.sum.Write(d.buf)
	d.buf = d.buf[:0]
	return Hash(d.sum.Sum(nil))
}

// text writes the type of a row and a name with its length.
func (d *Digester) text(kind byte, s string) {
	d.buf = binary.AppendUvarint(append(d.buf, kind), uint64(len(s)))
	d.buf = append(d.buf, s...)
}

func (d *Digester) meta(m *Meta) {
	b := binary.AppendUvarint(d.buf, uint64(m.Mode))
	b = binary.AppendUvarint(b, uint64(m.UID))
	b = binary.AppendUvarint(b, uint64(m.GID))
	b = appendSigned(b, m.Sec)
	d.buf = binary.AppendUvarint(b, uint64(m.Nsec))
	x := m.Extra
	if x == nil {
		d.buf = append(d.buf, 0, 0, 0)
		return
	}
	d.buf = binary.AppendUvarint(d.buf, uint64(len(x.Xattrs)))
	for _, a := range x.Xattrs {
		d.buf = append(binary.AppendUvarint(d.buf, uint64(len(a.Name))), a.Name...)
		d.buf = append(binary.AppendUvarint(d.buf, uint64(len(a.Value))), a.Value...)
	}
	d.buf = append(binary.AppendUvarint(d.buf, uint64(len(x.Target))), x.Target...)
	d.buf = binary.AppendUvarint(d.buf, x.Group)
}

func (d *Digester) flush() {
	if len(d.buf) >= digestBuffer {
		d.sum.Write(d.buf)
		d.buf = d.buf[:0]
	}
}
