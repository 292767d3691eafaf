package initializer

import (
	"bytes"
	"context"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// measure counts what a checkout will make, and refuses it if the volume is too small. A tree whose directories repeat each other
// can name more files than any disk holds, in a few kilobytes: the count ends there, too.
func (r *repository) measure(ctx context.Context) (files, bytes int64, err error) {
	if r.spec.Commit != "" {
		return r.measureRevision(ctx, strings.ToLower(r.spec.Commit))
	}
	return r.measureRevision(ctx, "HEAD")
}

func (r *repository) measureRevision(ctx context.Context, rev string) (files, bytes int64, err error) {
	space, err := freeSpace(r.dir)
	if err != nil {
		return 0, 0, err
	}
	counter := &treeCounter{space: space}
	args := []string{"ls-tree", "-r", "-t", "-z", "--full-tree"}
	if r.spec.Filter == "" { // else each size would be asked of the server
		args = append(args, "-l")
	}
	err = r.stream(ctx, counter, append(args, rev)...)
	if counter.refusal != nil {
		return 0, 0, counter.refusal
	}
	return counter.files, counter.bytes, err
}

// countFiles counts what lies in a working copy, without what git keeps for itself.
func countFiles(dir string) (files, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git" && path != dir:
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		info, err := d.Info()
		if err == nil {
			files, bytes = files+1, bytes+info.Size()
		}
		return err
	})
	return files, bytes, err
}

// space is what a file system has left.
type space struct {
	bytes, files int64 // files is negative if the file system does not count them
	block        int64
}

func freeSpace(dir string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return space{}, newError(Failed, err, "measure the volume: %v", err)
	}
	s := space{bytes: int64(st.Bavail) * st.Bsize, files: int64(st.Ffree), block: st.Bsize}
	if st.Files == 0 {
		s.files = -1
	}
	return s, nil
}

// treeCounter adds up what git lists: a mode, a type, an id and a size, then a name and a zero. Names may be of any length.
type treeCounter struct {
	splitter
	space        space
	entries      int64
	files, bytes int64
	taken        int64 // in whole blocks
	refusal      error
}

const maxTreeHead = 128 // without the name

// Write takes a part of the list; it fails as soon as the volume is known to be too small.
func (c *treeCounter) Write(p []byte) (int, error) { return c.split(p, maxTreeHead, c.count) }

func (c *treeCounter) count(entry []byte) error {
	info, name, _ := bytes.Cut(entry, []byte{'\t'})
	if long := c.size - len(info) - 1; long >= maxPath {
		c.refusal = newError(Invalid, nil, "the repository has a path of %d bytes, more than the %d that there may be: it begins with %q", long, maxPath-1, name)
		return c.refusal
	}
	fields := strings.Fields(string(info))
	c.entries++
	size := int64(0)
	if len(fields) >= 3 && fields[1] == "blob" {
		c.files++
	}
	if len(fields) == 4 {
		size, _ = strconv.ParseInt(fields[3], 10, 64) // 0 for what is no file
		c.bytes += size
	}
	c.taken += (size + c.space.block - 1) / c.space.block * c.space.block
	if c.taken > c.space.bytes {
		c.refusal = newError(Full, nil, "the checkout takes more than the %d MiB that the volume has left after the download: "+
			"enlarge spec.volume.size", c.space.bytes>>20)
	}
	if c.space.files >= 0 && c.entries > c.space.files {
		c.refusal = newError(Full, nil, "the checkout has more than the %d files and directories that the volume has left: "+
			"raise spec.volume.inodes or enlarge spec.volume.size", c.space.files)
	}
	return c.refusal
}
