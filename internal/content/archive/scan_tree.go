package archive

import (
	"bytes"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// rowFlags say what became of a row.
type rowFlags uint8

const (
	rowLinked     rowFlags = 1 << iota // its inode has other names
	rowSparse                          // fewer blocks are allocated than its size needs
	rowTodo                            // it has to be read
	rowGone                            // it vanished after the scan
	rowUnreadable                      // it could not be read
	rowChanged                         // it never held still while it was read
	rowFollower                        // the row of another name of its inode says what it is
	rowSuspect                         // whatever the next scan finds, it is to be read again
)

// row is a name that is not a directory, or a directory's attributes. There is one for every file of a tree, so it is small
// and has no pointers.
type row struct {
	size        int64
	ino         uint64
	sec, csec   int64 // of mtime and ctime
	nsec, cnsec uint32
	uid, gid    uint32
	name        uint32 // where it begins in the names of the directory
	place       uint32 // of a file's content, see [places]; 0 if it has none
	extra       uint32 // index into the extras of the tree; 0 if it has none
	mode        uint16 // with the type
	nameLen     uint8
	flags       rowFlags
}

func (r *row) has(f rowFlags) bool { return r.flags&f != 0 }

func (r *row) kind() uint16 { return r.mode & unix.S_IFMT }

func (r *row) isFile() bool { return r.kind() == unix.S_IFREG }

// set takes over what statx says.
func (r *row) set(st *unix.Statx_t, tree *scanTree) {
	r.size, r.mode, r.uid, r.gid = int64(st.Size), st.Mode, st.Uid, st.Gid
	r.sec, r.nsec, r.csec, r.cnsec = st.Mtime.Sec, st.Mtime.Nsec, st.Ctime.Sec, st.Ctime.Nsec
	r.ino = tree.inode(st)
	r.flags &^= rowLinked | rowSparse
	if !r.isFile() {
		r.size = 0
	}
	if st.Nlink > 1 && r.kind() != unix.S_IFDIR {
		r.flags |= rowLinked
	}
	if r.isFile() && st.Blocks*512 < st.Size {
		r.flags |= rowSparse
	}
}

// sameState reports whether nothing has happened to the inode between two looks.
func (r *row) sameState(o *row) bool {
	return r.size == o.size && r.mode == o.mode && r.ino == o.ino && r.uid == o.uid && r.gid == o.gid &&
		r.sec == o.sec && r.nsec == o.nsec && r.csec == o.csec && r.cnsec == o.cnsec
}

// dirNode is a directory of a scanned tree.
type dirNode struct {
	parent   *dirNode
	name     string
	self     row
	rows     []row      // ascending by name
	names    []byte     // of the rows, each ends with a zero byte
	dirs     []*dirNode // ascending by name
	problems []problem
	late     []lateRow
	hash     format.PathHash
	depth    int32
	pathLen  int32
	gone     bool // it is not there, or is no directory
}

// problem is something that is not kept, and why. Without an error it is a socket or a device.
type problem struct {
	name string // empty: the directory itself
	err  error
}

// lateRow is a name that turned out not to be a directory that can be read.
type lateRow struct {
	name string
	row  row
}

func (d *dirNode) nameOf(r *row) []byte { return d.names[r.name : r.name+uint32(r.nameLen)] }

// path appends the path of a directory to b.
func (d *dirNode) path(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, d.pathLen)...)
	end := len(b)
	for x := d; x.parent != nil; x = x.parent {
		end -= copy(b[end-len(x.name):end], x.name)
		if end > start {
			end--
			b[end] = '/'
		}
	}
	return b
}

// pathAfter returns the path of a directory, given that of the one before it in the order of the tree. Only what is new
// is written, or deep trees would take time with the square of their depth.
func (d *dirNode) pathAfter(before []byte) []byte {
	if d.parent == nil {
		return before[:0]
	}
	b := before[:d.parent.pathLen]
	if len(b) > 0 {
		b = append(b, '/')
	}
	return append(b, d.name...)
}

// scanTree is what a scan has found.
type scanTree struct {
	root  *dirNode
	fd    int    // of the root
	dev   uint64 // device number of the root
	id    uint64 // see [identity]
	began time.Time
	order []*dirNode // in tree order
	count int        // of rows, directories excluded
	usage DiskUsage

	rootXattrs []format.Xattr
	rootErr    error
}

// inode is the number of an inode, made different for those of other filesystems that look like part of this one.
func (t *scanTree) inode(st *unix.Statx_t) uint64 {
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	if dev == t.dev {
		return st.Ino
	}
	return st.Ino ^ (dev^t.dev)*0x9e3779b97f4a7c15
}

func (t *scanTree) close() { _ = unix.Close(t.fd) }

// settle puts the directories in order and the late rows in their places.
func (t *scanTree) settle() {
	stack := []*dirNode{t.root}
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if len(d.late) > 0 {
			d.mergeLate()
		}
		t.order = append(t.order, d)
		t.count += len(d.rows)
		for _, sub := range slices.Backward(d.dirs) {
			if !sub.gone {
				stack = append(stack, sub)
			}
		}
	}
}

// mergeLate inserts rows by their names.
func (d *dirNode) mergeLate() {
	for _, l := range d.late {
		l.row.name, l.row.nameLen = uint32(len(d.names)), uint8(len(l.name))
		d.names = append(append(d.names, l.name...), 0)
		d.rows = append(d.rows, l.row)
	}
	d.late = nil
	slices.SortFunc(d.rows, func(a, b row) int { return bytes.Compare(d.nameOf(&a), d.nameOf(&b)) })
}

const (
	byteSlab = 256 << 10
	rowSlab  = 2048
	nodeSlab = 64
)

// slabs hand out memory of which the garbage collector need not know every piece.
type slabs struct {
	b slab[byte]
	r slab[row]
	n slab[dirNode]
}

func (s *slabs) bytes(n int) []byte { return s.b.take(n, byteSlab) }

func (s *slabs) rows(n int) []row { return s.r.take(n, rowSlab) }

func (s *slabs) node() *dirNode { return &s.n.take(1, nodeSlab)[0] }

// slab is what is left of the last piece of memory.
type slab[T any] []T

// take returns n of them; what is large gets memory of its own, of the rest size of them lie together.
func (s *slab[T]) take(n, size int) []T {
	if n > size/8 {
		return make([]T, n)
	}
	if n > len(*s) {
		*s = make([]T, size)
	}
	out := (*s)[:n:n]
	*s = (*s)[n:]
	return out
}
