package archive

import (
	"golang.org/x/sys/unix"
)

// maxOpenDirs is how many directories an opener keeps open. A path of [maxPathLen] has no more than that many checkpoints:
// of two successive distances between them, one at least is more than half of [maxLookup].
const maxOpenDirs = 160

const (
	dirFlags  = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOATIME
	fileFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_NOATIME
)

// opener opens the directories of a tree one after the other. It keeps open what leads to the last one, so that a
// neighbour is one short look-up away, however deep it lies. It is used by one goroutine.
type opener struct {
	open  []openDir // from the root down
	chain []*dirNode
	path  []byte
	dirs  unix.OpenHow
}

type openDir struct {
	node *dirNode
	fd   int
}

// newOpener begins at the root's descriptor, which stays the caller's.
func newOpener(root *dirNode, fd int) *opener {
	return &opener{open: []openDir{{root, fd}}, dirs: unix.OpenHow{Flags: dirFlags, Resolve: beneath}}
}

func (o *opener) close() { o.closeDownTo(1) }

func (o *opener) closeDownTo(n int) {
	for _, d := range o.open[n:] {
		_ = unix.Close(d.fd)
	}
	o.open = o.open[:n]
}

// dir returns a descriptor of a directory. It is good until the next call.
func (o *opener) dir(d *dirNode) (int, error) {
	at := o.ancestor(d)
	for i := len(o.chain) - 1; i >= 0; {
		o.path = o.path[:0]
		for ; i >= 0 && len(o.path)+len(o.chain[i].name) < maxLookup; i-- {
			if len(o.path) > 0 {
				o.path = append(o.path, '/')
			}
			o.path = append(o.path, o.chain[i].name...)
		}
		o.path = append(o.path, 0)
		fd, err := openReading(at, &o.path[0], &o.dirs)
		if err != nil {
			return -1, err
		}
		o.open = append(o.open, openDir{o.chain[i+1], fd})
		at = fd
	}
	o.thin()
	return at, nil
}

// ancestor finds the innermost open directory above d, or d itself, and collects in chain what lies between, from d up.
func (o *opener) ancestor(d *dirNode) int {
	o.chain = o.chain[:0]
	for {
		top := len(o.open) - 1
		for top > 0 && o.open[top].node != d && o.open[top].node.depth >= d.depth {
			top--
		}
		o.closeDownTo(top + 1)
		if o.open[top].node == d {
			return o.open[top].fd
		}
		o.chain = append(o.chain, d)
		d = d.parent
	}
}

// thin closes directories so that those left are never further apart than one look-up reaches.
func (o *opener) thin() {
	for len(o.open) > maxOpenDirs {
		i := 1
		for i < len(o.open)-2 && o.open[i+1].node.pathLen-o.open[i-1].node.pathLen > maxLookup {
			i++
		}
		_ = unix.Close(o.open[i].fd)
		o.open = append(o.open[:i], o.open[i+1:]...)
	}
}
