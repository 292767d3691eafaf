package archive

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// report counts what was found, in tree order.
func (c *creation) report(digest format.Hash) {
	t := tally{tree: c.tree, links: c.links, report: &c.result.Report}
	t.report.Digest = digest.String()
	t.report.Dirs = int64(len(c.tree.order))
	for _, d := range c.tree.order {
		t.directory(d)
	}
	if t.sec != 0 || t.nsec != 0 {
		t.report.Newest = time.Unix(t.sec, int64(t.nsec))
	}
}

type tally struct {
	tree   *scanTree
	links  *hardLinks
	report *Report
	path   []byte
	sec    int64 // the newest time
	nsec   uint32
}

func (t *tally) directory(d *dirNode) {
	t.newest(d.self.sec, d.self.nsec)
	if d.parent != nil { // the root's ctime is that of its last move
		t.newest(d.self.csec, d.self.cnsec)
	}
	for i := range d.rows {
		t.row(d, &d.rows[i])
	}
	if len(d.problems) == 0 {
		return
	}
	slices.SortStableFunc(d.problems, func(a, b problem) int { return cmp.Compare(a.name, b.name) })
	t.path = d.path(t.path[:0])
	dir := string(t.path)
	for _, p := range d.problems {
		path := dir
		if p.name != "" {
			path = join(dir, p.name)
		}
		if p.err == nil {
			t.report.skipped(path)
		} else {
			t.report.unreadable(path, p.err)
		}
	}
}

func (t *tally) row(d *dirNode, r *row) {
	if r.has(rowChanged) {
		t.path = d.path(t.path[:0])
		t.report.changed(join(string(t.path), string(d.nameOf(r))))
	}
	if r.has(rowGone | rowUnreadable) {
		return
	}
	follower := r.has(rowFollower)
	if follower {
		r = t.links.groups[r.place].members[0].row
	}
	t.newest(r.sec, r.nsec)
	t.newest(r.csec, r.cnsec)
	switch r.kind() {
	case unix.S_IFREG:
		t.report.Files++
		if !follower {
			t.report.Bytes += r.size
		}
	case unix.S_IFLNK:
		t.report.Links++
	default:
		t.report.Others++
	}
}

func (t *tally) newest(sec int64, nsec uint32) {
	if sec > t.sec || sec == t.sec && nsec > t.nsec {
		t.sec, t.nsec = sec, nsec
	}
}
