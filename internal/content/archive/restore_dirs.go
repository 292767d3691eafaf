package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// cursor opens directories of a plan, one at a time, by paths of bounded length from what it holds open.
type cursor struct {
	root  int
	plan  *plan
	dir   int32 // the one that is open, -1 for none
	fd    int
	at    int     // the stretch that was looked at last
	marks []mark  // directories held open on the way to a deep one, each below the one before
	way   []int32 // scratch
	path  []byte  // scratch
	text  []byte  // scratch
}

// mark is a directory that is held open.
type mark struct {
	dir int32
	fd  int
}

func newCursor(root int, p *plan) *cursor { return &cursor{root: root, plan: p, dir: -1, fd: -1} }

func (c *cursor) close() {
	c.leave()
	for _, m := range c.marks {
		_ = unix.Close(m.fd)
	}
	c.marks = nil
}

func (c *cursor) leave() {
	if c.dir > 0 {
		_ = unix.Close(c.fd)
	}
	c.dir, c.fd = -1, -1
}

// open returns an O_PATH descriptor of the directory. It is good until the next call.
func (c *cursor) open(dir int32) (int, error) {
	if dir == c.dir {
		return c.fd, nil
	}
	c.leave()
	if dir == 0 {
		c.dir, c.fd = 0, c.root
		return c.fd, nil
	}
	at := c.findWay(dir)
	fd, err := c.follow(at)
	if err != nil {
		return -1, err
	}
	c.dir, c.fd = dir, fd
	return fd, nil
}

// findWay collects the directories to go through, innermost first, and returns where the way begins. Marks that do not lie on
// it are given up: parents have smaller numbers than what is in them.
func (c *cursor) findWay(dir int32) int {
	c.way = c.way[:0]
	for d := dir; d > 0; d = c.plan.dirs[d].parent {
		for len(c.marks) > 0 && c.marks[len(c.marks)-1].dir > d {
			_ = unix.Close(c.marks[len(c.marks)-1].fd)
			c.marks = c.marks[:len(c.marks)-1]
		}
		if len(c.marks) > 0 && c.marks[len(c.marks)-1].dir == d {
			return c.marks[len(c.marks)-1].fd
		}
		c.way = append(c.way, d)
	}
	return c.root
}

// follow opens the last directory of the way, in as many steps as its length needs. What is passed after a step is marked.
func (c *cursor) follow(at int) (int, error) {
	c.path = c.path[:0]
	passed := int32(0)
	for _, d := range slices.Backward(c.way) {
		name := c.plan.dirs[d].name
		if len(c.path)+len(name) > maxLookup {
			fd, err := openDirAt(at, c.path)
			if err != nil {
				return -1, err
			}
			at = fd
			c.marks = append(c.marks, mark{dir: passed, fd: fd})
			c.path = c.path[:0]
		}
		if len(c.path) > 0 {
			c.path = append(c.path, '/')
		}
		c.path = append(c.path, name...)
		passed = d
	}
	if len(c.path) == 0 { // the directory itself is marked
		c.path = append(c.path, '.')
	}
	return openDirAt(at, c.path)
}

// openDirAt opens a directory by a path that it ends with a zero byte.
func openDirAt(at int, path []byte) (int, error) {
	path = append(path, 0)
	return openName(at, &path[0], &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: beneath})
}

// named returns a name as the calls of calls.go take it, until the next one is asked for.
func (c *cursor) named(name string) *byte {
	c.text = append(append(c.text[:0], name...), 0)
	return &c.text[0]
}

// look finds an entry and its directory. Entries come in their order, so they are mostly where the last one was.
func (c *cursor) look(entry uint32) (*format.Entry, int32) {
	s := &c.plan.stretches[c.at]
	if i := entry - s.first; i >= uint32(len(s.entries)) { // it wraps around if it is before
		c.at = c.plan.stretchOf(entry)
		s = &c.plan.stretches[c.at]
	}
	return &s.entries[entry-s.first], s.dir
}

