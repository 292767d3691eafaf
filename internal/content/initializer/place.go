package initializer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxName = 255
	maxPath = 4096
	// maxEntries is how many files and directories an archive may have, whatever the volume allows.
	maxEntries = 10_000_000
	// tellEvery is how many bytes or files are made between two reports.
	tellEveryBytes = 4 << 20
	tellEveryFiles = 500
)

// place is a directory in which hostile names are made: relative to a descriptor, through no link, and not more than fits.
type place struct {
	dir  *os.File
	base string // that names are relative to

	made      made
	entries   int64
	maxBytes  int64
	maxFiles  int64
	told      made
	tell      func(made)
	dirs      []dirTime
	lastDir   string // of parent
	lastDirFD int
}

// dirTime is a directory whose attributes are set at the end: making something in it changes its time.
type dirTime struct {
	path string
	mode fs.FileMode
	time time.Time
}

// openPlace opens a directory to be filled. The limits are those of the specification, 0 for none; what the file system has left is one
// as well.
func openPlace(dir string, maxBytes, maxFiles int64) (*place, error) {
	free, err := freeSpace(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, newError(Failed, err, "open target: %v", err)
	}
	p := &place{dir: f, maxBytes: free.bytes, maxFiles: maxEntries, lastDirFD: -1}
	if maxBytes > 0 {
		p.maxBytes = min(p.maxBytes, maxBytes)
	}
	if free.files >= 0 {
		p.maxFiles = min(p.maxFiles, free.files)
	}
	if maxFiles > 0 {
		p.maxFiles = min(p.maxFiles, maxFiles)
	}
	return p, nil
}

func (p *place) close() {
	p.forget()
	_ = p.dir.Close()
}

// badName is a name that no archive may have. The error names it.
func badName(name string) error {
	switch {
	case name == "" || len(name) > maxPath || strings.ContainsRune(name, 0):
		return fmt.Errorf("entry %.300q has a name that is empty, too long or has a zero in it", name)
	case name[0] == '/':
		return fmt.Errorf("entry %q has an absolute name", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || len(part) > maxName {
			return fmt.Errorf("entry %.300q has a name that leads out or is too long", name)
		}
	}
	return nil
}

// descend makes a directory and has all names be relative to it.
func (p *place) descend(dir string) error {
	if dir == "" {
		return nil
	}
	if err := p.makeParents(dir); err != nil {
		return err
	}
	p.base = dir + "/"
	return nil
}

// open opens a directory below this one, through no link and on no other file system.
func (p *place) open(name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(int(p.dir.Fd()), name, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
}

// parent returns a descriptor of the directory that a name lies in, which it makes if need be. It is good until the next call.
func (p *place) parent(name string) (int, error) {
	dir := path.Dir(name)
	if p.lastDirFD >= 0 && p.lastDir == dir {
		return p.lastDirFD, nil
	}
	p.forget()
	fd, err := p.open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = p.makeParents(dir); err == nil {
			fd, err = p.open(dir)
		}
	}
	if err != nil {
		return -1, refusedLink(name, err)
	}
	p.lastDir, p.lastDirFD = dir, fd
	return fd, nil
}

func refusedLink(name string, err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("entry %q leads through a link or a file", name)
	}
	return err
}

func (p *place) forget() {
	if p.lastDirFD >= 0 {
		_ = unix.Close(p.lastDirFD)
		p.lastDirFD = -1
	}
}

// makeParents makes a directory and those above it that are not there: only from the deepest one that is there does it go down.
func (p *place) makeParents(dir string) error {
	if dir == "" || dir == "." {
		return nil
	}
	fd, err := p.open(dir)
	if err == nil {
		return unix.Close(fd)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return refusedLink(dir, err)
	}
	above := path.Dir(dir)
	if err := p.makeParents(above); err != nil {
		return err
	}
	if fd, err = p.open(above); err != nil {
		return refusedLink(dir, err)
	}
	err = unix.Mkdirat(fd, path.Base(dir), 0o755)
	_ = unix.Close(fd)
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return p.count(dir, 0)
}

func orDot(dir string) string {
	if dir == "" {
		return "."
	}
	return dir
}

// count adds an entry of some bytes, or says that it does not fit.
func (p *place) count(name string, size int64) error {
	p.entries++
	if p.entries > p.maxFiles {
		return newError(Full, nil, "entry %q: there are more than the %d files and directories that the volume may have: "+
			"raise spec.volume.inodes or enlarge spec.volume.size", name, p.maxFiles)
	}
	if size < 0 || size > p.maxBytes-p.made.Bytes {
		return newError(Full, nil, "entry %q does not fit: the volume may have %d MiB: enlarge spec.volume.size", name, p.maxBytes>>20)
	}
	if p.tell != nil && (p.made.Bytes-p.told.Bytes > tellEveryBytes || p.made.Files-p.told.Files > tellEveryFiles) {
		p.told = p.made
		p.tell(p.made)
	}
	return nil
}

