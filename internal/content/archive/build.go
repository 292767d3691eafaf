package archive

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

const (
	// smallFile is read as a whole before anything of it is written, so it can be read again if it changed.
	smallFile = 8 << 20
	chunkSize = 1 << 20
	// maxReads is how often a file that changes is read.
	maxReads = 3
)

// build reads a tree, into an archive unless out is nil.
func build(ctx context.Context, dir string, out *tarWriter, p Progress) (Report, error) {
	root, err := openRoot(dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = unix.Close(root) }()
	b := &builder{root: root, out: out, progress: p, groups: map[inode]*group{}, stop: ctx.Err, openFile: openForRead}
	err = b.run(ctx)
	b.report.Digest = b.digest.sum()
	if err != nil {
		return b.report, fmt.Errorf("read %s: %w", dir, err)
	}
	return b.report, nil
}

// builder is the handler of a walk that reads everything.
type builder struct {
	root     int
	out      *tarWriter // nil: digest only
	progress Progress
	report   Report
	digest   treeDigest
	groups   map[inode]*group
	again    []again
	buf      []byte
	stop     func() error           // the context's error
	openFile func(int) (int, error) // replaced in tests
}

type inode struct{ dev, ino uint64 }

// group is a set of hard links.
type group struct {
	first   string
	st      unix.Stat_t
	members []string // but the first
}

// again is a large file that changed while it was written out.
type again struct {
	path  string
	place int // of its record
	st    unix.Stat_t
	size  int64
}

func (b *builder) run(ctx context.Context) error {
	if err := walk(ctx, b.root, b); err != nil {
		return err
	}
	for range maxReads {
		files := b.again
		b.again = nil
		for _, f := range files {
			if err := b.reread(f); err != nil {
				return err
			}
		}
	}
	for _, f := range b.again {
		b.report.changed(f.path)
	}
	return nil
}

func (b *builder) problem(path string, err error) error {
	b.report.unreadable(path, err)
	return nil
}

func (b *builder) dir(fd int, path string, st *unix.Stat_t) error {
	m := metaOf(path, st, b.attributes(fd, path))
	b.report.Dirs++
	if path != "." { // the root's ctime is that of its last move
		b.report.newest(timeOf(st.Ctim))
	}
	return b.plain(&m)
}

