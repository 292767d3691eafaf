package archive

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// holeSize is the granularity of holes: zeros of this size and alignment are not written.
const holeSize = 4 << 10

// Restore unpacks an archive of Create into an empty directory and flushes it to disk. The digest in the report is
// that of what was written; compare it with the one of Create. After an error the content of the directory is undefined.
func Restore(ctx context.Context, packs []Pack, src Source, dir string, p Progress) (Report, error) {
	x, err := newExtractor(dir, true, p)
	if err != nil {
		return Report{}, err
	}
	defer x.close()
	r, err := openPacks(ctx, packs, src)
	if err != nil {
		return Report{}, err
	}
	defer r.Close()
	if err := x.run(ctx, r); err != nil {
		return x.report, fmt.Errorf("restore into %s: %w", dir, err)
	}
	x.report.Digest = x.digest.sum()
	return x.report, nil
}

// extractor writes the entries of a tar below a directory that nobody else can reach yet.
type extractor struct {
	root     int
	own      bool // an archive of Create: anything unusual is an error
	progress Progress
	report   Report
	digest   treeDigest
	places   map[[sha256.Size]byte]int // checksum of a path -> place of its record
	dirs     map[string]meta           // attributes of directories are set last
	parent   string                    // the directory that parentFD is
	parentFD int
	buf      []byte
	entries  int
}

func newExtractor(dir string, own bool, p Progress) (*extractor, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	x := &extractor{
		root: root, own: own, progress: p, places: map[[sha256.Size]byte]int{}, dirs: map[string]meta{},
		parent: ".", parentFD: root, buf: make([]byte, chunkSize),
	}
	names, err := listNames(root)
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("the directory is not empty (%q is there)", names[0])
	}
	if err == nil {
		err = clearXattrs(root)
	}
	if err != nil {
		x.close()
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	return x, nil
}

func (x *extractor) close() {
	closeUnless(x.parentFD, x.root)
	_ = unix.Close(x.root)
}

func (x *extractor) run(ctx context.Context, r io.Reader) error {
	end := &endReader{r: r}
	tr := tar.NewReader(end)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := x.entry(ctx, h, tr); err != nil {
			return err
		}
	}
	if end.ended {
		return errors.New("read archive: it ends without its end mark, so something is missing")
	}
	return x.finish(end)
}

// finish reads the rest, which verifies the checksum of the stream, sets the attributes of directories and syncs.
func (x *extractor) finish(rest io.Reader) error {
	if _, err := io.Copy(io.Discard, rest); err != nil {
		return fmt.Errorf("read end of archive: %w", err)
	}
	if x.own && !x.has(".") {
		return errors.New("read archive: the entry of the root directory is missing")
	}
	if err := x.finishDirs(); err != nil {
		return err
	}
	fd, err := unix.Openat(x.root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func (x *extractor) has(path string) bool {
	_, ok := x.places[sha256.Sum256([]byte(path))]
	return ok
}

// finishDirs goes from the deepest up, because a final mode can forbid to go further down.
func (x *extractor) finishDirs() error {
	paths := make([]string, 0, len(x.dirs))
	for path := range x.dirs {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(b, a) })
	if i := slices.Index(paths, "."); i >= 0 {
		paths = append(slices.Delete(paths, i, i+1), ".")
	}
	for _, path := range paths {
		m := x.dirs[path]
		if err := x.finishDir(&m); err != nil {
			return fmt.Errorf("set attributes of %s: %w", display(path), err)
		}
	}
	return nil
}

func (x *extractor) finishDir(m *meta) error {
	fd, err := x.openDir(m.path)
	if err != nil {
		return err
	}
	defer closeUnless(fd, x.root)
	return setAttributes(fd, m)
}

// entry writes one entry.
func (x *extractor) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if x.entries++; x.entries%1000 == 0 {
		faults.Point("archive.restore.entry")
	}
	if h.Typeflag == tar.TypeXGlobalHeader && !x.own {
		return nil
	}
	m, dropped, err := parseHeader(h)
	if err == nil && x.own && len(dropped) > 0 {
		err = fmt.Errorf("%q: attribute %q is not allowed in an archive", h.Name, dropped[0])
	}
	if errors.Is(err, errDevice) && !x.own {
		x.report.skipped(h.Name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	sum, err := x.write(ctx, &m, content)
	if err != nil {
		return fmt.Errorf("write %s: %w", display(m.path), err)
	}
	x.record(&m, sum)
	x.progress.tell(&x.report)
	return nil
}

// record counts a path once, however often it comes.
func (x *extractor) record(m *meta, sum [sha256.Size]byte) {
	key := sha256.Sum256([]byte(m.path))
	if place, ok := x.places[key]; ok {
		x.digest.replace(place, m.record(sum))
		return
	}
	x.places[key] = x.digest.add(m.record(sum))
	if m.kind != tar.TypeLink {
		x.report.newest(timeOf(unix.Timespec{Sec: m.sec, Nsec: m.nsec}))
	}
}

func (x *extractor) write(ctx context.Context, m *meta, content io.Reader) (sum [sha256.Size]byte, err error) {
	if m.path == "." {
		return sum, x.writeRoot(m)
	}
	dir, name := split(m.path)
	if err := x.enter(dir); err != nil {
		return sum, err
	}
	if err := x.replace(m, name); err != nil {
		return sum, err
	}
	switch m.kind {
	case tar.TypeReg:
		return x.writeFile(ctx, m, name, content)
	case tar.TypeDir:
		err = x.writeDir(m, name)
	case tar.TypeLink:
		err = x.writeLink(m, name)
	case tar.TypeSymlink:
		err = x.writeSymlink(m, name)
	default:
		err = x.writeNode(m, name)
	}
	return sum, err
}

func (x *extractor) writeRoot(m *meta) error {
	if m.kind != tar.TypeDir {
		return errors.New("the root must be a directory")
	}
	if _, known := x.dirs["."]; !known {
		x.report.Dirs++
	}
	x.dirs["."] = *m
	return nil
}

func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ".", path
	}
	return path[:i], path[i+1:]
}

