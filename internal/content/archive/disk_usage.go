package archive

import "golang.org/x/sys/unix"

// DiskUsage is what a tree takes where it lies: its top, directories and whatever is not kept included.
type DiskUsage struct {
	// Bytes that are allocated, and Inodes. A file with several names counts once.
	Bytes, Inodes int64
}

// usageMeter adds up what a goroutine of a scan sees.
type usageMeter struct {
	sum    DiskUsage
	linked []linkedInode // files that have other names, so that others may see them, too
}

type linkedInode struct {
	ino   uint64
	bytes int64
}

func (m *usageMeter) count(tree *scanTree, st *unix.Statx_t) {
	const block = 512
	bytes := int64(st.Blocks) * block
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		m.linked = append(m.linked, linkedInode{tree.inode(st), bytes})
		return
	}
	m.sum.Bytes += bytes
	m.sum.Inodes++
}

// total adds up what all goroutines have seen.
func total(meters []usageMeter) DiskUsage {
	var sum DiskUsage
	seen := map[uint64]bool{}
	for _, m := range meters {
		sum.Bytes += m.sum.Bytes
		sum.Inodes += m.sum.Inodes
		for _, l := range m.linked {
			if seen[l.ino] {
				continue
			}
			seen[l.ino] = true
			sum.Bytes += l.bytes
			sum.Inodes++
		}
	}
	return sum
}
