package archive

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// linkGroup are the names of one inode.
type linkGroup struct {
	ino     uint64
	members []rowRef // in tree order; the first one leads: it is read, the others follow
	id      uint64
	entry   format.Entry // of the leader
}

// rowRef names a row.
type rowRef struct {
	dir *dirNode
	row *row
}

// hardLinks are the groups of a tree. The place of a follower is the number of its group.
type hardLinks struct {
	groups []linkGroup
	leads  map[*row]int
}

// groupLinks finds the names of equal inodes. An inode number can be used again for another file while a scan lasts, and a
// file can change between two looks, so names that do not agree are looked at again.
func groupLinks(t *scanTree) *hardLinks {
	h := &hardLinks{leads: map[*row]int{}}
	refs := linkedRows(t)
	o := newOpener(t.root, t.fd)
	defer o.close()
	for len(refs) > 0 {
		n := 1
		for n < len(refs) && refs[n].row.ino == refs[0].row.ino {
			n++
		}
		if n > 1 {
			h.group(t, o, refs[:n])
		}
		refs = refs[n:]
	}
	return h
}

// linkedRows returns the rows that may have other names: those of an inode in tree order.
func linkedRows(t *scanTree) []rowRef {
	var refs []rowRef
	for _, d := range t.order {
		for i := range d.rows {
			if r := &d.rows[i]; r.has(rowLinked) && !r.has(rowUnreadable) {
				refs = append(refs, rowRef{d, r})
			}
		}
	}
	slices.SortStableFunc(refs, func(a, b rowRef) int { return cmp.Compare(a.row.ino, b.row.ino) })
	return refs
}

func (h *hardLinks) group(t *scanTree, o *opener, refs []rowRef) {
	g := linkGroup{ino: refs[0].row.ino}
	for _, ref := range refs {
		if len(g.members) == 0 || ref.row.sameState(g.members[0].row) || agree(t, o, g.members[0], ref) {
			g.members = append(g.members, ref)
		}
	}
	if len(g.members) < 2 {
		return
	}
	n := len(h.groups)
	h.leads[g.members[0].row] = n
	for _, m := range g.members[1:] {
		m.row.flags |= rowFollower
		m.row.place = uint32(n)
	}
	h.groups = append(h.groups, g)
}

// agree looks at two names again and reports whether they lead to one inode now.
func agree(t *scanTree, o *opener, a, b rowRef) bool {
	x, okX := lookAgain(t, o, a)
	y, okY := lookAgain(t, o, b)
	if !okX || !okY || !x.sameState(&y) {
		return false
	}
	a.row.take(&x)
	b.row.take(&y)
	return true
}

// lookAgain returns what a name is now, if that is something that is kept.
func lookAgain(t *scanTree, o *opener, ref rowRef) (row, bool) {
	var st unix.Statx_t
	fd, err := o.dir(ref.dir)
	if err == nil {
		err = statx(fd, &ref.dir.names[ref.row.name], &st)
	}
	var r row
	if err == nil {
		r.set(&st, t)
	}
	return r, err == nil && kept(&st)
}

// take replaces what the kernel says of a name, and nothing else.
func (r *row) take(now *row) {
	const seen = rowLinked | rowSparse
	name, place, extra, nameLen, flags := r.name, r.place, r.extra, r.nameLen, r.flags
	*r = *now
	r.name, r.place, r.extra, r.nameLen = name, place, extra, nameLen
	r.flags = flags&^seen | now.flags&seen
}

// promote gives groups another leader whose first one has turned out not to be there, or to be another file.
func (g *reading) promote(ctx context.Context, h *hardLinks) error {
	var w *readWorker
	for n := range h.groups {
		group := &h.groups[n]
		for len(group.members) > 1 && !group.led() {
			if w == nil {
				var err error
				if w, err = g.newWorker(); err != nil {
					return err
				}
				defer w.opener.close()
			}
			h.follow(n)
			if err := w.read(ctx, group.members[0].dir, group.members[0].row); err != nil {
				return err
			}
		}
	}
	if w == nil {
		return nil
	}
	return w.flush(ctx)
}

// led reports whether the leader has been read and is one of the group.
func (g *linkGroup) led() bool {
	r := g.members[0].row
	return !r.has(rowGone|rowUnreadable) && r.ino == g.ino
}

// follow makes the next member the leader.
func (h *hardLinks) follow(n int) {
	g := &h.groups[n]
	delete(h.leads, g.members[0].row)
	g.members = g.members[1:]
	r := g.members[0].row
	r.flags = r.flags&^rowFollower | rowTodo
	r.place = 0
	if len(g.members) > 1 {
		h.leads[r] = n
	}
}
