package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// maxTarPath bounds the memory that the directories of a tar take.
const maxTarPath = 16 << 10

// Import unpacks a tar that may come from anywhere into an empty directory: of today, of GNU tar, with holes, extended
// attributes and directories that it does not list. What cannot be kept is in Report.Skipped; what would lead out of the
// directory is an error. After an error the content of the directory is undefined. Nothing is flushed to disk.
func Import(ctx context.Context, r io.Reader, dir string) (Report, error) {
	x, err := newImporter(dir)
	if err == nil {
		err = x.run(ctx, r)
		x.close()
	}
	if err != nil {
		return Report{}, fmt.Errorf("import into %s: %w", dir, err)
	}
	// The order of a tar is not that of a walk, and entries replace others, so only a walk tells what there is.
	report, err := Digest(ctx, dir, nil)
	report.Skipped, report.SkippedCount = x.report.Skipped, x.report.SkippedCount
	report.Altered, report.AlteredCount = x.report.Altered, x.report.AlteredCount
	return report, err
}

// importer writes the entries of a tar below a directory that nobody else can reach yet.
type importer struct {
	root     int
	setter   *restorer           // sets attributes
	dirs     map[string]*tarMeta // attributes of directories are set last
	parent   string              // the directory that parentFD is
	parentFD int
	buf      []byte
	entries  int
	holes    holeReader
	report   Report
}

func newImporter(dir string) (*importer, error) {
	r := &restorer{o: RestoreOptions{SkipOwner: unix.Geteuid() != 0}} // as a restore by an ordinary user
	if err := r.open(dir); err != nil {
		return nil, err
	}
	if err := r.inRoot(r.adopt); err != nil {
		_ = unix.Close(r.fd)
		return nil, err
	}
	x := &importer{root: r.fd, setter: r, dirs: map[string]*tarMeta{}, parentFD: r.fd, buf: make([]byte, importBuffer)}
	return x, nil
}

func (x *importer) close() {
	closeUnless(x.parentFD, x.root)
	_ = unix.Close(x.root)
}

func (x *importer) run(ctx context.Context, r io.Reader) error {
	end := &endReader{r: r}
	x.holes.r = end
	tr := tar.NewReader(&x.holes)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := x.entry(ctx, h, x.holes.data(h), tr); err != nil {
			return err
		}
	}
	if end.ended {
		return errors.New("read tar: it ends without its end mark, so something is missing")
	}
	if _, err := io.Copy(io.Discard, end); err != nil {
		return fmt.Errorf("read end of tar: %w", err)
	}
	return x.finishDirs()
}

// endReader remembers whether its reader ended. A tar that is read to its end mark never gets there.
type endReader struct {
	r     io.Reader
	ended bool
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if n > 0 && errors.Is(err, io.EOF) {
		return n, nil // the end is told by the next call, which only a reader that wants more makes
	}
	e.ended = e.ended || errors.Is(err, io.EOF)
	return n, err
}

// finishDirs goes from the deepest up, because a final mode can forbid to go further down.
func (x *importer) finishDirs() error {
	paths := make([]string, 0, len(x.dirs))
	for path := range x.dirs {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(b, a) }) // the root is the last one
	for _, path := range paths {
		if err := x.finishDir(path); err != nil {
			return fmt.Errorf("set attributes of %s: %w", display(path), err)
		}
	}
	return nil
}

func (x *importer) finishDir(path string) error {
	at, err := x.openDir(path)
	if err != nil {
		return err
	}
	defer closeUnless(at, x.root)
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return x.setAll(fd, x.dirs[path])
}