// file makes a file of what a reader gives. What is there already is replaced, as tar does, unless it is a directory.
func (p *place) file(name string, mode fs.FileMode, modified time.Time, r io.Reader) error {
	name = p.base + name
	parent, err := p.parent(name)
	if err != nil {
		return err
	}
	if err := p.count(name, 0); err != nil {
		return err
	}
	base := path.Base(name)
	if err := remove(parent, base); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode.Perm()))
	if err != nil {
		return &fs.PathError{Op: "create", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(&counted{p, f, name}, r)
	err = errors.Join(err, f.Close())
	if err == nil && !modified.IsZero() {
		err = setTime(parent, base, modified)
	}
	if err == nil {
		p.made.Files++
	}
	return err
}

// counted is a file that grows no further than the place allows.
type counted struct {
	place *place
	file  *os.File
	name  string
}

func (c *counted) Write(b []byte) (int, error) {
	if int64(len(b)) > c.place.maxBytes-c.place.made.Bytes {
		return 0, newError(Full, nil, "%q does not fit: the volume may have %d MiB: enlarge spec.volume.size", c.name, c.place.maxBytes>>20)
	}
	n, err := c.file.Write(b)
	before := c.place.made.Bytes
	c.place.made.Bytes += int64(n)
	if c.place.tell != nil && c.place.made.Bytes/tellEveryBytes != before/tellEveryBytes {
		c.place.tell(c.place.made)
	}
	return n, err
}

// remove makes way for an entry.
func remove(parent int, base string) error {
	err := unix.Unlinkat(parent, base, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("entry %q is there already as a directory: %w", base, err)
}

// directory makes a directory, or takes the one that is there.
func (p *place) directory(name string, mode fs.FileMode, modified time.Time) error {
	name = p.base + name
	if path.Clean(name) == path.Clean(orDot(strings.TrimSuffix(p.base, "/"))) {
		return nil
	}
	parent, err := p.parent(name)
	if err != nil {
		return err
	}
	if err := p.count(name, 0); err != nil {
		return err
	}
	err = unix.Mkdirat(parent, path.Base(name), 0o755)
	if errors.Is(err, fs.ErrExist) {
		var st unix.Stat_t
		err = unix.Fstatat(parent, path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.ENOTDIR
		}
	}
	if err != nil {
		return fmt.Errorf("entry %q: %w", name, err)
	}
	p.dirs = append(p.dirs, dirTime{name, mode, modified})
	return nil
}

// symlink makes a link; where it leads to is not looked at, and never followed.
func (p *place) symlink(name, target string) error {
	name = p.base + name
	if target == "" || len(target) >= maxPath || strings.ContainsRune(target, 0) {
		return fmt.Errorf("link %q has a target that is empty, too long or has a zero in it", name)
	}
	parent, err := p.parent(name)
	if err != nil {
		return err
	}
	if err := p.count(name, int64(len(target))); err != nil {
		return err
	}
	if err := remove(parent, path.Base(name)); err != nil {
		return err
	}
	if err := unix.Symlinkat(target, parent, path.Base(name)); err != nil {
		return &fs.PathError{Op: "symlink", Path: name, Err: err}
	}
	p.made.Files++
	return nil
}

// hardLink gives a file of this place another name. The file is opened through no link first, and is what is linked.
func (p *place) hardLink(name, target string) error {
	if err := badName(target); err != nil {
		return fmt.Errorf("link %q: %w", name, err)
	}
	name, target = p.base+name, path.Clean(p.base+target)
	parent, err := p.parent(name)
	if err != nil {
		return err
	}
	if err := p.count(name, 0); err != nil {
		return err
	}
	from, err := p.open(path.Dir(target))
	if err != nil {
		return fmt.Errorf("link %q: %w", name, refusedLink(target, err))
	}
	defer func() { _ = unix.Close(from) }()
	var st unix.Stat_t
	if err := unix.Fstatat(from, path.Base(target), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("link %q: %q is no file of the archive", name, target)
	}
	if target == path.Clean(name) {
		return nil
	}
	if err := remove(parent, path.Base(name)); err != nil {
		return err
	}
	if err := unix.Linkat(from, path.Base(target), parent, path.Base(name), 0); err != nil {
		return &fs.PathError{Op: "link", Path: name, Err: err}
	}
	p.made.Files++
	return nil
}

// finish gives the directories their modes and times, the deepest first. Their owner can always use them.
func (p *place) finish() error {
	p.forget()
	for _, d := range slices.Backward(p.dirs) {
		fd, err := p.open(d.path)
		if err != nil {
			return refusedLink(d.path, err)
		}
		err = unix.Fchmod(fd, uint32(d.mode.Perm()&^0o022|0o700))
		if err == nil && !d.time.IsZero() {
			err = setTime(fd, "", d.time)
		}
		_ = unix.Close(fd)
		if err != nil {
			return &fs.PathError{Op: "set attributes", Path: d.path, Err: err}
		}
	}
	return nil
}

// setTime sets the time of a file by its directory and name, or of the directory itself.
func setTime(dir int, base string, t time.Time) error {
	times := []unix.Timespec{unix.NsecToTimespec(t.UnixNano()), unix.NsecToTimespec(t.UnixNano())}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if base == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.UtimesNanoAt(dir, base, times, flags)
}
