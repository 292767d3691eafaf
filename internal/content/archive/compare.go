package archive

import (
	"bytes"
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// comparison finds out what has to be read: whatever is not known to be as the parent has it.
type comparison struct {
	tree     *scanTree
	links    *hardLinks
	stamps   []stamp // none: nothing is known
	cursor   *parentCursor
	path     []byte
	differs  bool  // something is not as the parent has it, or may not be
	files    int64 // that need not be read
	bytes    int64
	versions versions
}

// compareTree marks the rows that have to be read.
func compareTree(ctx context.Context, t *scanTree, links *hardLinks, p *parent) (*comparison, error) {
	c := &comparison{tree: t, links: links, versions: versions{}, cursor: newParentCursor(ctx, p)}
	if p != nil && p.tree == t.id {
		c.stamps = p.stamps
	}
	defer c.cursor.close()
	for _, d := range t.order {
		c.path = d.pathAfter(c.path)
		c.directory(d)
		if c.cursor.err != nil {
			return nil, c.cursor.err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	c.differs = c.differs || c.cursor.directory() != nil
	return c, nil
}

func (c *comparison) directory(d *dirNode) {
	found, passed := c.cursor.seek(c.path)
	c.differs = c.differs || passed || !found
	if !found {
		d.self.flags |= rowTodo
		for i := range d.rows {
			c.entry(d, &d.rows[i], nil)
		}
		return
	}
	if !c.sameDir(d, c.cursor.directory()) {
		d.self.flags |= rowTodo
		c.differs = true
	}
	c.cursor.enter()
	c.entries(d)
	if c.cursor.leave() {
		c.differs = true
	}
}

// sameDir reports whether nothing has happened to a directory, its content aside. The ctime of the root is that of its last
// move, so its extended attributes are compared.
func (c *comparison) sameDir(d *dirNode, p *format.Dir) bool {
	if p.Partial || !d.self.sameMeta(&p.Meta) {
		return false
	}
	if d.parent == nil {
		return c.tree.rootErr == nil && slices.EqualFunc(c.tree.rootXattrs, xattrsIn(p.Extra), sameXattr)
	}
	s := c.stamp()
	return s.is(&d.self)
}

func xattrsIn(x *format.Extra) []format.Xattr {
	if x == nil {
		return nil
	}
	return x.Xattrs
}

func sameXattr(a, b format.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }

// stamp is what is known of the row at the cursor.
func (c *comparison) stamp() stamp {
	if c.cursor.row >= len(c.stamps) {
		return stamp{racy: true}
	}
	return c.stamps[c.cursor.row]
}

func (s stamp) is(r *row) bool {
	return !s.racy && s.ino == r.ino && s.sec == r.csec && s.nsec == r.cnsec
}

func (r *row) sameMeta(m *format.Meta) bool {
	return r.mode&^unix.S_IFMT == m.Mode && r.uid == m.UID && r.gid == m.GID && r.sec == m.Sec && r.nsec == m.Nsec
}

// entries compares the content of a directory that the parent has, too.
func (c *comparison) entries(d *dirNode) {
	for i := range d.rows {
		r := &d.rows[i]
		name := d.nameOf(r)
		e := c.cursor.current()
		for e != nil && e.Name < string(name) {
			c.differs = true
			c.cursor.step()
			e = c.cursor.current()
		}
		if e == nil || e.Name != string(name) {
			c.entry(d, r, nil)
			continue
		}
		c.entry(d, r, e)
		c.cursor.step()
	}
}

// entry compares a name with that of the parent, which is nil if it is new.
func (c *comparison) entry(d *dirNode, r *row, e *format.Entry) {
	group := c.links.groupOf(d, r, c.path)
	if e != nil && groupIn(e) != group {
		c.differs = true // but there is no need to read it again
	}
	switch {
	case r.has(rowUnreadable):
		c.differs = c.differs || e == nil || e.Flags&format.FlagUnreadable == 0
	case e != nil && r.sameEntry(e) && c.stamp().is(r):
		c.files++
		c.bytes += r.size
	default:
		c.differs = true
		if !r.has(rowFollower) {
			r.flags |= rowTodo
			c.versions.note(r, e)
		}
	}
}

func (r *row) sameEntry(e *format.Entry) bool {
	return e.Flags == 0 && !e.Partial && e.Kind == r.entryKind() && r.size == e.Size && r.sameMeta(&e.Meta)
}

func groupIn(e *format.Entry) uint64 {
	if e.Extra == nil {
		return 0
	}
	return e.Extra.Group
}

func (r *row) entryKind() format.Kind {
	switch r.kind() {
	case unix.S_IFLNK:
		return format.KindSymlink
	case unix.S_IFIFO:
		return format.KindFIFO
	case unix.S_IFCHR:
		return format.KindWhiteout
	}
	return format.KindFile
}

// groupOf returns the id of the group of a row, 0 if it has no other names. Leaders are asked about before their followers.
func (h *hardLinks) groupOf(d *dirNode, r *row, dir []byte) uint64 {
	if r.has(rowFollower) {
		return h.groups[r.place].id
	}
	if !r.has(rowLinked) {
		return 0
	}
	n, ok := h.leads[r]
	if !ok {
		return 0
	}
	path := append([]byte(nil), dir...)
	if len(path) > 0 {
		path = append(path, '/')
	}
	h.groups[n].id = format.GroupOf(string(append(path, d.nameOf(r)...)))
	return h.groups[n].id
}