// enter opens the directory of an entry.
func (c *cursor) enter(entry uint32) (int, *format.Entry, error) {
	e, dir := c.look(entry)
	fd, err := c.open(dir)
	if err != nil {
		return -1, e, fmt.Errorf("open its directory: %w", err)
	}
	return fd, e, nil
}

// children calls do for each directory in another.
func (p *plan) children(dir int32, do func(child int32) error) error {
	for c := dir + 1; c < p.dirs[dir].end; c = p.dirs[c].end {
		if err := do(c); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes all directories, open to their owner until they are finished. They come level by level: those of one level can
// be made side by side.
func (r *restorer) makeDirs(ctx context.Context) error {
	for level := []int32{0}; len(level) > 0; level = r.plan.parentsIn(level) {
		if err := r.each(ctx, len(level), func(h *hand, i int) error { return r.makeChildren(h, level[i]) }); err != nil {
			return err
		}
	}
	return nil
}

// parentsIn returns the directories directly in others that have directories themselves.
func (p *plan) parentsIn(dirs []int32) (parents []int32) {
	for _, d := range dirs {
		_ = p.children(d, func(c int32) error {
			if p.dirs[c].end > c+1 {
				parents = append(parents, c)
			}
			return nil
		})
	}
	return parents
}

func (r *restorer) makeChildren(h *hand, dir int32) error {
	fd, err := h.open(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", display(r.plan.dirPath(dir)), err)
	}
	return r.plan.children(dir, func(c int32) error {
		d := &r.plan.dirs[c]
		if err := unix.Mkdirat(fd, d.name, uint32(d.Mode)&0o777|0o700); err != nil {
			return fmt.Errorf("make directory %s: %w", display(r.plan.dirPath(c)), err)
		}
		return nil
	})
}

// finishDirs gives the directories their attributes. Those that even their owner cannot enter afterwards come last, from the
// innermost out.
func (r *restorer) finishDirs(ctx context.Context) error {
	var mu sync.Mutex
	var closed []int32
	err := r.each(ctx, len(r.plan.dirs), func(h *hand, i int) error {
		return r.plan.children(int32(i), func(c int32) error {
			if r.plan.dirs[c].Mode&0o500 != 0o500 && !r.plan.dirs[c].lost {
				mu.Lock()
				closed = append(closed, c)
				mu.Unlock()
				return nil
			}
			return r.finishDir(h, int32(i), c)
		})
	})
	if err != nil {
		return err
	}
	slices.SortFunc(closed, func(a, b int32) int { return int(b) - int(a) })
	for _, c := range closed {
		if err := r.finishDir(r.hands[0], r.plan.dirs[c].parent, c); err != nil {
			return err
		}
	}
	return r.finishRoot()
}

func (r *restorer) finishDir(h *hand, parent, dir int32) error {
	fd, err := h.open(parent)
	if err == nil {
		err = r.setDir(fd, dir)
	}
	if err != nil {
		return fmt.Errorf("set attributes of %s: %w", display(r.plan.dirPath(dir)), err)
	}
	return nil
}

// setDir sets the attributes of a directory, and opens it only if its time is not all.
func (r *restorer) setDir(parent int, dir int32) error {
	d := &r.plan.dirs[dir]
	if d.lost {
		return nil
	}
	var st unix.Stat_t
	if r.plainDir(d) {
		if err := unix.UtimesNanoAt(parent, d.name, times(&d.Meta), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set time: %w", err)
		}
		if err := unix.Fstatat(parent, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if r.isSet(&st, &d.Meta) {
			r.doneDir(dir, &st)
			return nil
		}
	}
	fd, err := unix.Openat(parent, d.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	err = r.setAll(fd, &d.Meta, &st)
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	if err == nil {
		r.doneDir(dir, &st)
	}
	return err
}

// doneDir notes what has become of a directory.
func (r *restorer) doneDir(dir int32, st *unix.Stat_t) {
	r.checkTime(st, &r.plan.dirs[dir].Meta, func() string { return r.plan.dirPath(dir) })
	r.stampDir(dir, st)
}

// plainDir reports whether a directory was probably made with all its attributes but the time.
func (r *restorer) plainDir(d *planDir) bool {
	return d.Mode&^0o077 == 0o700 && (r.o.SkipOwner || d.UID == r.uid && d.GID == r.gid) && (d.Extra == nil || len(d.Extra.Xattrs) == 0)
}

func (r *restorer) finishRoot() error {
	fd, err := unix.Openat(r.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("set attributes of the root: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if r.plan.dirs[0].lost {
		return nil
	}
	var st unix.Stat_t
	if err := r.setAll(fd, &r.plan.dirs[0].Meta, &st); err != nil {
		return fmt.Errorf("set attributes of the root: %w", err)
	}
	r.doneDir(0, &st)
	return nil
}

var errAttributes = errors.New("the filesystem does not keep its mode or owner")

// isSet reports whether a file has the mode and the owner that it should have.
func (r *restorer) isSet(st *unix.Stat_t, m *format.Meta) bool {
	return uint16(st.Mode&0o7777) == r.mode(m) && (r.o.SkipOwner || st.Uid == m.UID && st.Gid == m.GID)
}

// timeFault says that a filesystem has put another time in the place of one that it cannot hold; the kernel does so in silence.
func timeFault(st *unix.Stat_t, m *format.Meta) error {
	if st.Mtim.Sec == m.Sec && st.Mtim.Nsec == int64(m.Nsec) {
		return nil
	}
	return fmt.Errorf("the filesystem cannot hold its time: @%d.%09d has become @%d.%09d", m.Sec, m.Nsec, st.Mtim.Sec, st.Mtim.Nsec)
}

// checkTime notes a time that is another one now.
func (r *restorer) checkTime(st *unix.Stat_t, m *format.Meta, path func() string) {
	if err := timeFault(st, m); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report.altered(path(), err)
	}
}

// mode is the mode to set: without its owner a file lends nobody's rights.
func (r *restorer) mode(m *format.Meta) uint16 {
	if r.o.SkipOwner && (m.UID != r.uid || m.GID != r.gid) {
		return m.Mode &^ 0o6000
	}
	return m.Mode
}

// setAll sets everything of an open file, in the only order that works: a change of owner clears bits of the mode and
// capabilities, a change of mode rewrites the mask of an ACL, and each of them would touch the time of a change. st is the
// file afterwards.
func (r *restorer) setAll(fd int, m *format.Meta, st *unix.Stat_t) error {
	if err := unix.Fstat(fd, st); err != nil {
		return err
	}
	if !r.o.SkipOwner && (st.Uid != m.UID || st.Gid != m.GID) {
		if err := unix.Fchown(fd, int(m.UID), int(m.GID)); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", m.UID, m.GID, err)
		}
	}
	if err := unix.Fchmod(fd, uint32(r.mode(m))); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if m.Extra != nil {
		if err := r.setXattrs(xattrsOf(fd), m.Extra.Xattrs); err != nil {
			return err
		}
	}
	if err := setTime(fd, m); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	if err := unix.Fstat(fd, st); err != nil {
		return err
	}
	if !r.isSet(st, m) {
		return errAttributes
	}
	return nil
}

// setXattrs refuses attributes that are not content, and leaves out those that an ordinary user cannot set.
func (r *restorer) setXattrs(calls xattrCalls, attrs []format.Xattr) error {
	for i := range attrs {
		if !keptXattr(attrs[i].Name) {
			return damagedf("attribute %q does not belong into a backup", attrs[i].Name)
		}
		if r.o.SkipOwner && (attrs[i].Name == "security.capability" || attrs[i].Name == opaque) {
			r.setForeign()
			continue
		}
		if err := writeXattrs(calls, attrs[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *restorer) setForeign() {
	r.mu.Lock()
	r.foreign = true
	r.mu.Unlock()
}
