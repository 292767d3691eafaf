package archive

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Digest reads a tree completely and writes nothing. Its report is the one that Create would give.
func Digest(ctx context.Context, dir string) (Report, error) {
	return build(ctx, dir, nil, nil)
}

// treeDigest collects one checksum per path, in the order of the walk. A path that comes again keeps its place.
type treeDigest struct{ records [][sha256.Size]byte }

// add returns the place of the record, for replace.
func (d *treeDigest) add(record [sha256.Size]byte) int {
	d.records = append(d.records, record)
	return len(d.records) - 1
}

func (d *treeDigest) replace(place int, record [sha256.Size]byte) { d.records[place] = record }

func (d *treeDigest) sum() string {
	h := sha256.New()
	for i := range d.records {
		h.Write(d.records[i][:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// record is the checksum of everything about one path. Every field has its length in front, so that no two different
// files have the same encoding. A hard link is its name and the name of the first of its group, nothing else.
func (m *meta) record(content [sha256.Size]byte) [sha256.Size]byte {
	b := append(make([]byte, 0, 512), m.kind)
	b = appendString(b, m.path)
	b = appendString(b, m.target)
	if m.kind == tar.TypeLink {
		return sha256.Sum256(b)
	}
	for _, n := range []uint64{uint64(m.mode), uint64(m.uid), uint64(m.gid), uint64(m.sec), uint64(m.nsec)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	if m.kind == tar.TypeReg {
		b = binary.BigEndian.AppendUint64(b, uint64(m.size))
		b = append(b, content[:]...)
	}
	for _, a := range m.xattrs {
		b = appendString(appendString(b, a.name), a.value)
	}
	return sha256.Sum256(b)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}