// entry writes one entry.
func (x *importer) entry(ctx context.Context, h *tar.Header, holes *tarHoles, content io.Reader) error {
	if x.entries++; x.entries%1000 == 0 {
		faults.Point("archive.import.entry")
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	m, err := parseHeader(h)
	if errors.Is(err, errDevice) {
		x.report.skipped(m.path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read tar: %w", err)
	}
	if m.kind == tar.TypeReg {
		m.holes = holes
	}
	if err := x.write(ctx, &m, content); err != nil {
		return fmt.Errorf("write %s: %w", display(m.path), err)
	}
	return nil
}

func (x *importer) write(ctx context.Context, m *tarMeta, content io.Reader) error {
	if m.path == "" {
		if m.kind != tar.TypeDir {
			return errors.New("the root must be a directory")
		}
		x.dirs[""] = m
		return nil
	}
	dir := dirOf(m.path)
	name := strings.TrimPrefix(m.path[len(dir):], "/")
	if err := x.enter(dir); err != nil {
		return err
	}
	if err := x.replace(m, name); err != nil {
		return err
	}
	switch m.kind {
	case tar.TypeReg:
		return x.writeFile(ctx, m, name, content)
	case tar.TypeDir:
		return x.writeDir(m, name)
	case tar.TypeLink:
		return x.writeLink(m, name)
	case tar.TypeSymlink:
		return x.writeSymlink(m, name)
	}
	return x.writeNode(m, name)
}

// enter makes dir the directory that names are written to. Entries mostly come in the order of a walk, so this is rarely more
// than one step.
func (x *importer) enter(dir string) error {
	if dir == x.parent {
		return nil
	}
	fd, err := x.openDir(dir)
	if errors.Is(err, unix.ENOENT) {
		fd, err = x.makeParents(dir)
	}
	if err != nil {
		return fmt.Errorf("enter its directory: %w", err)
	}
	closeUnless(x.parentFD, x.root)
	x.parent, x.parentFD = dir, fd
	return nil
}

func (x *importer) openDir(dir string) (int, error) {
	if dir == "" {
		return x.root, nil
	}
	if x.parent != "" && below(dir, x.parent) {
		return openBelow(x.parentFD, dir[len(x.parent)+1:], unix.O_PATH|unix.O_DIRECTORY)
	}
	return openBelow(x.root, dir, unix.O_PATH|unix.O_DIRECTORY)
}

// makeParents creates directories that a tar did not care to list.
func (x *importer) makeParents(dir string) (int, error) {
	at := x.root
	for part := range strings.SplitSeq(dir, "/") {
		if err := unix.Mkdirat(at, part, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
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
func (x *importer) replace(m *tarMeta, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(x.parentFD, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case fileType(&st) == unix.S_IFDIR && m.kind == tar.TypeDir:
		return nil
	case fileType(&st) == unix.S_IFDIR:
		return errors.New("the tar has a directory under the same name")
	case m.kind == tar.TypeLink && m.target == m.path:
		return errors.New("the tar links a name to itself")
	}
	return unix.Unlinkat(x.parentFD, name, 0)
}

func (x *importer) writeDir(m *tarMeta, name string) error {
	if err := unix.Mkdirat(x.parentFD, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	x.dirs[m.path] = m
	return nil
}

// writeLink links to a name that the tar has brought before. Nothing is followed on the way to it, nor at its end.
func (x *importer) writeLink(m *tarMeta, name string) error {
	dir := dirOf(m.target)
	first := strings.TrimPrefix(m.target[len(dir):], "/")
	fd, err := x.openDir(dir)
	if err != nil {
		return fmt.Errorf("find link target %s: %w", display(m.target), err)
	}
	defer closeUnless(fd, x.root)
	var st unix.Stat_t
	if first != "" {
		err = unix.Fstatat(fd, first, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("find link target %s: %w", display(m.target), err)
	}
	if first == "" || fileType(&st) == unix.S_IFDIR {
		return fmt.Errorf("link target %s is a directory", display(m.target))
	}
	return unix.Linkat(fd, first, x.parentFD, name, 0)
}

func (x *importer) writeSymlink(m *tarMeta, name string) error {
	if err := unix.Symlinkat(m.target, x.parentFD, name); err != nil {
		return err
	}
	if err := x.chown(x.parentFD, name, m); err != nil {
		return err
	}
	return unix.UtimesNanoAt(x.parentFD, name, times(&m.Meta), unix.AT_SYMLINK_NOFOLLOW)
}

// chown sets the owner. What an ordinary user imports is theirs.
func (x *importer) chown(dir int, name string, m *tarMeta) error {
	if x.setter.o.SkipOwner {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if st.Uid == m.UID && st.Gid == m.GID {
		return nil
	}
	return x.setter.chown(dir, name, &m.Meta)
}

// writeNode creates a FIFO or a whiteout.
func (x *importer) writeNode(m *tarMeta, name string) error {
	kind := uint32(unix.S_IFIFO)
	if m.kind == tar.TypeChar {
		kind = unix.S_IFCHR
	}
	if err := x.setter.makeNode(x.parentFD, name, &m.Meta, kind); err != nil {
		return err
	}
	return unix.UtimesNanoAt(x.parentFD, name, times(&m.Meta), unix.AT_SYMLINK_NOFOLLOW)
}

func (x *importer) writeFile(ctx context.Context, m *tarMeta, name string, content io.Reader) (err error) {
	fd, err := unix.Openat(x.parentFD, name, createFlags, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := unix.Close(fd); err == nil {
			err = closeErr
		}
	}()
	if err := x.fillFile(ctx, fd, m, content); err != nil {
		return err
	}
	return x.setAll(fd, m)
}

func (x *importer) setAll(fd int, m *tarMeta) error {
	var st unix.Stat_t
	if err := x.setter.setAll(fd, &m.Meta, &st); err != nil {
		return err
	}
	if err := timeFault(&st, &m.Meta); err != nil {
		x.report.altered(m.path, err)
	}
	return nil
}