// enter makes dir the directory that names are written to. Entries come in the order of a walk, so this is rarely more
// than one step.
func (x *extractor) enter(dir string) error {
	if dir == x.parent {
		return nil
	}
	fd, err := x.openDir(dir)
	if errors.Is(err, unix.ENOENT) && !x.own {
		fd, err = x.makeParents(dir)
	}
	if err != nil {
		return fmt.Errorf("enter its directory: %w", err)
	}
	closeUnless(x.parentFD, x.root)
	x.parent, x.parentFD = dir, fd
	return nil
}

func (x *extractor) openDir(dir string) (int, error) {
	if dir == "." {
		return x.root, nil
	}
	from, rest := x.root, dir
	if x.parent != "." && strings.HasPrefix(dir, x.parent+"/") {
		from, rest = x.parentFD, dir[len(x.parent)+1:]
	}
	return openBelow(from, rest, unix.O_PATH|unix.O_DIRECTORY)
}

// makeParents creates directories that a foreign archive did not care to list.
func (x *extractor) makeParents(dir string) (int, error) {
	at := x.root
	for part := range strings.SplitSeq(dir, "/") {
		err := unix.Mkdirat(at, part, 0o755)
		if err == nil {
			x.report.Dirs++
		} else if !errors.Is(err, unix.EEXIST) {
			closeUnless(at, x.root)
			return -1, err
		}
		next, err := openBelow(at, part, unix.O_PATH|unix.O_DIRECTORY)
		closeUnless(at, x.root)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

// replace removes what an earlier entry of the same path has left. A directory stays a directory.
func (x *extractor) replace(m *meta, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(x.parentFD, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		x.count(m.fileType(), 1)
		return nil
	}
	if err != nil {
		return err
	}
	if fileType(&st) == unix.S_IFDIR {
		if m.kind != tar.TypeDir {
			return errors.New("the archive has a directory under the same name")
		}
		return nil
	}
	if m.kind == tar.TypeLink && m.target == m.path {
		return errors.New("the archive links a name to itself")
	}
	if fileType(&st) == unix.S_IFREG && st.Nlink == 1 {
		x.report.Bytes -= st.Size
	}
	x.count(fileType(&st), -1)
	x.count(m.fileType(), 1)
	return unix.Unlinkat(x.parentFD, name, 0)
}

// count adds n names of a type. A hard link has the type of what it links to, which its header does not tell.
func (x *extractor) count(kind uint32, n int64) {
	switch kind {
	case unix.S_IFREG:
		x.report.Files += n
	case unix.S_IFDIR:
		x.report.Dirs += n
	case unix.S_IFLNK:
		x.report.Links += n
	case unix.S_IFIFO, unix.S_IFCHR:
		x.report.Others += n
	}
}

func (x *extractor) writeDir(m *meta, name string) error {
	if err := unix.Mkdirat(x.parentFD, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	x.dirs[m.path] = *m
	return nil
}

// writeLink links to a name that the archive has brought before. Nothing is followed on the way to it, nor at its end.
func (x *extractor) writeLink(m *meta, name string) error {
	dir, first := split(m.target)
	fd, err := x.openDir(dir)
	if err != nil {
		return fmt.Errorf("find link target %s: %w", display(m.target), err)
	}
	if fd != x.root {
		defer func() { _ = unix.Close(fd) }()
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, first, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("find link target %s: %w", display(m.target), err)
	}
	if fileType(&st) == unix.S_IFDIR {
		return fmt.Errorf("link target %s is a directory", display(m.target))
	}
	x.count(fileType(&st), 1)
	return unix.Linkat(fd, first, x.parentFD, name, 0)
}

func (x *extractor) writeSymlink(m *meta, name string) error {
	if err := unix.Symlinkat(m.target, x.parentFD, name); err != nil {
		return err
	}
	if err := chownAt(x.parentFD, name, m); err != nil {
		return err
	}
	return unix.UtimesNanoAt(x.parentFD, name, m.times(), unix.AT_SYMLINK_NOFOLLOW)
}

// writeNode creates a FIFO or a whiteout.
func (x *extractor) writeNode(m *meta, name string) error {
	kind := uint32(unix.S_IFIFO)
	if m.kind == tar.TypeChar {
		kind = unix.S_IFCHR
	}
	if err := unix.Mknodat(x.parentFD, name, kind|0o600, 0); err != nil {
		return err
	}
	fd, err := openBelow(x.parentFD, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return setAttributes(fd, m)
}

func (x *extractor) writeFile(ctx context.Context, m *meta, name string, content io.Reader) (sum [sha256.Size]byte, err error) {
	fd, err := unix.Openat(x.parentFD, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return sum, err
	}
	defer func() {
		if closeErr := unix.Close(fd); err == nil {
			err = closeErr
		}
	}()
	if sum, err = x.fill(ctx, fd, m.size, content); err != nil {
		return sum, err
	}
	x.report.Bytes += m.size
	return sum, setAttributes(fd, m)
}

// fill writes the content and leaves holes where it is zero.
func (x *extractor) fill(ctx context.Context, fd int, size int64, content io.Reader) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		part := x.buf[:min(size-off, chunkSize)]
		if _, err := io.ReadFull(content, part); err != nil {
			return sum, fmt.Errorf("read its content: %w", err)
		}
		h.Write(part)
		if err := writeSparse(fd, part, off); err != nil {
			return sum, err
		}
		off += int64(len(part))
	}
	return [sha256.Size]byte(h.Sum(nil)), unix.Ftruncate(fd, size)
}

// writeSparse writes the runs of blocks that are not zero.
func writeSparse(fd int, part []byte, off int64) error {
	start := -1
	for i := 0; i < len(part); i += holeSize {
		if zero := isZero(part[i:min(i+holeSize, len(part))]); !zero && start < 0 {
			start = i
		} else if zero && start >= 0 {
			if err := pwriteFull(fd, part[start:i], off+int64(start)); err != nil {
				return err
			}
			start = -1
		}
	}
	if start < 0 {
		return nil
	}
	return pwriteFull(fd, part[start:], off+int64(start))
}

// setAttributes sets everything but a name, in the only order that works: a change of owner clears bits of the mode
// and capabilities, a change of mode rewrites the mask of an ACL, and each of them would touch the times.
func setAttributes(fd int, m *meta) error {
	if err := chownAt(fd, "", m); err != nil {
		return err
	}
	if err := unix.Chmod(procPath(fd), m.mode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if err := writeXattrs(fd, m.xattrs); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), m.times(), 0); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// chownAt leaves the owner alone if it is right, so that an ordinary user can restore what is theirs.
func chownAt(fd int, name string, m *meta) error {
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, flags); err != nil {
		return err
	}
	if st.Uid == m.uid && st.Gid == m.gid {
		return nil
	}
	if err := unix.Fchownat(fd, name, int(m.uid), int(m.gid), flags); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", m.uid, m.gid, err)
	}
	return nil
}

// times sets the access time too, as nothing better is known.
func (m *meta) times() []unix.Timespec {
	t := unix.Timespec{Sec: m.sec, Nsec: m.nsec}
	return []unix.Timespec{t, t}
}