// leaf opens a name without touching what is behind it, and decides by what was opened.
func (b *builder) leaf(parent int, name, path string, _ *unix.Stat_t) error {
	fd, err := openBelow(parent, name, unix.O_PATH)
	if err != nil {
		return b.failed(path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return b.failed(path, err)
	}
	switch fileType(&st) {
	case unix.S_IFDIR:
		return errSwapped
	case unix.S_IFREG, unix.S_IFLNK, unix.S_IFIFO:
	default:
		if !isWhiteout(&st) {
			b.report.skipped(path)
			return nil
		}
	}
	return b.node(fd, path, &st)
}

func (b *builder) failed(path string, err error) error {
	if err := raced(err); err != nil {
		return err
	}
	if errors.Is(err, unix.EXDEV) {
		err = errXDev
	}
	return b.problem(path, err)
}

// node writes a leaf that belongs to the content.
func (b *builder) node(fd int, path string, st *unix.Stat_t) error {
	b.report.newest(timeOf(st.Ctim))
	if first := b.linked(path, st); first != "" {
		b.count(st)
		m := linkOf(path, st, first)
		return b.plain(&m)
	}
	if fileType(st) == unix.S_IFREG {
		return b.regular(fd, path)
	}
	m := metaOf(path, st, nil)
	if m.kind == tar.TypeSymlink {
		target, err := readLink(fd)
		if err != nil {
			return b.failed(path, err)
		}
		m.target = target
	} else {
		m.xattrs = b.attributes(fd, path)
	}
	b.count(st)
	if err := b.plain(&m); err != nil {
		return err
	}
	b.remember(path, st)
	return nil
}

// linkOf describes a further name of a file. It carries the file's mode, owner and times, too: some readers of tar apply
// those of the last name they come upon.
func linkOf(path string, st *unix.Stat_t, first string) meta {
	m := metaOf(path, st, nil)
	m.kind, m.target, m.size = tar.TypeLink, first, 0
	return m
}

func (b *builder) count(st *unix.Stat_t) {
	switch fileType(st) {
	case unix.S_IFREG:
		b.report.Files++
	case unix.S_IFLNK:
		b.report.Links++
	default:
		b.report.Others++
	}
	b.progress.tell(&b.report)
}

// linked returns the name under which the same inode was stored. An inode number can be used again for another file,
// so if anything about the inode has changed, the link is only believed if the other name still leads to it.
func (b *builder) linked(path string, st *unix.Stat_t) string {
	g := b.groups[inode{st.Dev, st.Ino}]
	if st.Nlink < 2 || g == nil {
		return ""
	}
	if !still(&g.st, st) && !b.leadsTo(g.first, st) {
		b.report.changed(path)
		return ""
	}
	g.members = append(g.members, path)
	return g.first
}

func (b *builder) leadsTo(path string, st *unix.Stat_t) bool {
	fd, err := openBelow(b.root, path, unix.O_PATH)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	var now unix.Stat_t
	return unix.Fstat(fd, &now) == nil && now.Dev == st.Dev && now.Ino == st.Ino
}

func (b *builder) remember(path string, st *unix.Stat_t) {
	if st.Nlink > 1 {
		b.groups[inode{st.Dev, st.Ino}] = &group{first: path, st: *st}
	}
}

// still reports whether a file was left alone between two looks.
func still(a, b *unix.Stat_t) bool {
	return a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim && a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid
}

func (b *builder) attributes(fd int, path string) []xattr {
	attrs, err := readXattrs(fd)
	if err != nil {
		b.report.unreadable(path, err)
	}
	return attrs
}

// plain stores an entry without content.
func (b *builder) plain(m *meta) error {
	if m.kind != tar.TypeLink {
		b.report.newest(timeOf(unix.Timespec{Sec: m.sec, Nsec: m.nsec}))
	}
	b.digest.add(m.record([sha256.Size]byte{}))
	return b.out.header(m)
}

// regular stores a file's content. One that cannot be opened is reported and left out.
func (b *builder) regular(pathFD int, path string) error {
	fd, err := b.openFile(pathFD)
	if err != nil {
		return b.problem(path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return b.problem(path, err)
	}
	if st.Size > smallFile {
		return b.large(fd, path, &st)
	}
	return b.small(fd, path)
}

// small reads until the file held still meanwhile.
func (b *builder) small(fd int, path string) error {
	if b.buf == nil {
		b.buf = make([]byte, smallFile+1)
	}
	for try := 1; ; try++ {
		before, data, calm, err := b.attempt(fd)
		if err != nil {
			return b.problem(path, err)
		}
		if len(data) > smallFile {
			return b.large(fd, path, &before)
		}
		if !calm && try < maxReads {
			continue
		}
		if !calm {
			b.report.changed(path)
		}
		return b.whole(fd, path, &before, data)
	}
}

func (b *builder) attempt(fd int) (before unix.Stat_t, data []byte, calm bool, err error) {
	var after unix.Stat_t
	if err = unix.Fstat(fd, &before); err != nil {
		return before, nil, false, err
	}
	if _, err = unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return before, nil, false, err
	}
	// One byte more than expected shows that the file has grown.
	n, err := readFull(fd, b.buf[:min(before.Size+1, smallFile+1)])
	if err != nil {
		return before, nil, false, err
	}
	if err = unix.Fstat(fd, &after); err != nil {
		return before, nil, false, err
	}
	return before, b.buf[:n], still(&before, &after) && int64(n) == before.Size, nil
}

func (b *builder) whole(fd int, path string, st *unix.Stat_t, data []byte) error {
	m := metaOf(path, st, b.attributes(fd, path))
	m.size = int64(len(data))
	b.report.newest(timeOf(st.Mtim), timeOf(st.Ctim))
	b.report.Bytes += m.size
	b.count(st)
	b.digest.add(m.record(sha256.Sum256(data)))
	b.remember(path, st)
	if err := b.out.header(&m); err != nil {
		return err
	}
	return b.out.write(data)
}

// large streams a file whose size is fixed by its header. If it changes meanwhile, it is written again at the end.
func (b *builder) large(fd int, path string, st *unix.Stat_t) error {
	b.count(st)
	b.remember(path, st)
	place := b.digest.add([sha256.Size]byte{})
	return b.stream(fd, path, st, place)
}

func (b *builder) stream(fd int, path string, st *unix.Stat_t, place int) error {
	m := metaOf(path, st, b.attributes(fd, path))
	b.report.newest(timeOf(st.Mtim), timeOf(st.Ctim))
	b.report.Bytes += m.size
	if err := b.out.header(&m); err != nil {
		return err
	}
	sum := sha256.New()
	short, err := b.copy(fd, path, m.size, sum)
	if err != nil {
		return err
	}
	b.digest.replace(place, m.record([sha256.Size]byte(sum.Sum(nil))))
	var after unix.Stat_t
	if err := unix.Fstat(fd, &after); err != nil {
		return b.problem(path, err)
	}
	if short || !still(st, &after) {
		b.again = append(b.again, again{path: path, place: place, st: *st, size: m.size})
	}
	return nil
}

// copy writes exactly size bytes. What is missing is zeros: the header has promised the size.
func (b *builder) copy(fd int, path string, size int64, sum io.Writer) (short bool, err error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return true, b.problem(path, err)
	}
	buf := make([]byte, chunkSize)
	failed := false
	for size > 0 {
		if err := b.stop(); err != nil {
			return true, err
		}
		part := buf[:min(size, chunkSize)]
		n := 0
		if !short {
			n, err = readFull(fd, part)
			if err != nil && !failed {
				failed = true
				b.report.unreadable(path, err)
			}
		}
		if n < len(part) {
			short = true
			clear(part[n:])
		}
		_, _ = sum.Write(part)
		if err := b.out.write(part); err != nil {
			return true, err
		}
		size -= int64(len(part))
	}
	return short && !failed, nil
}

// reread stores a large file again; the later entry of a path wins. Its hard links follow, because they would
// otherwise go on pointing to the earlier one.
func (b *builder) reread(f again) error {
	fd, st, err := b.find(f)
	if err != nil {
		b.report.changed(f.path) // gone or replaced: what was read stays
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	b.report.Bytes -= f.size
	if err := b.stream(fd, f.path, &st, f.place); err != nil {
		return err
	}
	g := b.groups[inode{st.Dev, st.Ino}]
	if g == nil || g.first != f.path {
		return nil
	}
	for _, member := range g.members {
		m := linkOf(member, &st, f.path)
		if err := b.out.header(&m); err != nil {
			return err
		}
	}
	return nil
}

// find opens the same file again, if it is still there.
func (b *builder) find(f again) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	pathFD, err := openBelow(b.root, f.path, unix.O_PATH)
	if err != nil {
		return -1, st, err
	}
	defer func() { _ = unix.Close(pathFD) }()
	if err := unix.Fstat(pathFD, &st); err != nil {
		return -1, st, err
	}
	if fileType(&st) != unix.S_IFREG || st.Ino != f.st.Ino || st.Dev != f.st.Dev {
		return -1, st, errSwapped
	}
	fd, err := b.openFile(pathFD)
	return fd, st, err
}
