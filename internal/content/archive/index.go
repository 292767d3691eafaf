package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// racyWindow is how far the time of a change may lie behind the clock: filesystems take the time of the last tick. Some count
// whole seconds only, or pairs of them: a time without a fraction may be one of theirs.
const (
	racyWindow   = 30 * time.Millisecond
	coarseWindow = 2 * time.Second
)

// Index is what this node knows about the tree that a backup was made of, or restored to: which inode every row of the
// manifest was, and when it had last changed. It carries the manifest's pages as well, so that finding out that nothing
// has changed needs no request. It is worth nothing on another node.
type Index struct {
	table  []byte   // of the root that it describes
	pages  [][]byte // as they are stored, in the order of the table
	tree   uint64   // see [identity]
	stamps []stamp  // of every row, see [Tree]
}

// stamp identifies the state of an inode: as long as it stays, so does everything else.
type stamp struct {
	ino  uint64
	sec  int64  // of the ctime
	nsec uint32 // of the ctime
	racy bool   // it may have changed without leaving a trace: it is to be read again
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{ino: st.Ino, sec: st.Ctim.Sec, nsec: uint32(st.Ctim.Nsec)}
}

// newIndex returns an index of a root whose rows are all unknown. pages are the stored frames of the pages in order.
func newIndex(table []byte, pages [][]byte, tree uint64, rows int) *Index {
	ix := &Index{table: table, pages: pages, tree: tree, stamps: make([]stamp, rows)}
	for i := range ix.stamps {
		ix.stamps[i].racy = true
	}
	return ix
}

// seal marks the rows that may change, or may have changed, within the tick in which they were looked at, or later.
func (ix *Index) seal(look time.Time) {
	ix.distrust(look.Add(-racyWindow), false)
	ix.distrust(look.Add(-coarseWindow), true)
}

// distrust marks the rows that have changed at a time or later: all, or those without a fraction of a second.
func (ix *Index) distrust(since time.Time, whole bool) {
	sec, nsec := since.Unix(), uint32(since.Nanosecond())
	for i := range ix.stamps {
		s := &ix.stamps[i]
		if (s.nsec == 0 || !whole) && (s.sec > sec || s.sec == sec && s.nsec >= nsec) {
			s.racy = true
		}
	}
}

// describes reports whether the index is one of that root.
func (ix *Index) describes(root *Root) bool {
	return ix != nil && root != nil && len(root.Table) > 0 && bytes.Equal(ix.table, root.Table)
}

// The file: magic, five numbers, table, lengths of the pages, stamps, pages, SHA-256 of all before.
const (
	indexMagic  = "wsd-index-1\n"
	indexHeader = len(indexMagic) + 4*8
	indexBuffer = 64 << 10
	stampSize   = 8 + 8 + 4
	racyBit     = 1 << 31
)

var errIndex = errors.New("the index is damaged: it is made again by the next backup, which reads everything")

// Save writes the index to a file, all of it or nothing.
func (ix *Index) Save(path string) (err error) {
	tmp := path + ".tmp" // always the same name, so that crashes leave one at most
	_ = os.Remove(tmp)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("save index: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("save index: %w", err)
		}
	}()
	if err = ix.write(f); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	faults.Point("archive.index.written")
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write writes the file, piece by piece: all of it at once would take as much memory again.
func (ix *Index) write(f io.Writer) error {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), indexBuffer)
	b := []byte(indexMagic)
	for _, n := range []uint64{ix.tree, uint64(len(ix.table)), uint64(len(ix.pages)), uint64(len(ix.stamps))} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	_, _ = w.Write(b) // Flush tells of the first error
	_, _ = w.Write(ix.table)
	for _, p := range ix.pages {
		_, _ = w.Write(binary.LittleEndian.AppendUint32(b[:0], uint32(len(p))))
	}
	for i := range ix.stamps {
		_, _ = w.Write(ix.stamps[i].encode(b[:0]))
	}
	for _, p := range ix.pages {
		_, _ = w.Write(p)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := f.Write(sum.Sum(nil))
	return err
}

func (s *stamp) encode(b []byte) []byte {
	nsec := s.nsec
	if s.racy {
		nsec |= racyBit
	}
	b = binary.LittleEndian.AppendUint64(b, s.ino)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.sec))
	return binary.LittleEndian.AppendUint32(b, nsec)
}

func (s *stamp) decode(b []byte) {
	nsec := binary.LittleEndian.Uint32(b[16:])
	s.ino, s.sec = binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))
	s.nsec, s.racy = nsec&^racyBit, nsec&racyBit != 0
}

// LoadIndex reads what [Index.Save] wrote. Whatever is wrong with it is no reason to stop: without an index everything is
// read again.
func LoadIndex(path string) (*Index, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load index: %w", err)
	}
	ix, err := decodeIndex(b)
	if err != nil {
		return nil, fmt.Errorf("load index %s: %w", path, err)
	}
	return ix, nil
}

func decodeIndex(b []byte) (*Index, error) {
	if len(b) < indexHeader+sha256.Size || string(b[:len(indexMagic)]) != indexMagic {
		return nil, errIndex
	}
	body := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, errIndex
	}
	var n [4]uint64
	for i := range n {
		n[i] = binary.LittleEndian.Uint64(body[len(indexMagic)+8*i:])
	}
	rest := body[indexHeader:]
	if n[1] > math.MaxInt32 || n[2] > math.MaxInt32 || n[3] > math.MaxInt32 || n[1]+4*n[2]+stampSize*n[3] > uint64(len(rest)) {
		return nil, errIndex
	}
	ix := &Index{tree: n[0], table: rest[:n[1]:n[1]], pages: make([][]byte, n[2]), stamps: make([]stamp, n[3])}
	lengths := rest[n[1]:]
	rest = lengths[4*n[2]:]
	for i := range ix.stamps {
		ix.stamps[i].decode(rest[stampSize*i:])
	}
	rest = rest[stampSize*n[3]:]
	for i := range ix.pages {
		size := uint64(binary.LittleEndian.Uint32(lengths[4*i:]))
		if size > uint64(len(rest)) {
			return nil, errIndex
		}
		ix.pages[i], rest = rest[:size:size], rest[size:]
	}
	if len(rest) != 0 {
		return nil, errIndex
	}
	return ix, nil
}
