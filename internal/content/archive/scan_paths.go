package archive

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

const (
	// longPath is the length of a path in bytes that programs can use in a system call.
	longPath = 4096
	// maxTablePaths is what the paths in a page table may take, with some distance to what the format allows.
	maxTablePaths = 48 << 20
)

var errTooLongPaths = errors.New("the paths below it are longer than 4,096 bytes, and there are too many of them")

// limitPaths leaves out what is below very long paths if there is too much of it for a page table. Nobody but an attacker
// makes such a tree, and everything else in it is to be kept all the same.
func (t *scanTree) limitPaths() {
	deep := false
	for _, d := range t.order {
		deep = deep || d.pathLen > longPath
	}
	if !deep || t.tablePaths() <= maxTablePaths {
		return
	}
	for _, d := range t.order {
		if d.pathLen > longPath && d.parent.pathLen <= longPath {
			d.gone = true
			d.parent.late = append(d.parent.late, lateRow{d.name, row{mode: unix.S_IFREG, flags: rowUnreadable}})
			d.parent.problems = append(d.parent.problems, problem{d.name, errTooLongPaths})
		}
	}
	t.order, t.count = nil, 0
	t.settle()
}

// tablePaths is the size of the paths with which the pages will begin.
func (t *scanTree) tablePaths() int {
	var cutter format.Cutter
	var slab pathSlab
	var path []byte
	first, size := "", 0
	begins := func(path string) {
		size += len(path)
		if strings.HasPrefix(path, first) {
			size -= len(first)
		}
		first = path
	}
	for _, d := range t.order {
		path = d.pathAfter(path)
		dir := format.Dir{Path: slab.add(path)}
		if d.parent != nil {
			d.hash = d.parent.hash.Child(d.name)
		}
		if cutter.Dir(d.hash, &dir) {
			begins(dir.Path)
		}
		for i := range d.rows {
			e := format.Entry{Name: string(d.nameOf(&d.rows[i]))}
			if cutter.Entry(d.hash, dir.Path, &e) {
				begins(dir.Path)
			}
		}
		if size > maxTablePaths {
			break
		}
	}
	return size
}
