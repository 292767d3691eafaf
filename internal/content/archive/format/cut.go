package format

// PathHash is the state of FNV-1a over the path of a directory: what a walk keeps for every directory that it is in.
type PathHash uint64

// RootHash is the hash of the root's path.
const RootHash PathHash = 14695981039346656037

const (
	fnvPrime = 1099511628211
	cutMin   = 64       // rows before a page may end
	cutMask  = 1<<8 - 1 // one row in 256 begins a page
	cutBytes = 8 << 20  // names, targets and attributes at which a page ends in any case
)

// HashPath is the hash of a path.
func HashPath(path string) PathHash { return RootHash.add(path) }

// Child is the hash of the path of a subdirectory.
func (h PathHash) Child(name string) PathHash {
	if h != RootHash {
		h = (h ^ '/') * fnvPrime
	}
	return h.add(name)
}

func (h PathHash) add(s string) PathHash {
	for i := range len(s) {
		h = (h ^ PathHash(s[i])) * fnvPrime
	}
	return h
}

// cuts reports whether a page may begin with that name; it is empty for the directory itself.
func (h PathHash) cuts(name string) bool {
	return (h*fnvPrime).add(name)&cutMask == 0 // the NUL between path and name changes nothing but by the multiplication
}

// Cutter decides where pages begin: by names, so that an edit moves no boundary but its own, and before a limit of pages is
// passed. The zero value is at the beginning of a tree.
type Cutter struct {
	rows  int
	bytes int
	sum   weight
	path  string // of the directory before
}

// Dir counts a directory, whose path has that hash, and reports whether a new page begins with it. It is never true for
// the first row of a tree.
func (c *Cutter) Dir(h PathHash, d *Dir) bool {
	return c.row(h, "", d.Path, pathCost(c.path, d.Path), d.Extra, 0)
}

// Entry counts an entry of the directory of that path and hash, and reports whether a new page begins with it: one whose
// first directory is that one, continued.
func (c *Cutter) Entry(h PathHash, path string, e *Entry) bool {
	return c.row(h, e.Name, path, 0, e.Extra, 1)
}

// row counts a row. continued is the number of rows that a page has more if it begins here.
func (c *Cutter) row(h PathHash, name, path string, cost int, x *Extra, continued int) bool {
	next := *c
	next.rows++
	next.path = path
	next.sum.paths += cost
	next.add(name, x)
	cut := c.rows > 0 && (c.rows >= cutMin && h.cuts(name) || next.full())
	if cut {
		next = Cutter{rows: 1 + continued, path: path, sum: weight{paths: len(path)}}
		next.add(name, x)
	}
	*c = next
	return cut
}

func (c *Cutter) full() bool {
	return c.rows > MaxPageRows || c.bytes > cutBytes || c.sum.exceeds()
}

func (c *Cutter) add(name string, x *Extra) {
	c.sum.add(x)
	c.bytes += len(name)
	if x == nil {
		return
	}
	c.bytes += len(x.Target)
	for _, a := range x.Xattrs {
		c.bytes += len(a.Name) + len(a.Value)
	}
}
