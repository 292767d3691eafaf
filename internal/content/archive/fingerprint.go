package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"time"
)

// Fingerprint tells cheaply whether a tree on this node may have changed: equal sums mean that no inode was touched.
// It opens no files. Sums of different nodes, or before and after a restore, have nothing to do with each other.
//
// A filesystem's clock has ticks: a change in the same tick as the last look leaves no trace. So an equal sum means
// "unchanged" only if newest, the newest ctime, is clearly older than the start of the earlier look. An mtime says nothing:
// anybody can set it, into the future, too.
func Fingerprint(ctx context.Context, dir string) (sum string, newest time.Time, err error) {
	tree, err := scan(ctx, dir)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("fingerprint %s: %w", dir, err)
	}
	defer tree.close()
	f := &fingerprint{hash: sha256.New()}
	for _, d := range tree.order {
		if err := f.dir(tree, d); err != nil {
			return "", time.Time{}, fmt.Errorf("fingerprint %s: %w", dir, err)
		}
	}
	return hex.EncodeToString(f.hash.Sum(nil)), f.newest, nil
}

type fingerprint struct {
	hash   hash.Hash
	newest time.Time
	buf    []byte
}

// dir leaves out the size of a directory, which depends on history, and the root's ctime, which changes when the root is renamed.
// A changed attribute shows in the ctime; for the root the attributes themselves are taken.
func (f *fingerprint) dir(tree *scanTree, d *dirNode) error {
	self := d.self
	self.size = 0
	if d.parent == nil {
		if tree.rootErr != nil {
			return tree.rootErr
		}
		self.csec, self.cnsec = 0, 0
		for _, x := range tree.rootXattrs {
			f.text([]byte(x.Name))
			f.text(x.Value)
		}
	}
	f.text(d.path(nil))
	f.row(&self)
	for i := range d.rows {
		f.text(d.nameOf(&d.rows[i]))
		f.row(&d.rows[i])
	}
	for _, p := range d.problems {
		if p.err != nil {
			return fmt.Errorf("look at %s: %w", display(string(d.path(nil))+"/"+p.name), p.err)
		}
		f.text([]byte(p.name))
	}
	return nil
}

func (f *fingerprint) text(b []byte) {
	f.hash.Write(binary.BigEndian.AppendUint32(f.buf[:0], uint32(len(b))))
	f.hash.Write(b)
}

func (f *fingerprint) row(r *row) {
	if r.csec != 0 || r.cnsec != 0 {
		if t := time.Unix(r.csec, int64(r.cnsec)); t.After(f.newest) {
			f.newest = t
		}
	}
	b := f.buf[:0]
	for _, n := range []uint64{
		uint64(r.size), r.ino, uint64(r.sec), uint64(r.csec), uint64(r.nsec), uint64(r.cnsec),
		uint64(r.uid), uint64(r.gid), uint64(r.mode), uint64(r.flags & rowLinked),
	} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	f.hash.Write(b)
	f.buf = b
}
