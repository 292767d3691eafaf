package archive

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// makeOthers makes what has no content: symbolic links, FIFOs, whiteouts, empty files.
func (r *restorer) makeOthers(ctx context.Context) error {
	return r.each(ctx, len(r.plan.others), func(h *hand, i int) error {
		entry := r.plan.others[i]
		if err := r.makeOther(h, entry); err != nil {
			return r.damagedEntry(entry, err)
		}
		return nil
	})
}

func (r *restorer) makeOther(h *hand, entry uint32) error {
	if e, _ := h.look(entry); e.Kind == format.KindFile {
		return r.makeEmpty(h, entry)
	}
	dir, e, err := h.enter(entry)
	if err != nil {
		return err
	}
	switch e.Kind {
	case format.KindSymlink:
		err = r.makeSymlink(dir, e)
	case format.KindFIFO:
		err = r.makeNode(dir, e.Name, &e.Meta, unix.S_IFIFO)
	case format.KindWhiteout:
		err = r.makeNode(dir, e.Name, &e.Meta, unix.S_IFCHR)
	default:
		err = fmt.Errorf("kind %d: %w", e.Kind, format.ErrUnsupported)
	}
	if err != nil {
		return err
	}
	return r.finishOther(h, dir, entry)
}

func (r *restorer) makeEmpty(h *hand, entry uint32) error {
	fd, err := r.create(h, entry, 0)
	if err != nil {
		return err
	}
	err = r.finishFile(h, fd, entry)
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	return err
}

func (r *restorer) makeSymlink(dir int, e *format.Entry) error {
	if e.Extra == nil {
		return damagedf("the symbolic link has no target")
	}
	if err := unix.Symlinkat(e.Extra.Target, dir, e.Name); err != nil {
		return err
	}
	if len(e.Extra.Xattrs) > 0 {
		return damagedf("a symbolic link has no extended attributes")
	}
	if r.o.SkipOwner || e.UID == r.uid && e.GID == r.gid {
		return nil
	}
	return r.chown(dir, e.Name, &e.Meta)
}

func (r *restorer) chown(dir int, name string, m *format.Meta) error {
	if err := unix.Fchownat(dir, name, int(m.UID), int(m.GID), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", m.UID, m.GID, err)
	}
	return nil
}

// makeNode makes a FIFO or a whiteout. A path through the descriptor is the only way to the attributes of what is not to be
// opened.
func (r *restorer) makeNode(dir int, name string, m *format.Meta, kind uint32) error {
	if err := unix.Mknodat(dir, name, kind|0o600, 0); err != nil {
		return err
	}
	fd, err := openBelow(dir, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if !r.o.SkipOwner && (m.UID != r.uid || m.GID != r.gid) {
		if err := r.chown(fd, "", m); err != nil {
			return err
		}
	}
	if err := unix.Chmod(procPath(fd), uint32(r.mode(m))); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if m.Extra == nil {
		return nil
	}
	return r.setXattrs(xattrsOfPath(fd), m.Extra.Xattrs)
}

// finishOther sets the time of what is no file, and looks whether all is as it should be.
func (r *restorer) finishOther(h *hand, dir int, entry uint32) error {
	e, in := h.look(entry)
	if err := unix.UtimesNanoAt(dir, e.Name, times(&e.Meta), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if !r.o.SkipOwner && (st.Uid != e.UID || st.Gid != e.GID) { // the directory has passed on its group
		if err := r.chown(dir, e.Name, &e.Meta); err != nil {
			return err
		}
		if err := unix.Fstatat(dir, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Uid != e.UID || st.Gid != e.GID {
			return errAttributes
		}
	}
	r.checkTime(&st, &e.Meta, func() string { return r.plan.path(entry) })
	r.stamp(in, entry, &st)
	return nil
}

// makeLinks makes the further names of files. What is known of an inode is what it is after its last name was made.
func (r *restorer) makeLinks(ctx context.Context) error {
	if err := r.removeLost(); err != nil {
		return err
	}
	err := r.each(ctx, len(r.plan.links), func(h *hand, i int) error {
		l := r.plan.links[i]
		if r.isLost(l.first) {
			r.lose(l.entry, errLost)
			return nil
		}
		if err := r.makeLink(h, l); err != nil {
			return r.failed(l.entry, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.each(ctx, len(r.plan.links), func(h *hand, i int) error {
		return r.stampLink(h, i)
	})
}

func (r *restorer) makeLink(h *hand, l link) error {
	to, e, err := h.enter(l.entry)
	if err != nil {
		return err
	}
	from, first, err := h.other.enter(l.first)
	if err != nil {
		return err
	}
	return unix.Linkat(from, first.Name, to, e.Name, 0)
}

// stampLink notes a further name. Exactly one of the names does it for the first one, too.
func (r *restorer) stampLink(h *hand, i int) error {
	l := r.plan.links[i]
	if r.isLost(l.entry) {
		return nil
	}
	dir, e, err := h.enter(l.entry)
	if err != nil {
		return r.failed(l.entry, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return r.failed(l.entry, err)
	}
	r.stamp(h.dir, l.entry, &st)
	if l.leads {
		_, first := h.other.look(l.first)
		r.stamp(first, l.first, &st)
	}
	return nil
}

// stamp notes in the index what an entry is. Rows are counted in tree order: a directory, its entries, the next directory.
func (r *restorer) stamp(dir int32, entry uint32, st *unix.Stat_t) {
	if r.ix != nil {
		r.ix.stamps[int(dir)+1+int(entry)] = stampOf(st)
	}
}

func (r *restorer) stampDir(dir int32, st *unix.Stat_t) {
	if r.ix != nil {
		r.ix.stamps[int(dir)+int(r.plan.dirs[dir].before)] = stampOf(st)
	}
}

// index returns what the next backup needs, unless the tree is not that of the backup.
func (r *restorer) index() *Index {
	if r.ix == nil || r.report.UnreadableCount > 0 && r.o.Salvage || r.foreign {
		return nil
	}
	return r.ix
}

// count makes the report from the plan: what was noted on the way served the progress only.
func (r *restorer) count() {
	p, rep := r.plan, &r.report
	rep.Files, rep.Links, rep.Others, rep.Bytes, rep.Dirs = 0, 0, 0, 0, int64(len(p.dirs))
	for d := range p.dirs {
		r.countMeta(&p.dirs[d].Meta)
		if p.dirs[d].Partial {
			rep.unreadable(p.dirPath(int32(d)), errPartial)
		}
	}
	p.files(r.countEntry)
}

func (r *restorer) countEntry(entry uint32, e *format.Entry, further bool) {
	if r.lost[entry] {
		return
	}
	if e.Flags&format.FlagUnreadable != 0 {
		r.report.unreadable(r.plan.path(entry), errNeverRead)
		return
	}
	if e.Partial && !further {
		r.report.unreadable(r.plan.path(entry), errPartial)
	}
	r.countMeta(&e.Meta)
	switch e.Kind {
	case format.KindFile:
		r.report.Files++
		if !further {
			r.report.Bytes += e.Size
		}
		if e.Flags&format.FlagChanged != 0 {
			r.report.changed(r.plan.path(entry))
		}
	case format.KindSymlink:
		r.report.Links++
	case format.KindFIFO, format.KindWhiteout:
		r.report.Others++
	}
}

func (r *restorer) countMeta(m *format.Meta) {
	r.report.newest(time.Unix(m.Sec, int64(m.Nsec)))
	if r.o.SkipOwner && (m.UID != r.uid || m.GID != r.gid) {
		r.foreign = true
	}
}
