package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Opened is a volume held open by the descriptors of its directories: what is done with its content is done through them. It
// has no other state, so every call looks at the disk.
type Opened struct {
	// ID of the volume.
	ID string
	// Dir is the path of its directory.
	Dir string

	dir   *os.File
	meta  *os.File // nil as long as the volume was not finished
	trash trash
}

// Open opens the volume whose directory is at dir, a path that no user can change. What is removed from the volume goes by
// way of a directory in it, so the volume may be a filesystem of its own. ErrNotFound if the directory is not there.
func Open(id, dir string) (*Opened, error) {
	f, err := os.OpenFile(dir, dirFlags, 0)
	if err != nil {
		return nil, named("open volume "+dir, err)
	}
	return open(id, dir, f, trash{})
}

// open takes the descriptors of a volume's directory and of its trash, and closes them if it fails.
func open(id, path string, dir *os.File, t trash) (*Opened, error) {
	v := &Opened{ID: id, Dir: path, dir: dir, trash: t}
	if err := v.enter(); err != nil {
		v.Close()
		return nil, named("open volume "+path, err)
	}
	return v, nil
}

// enter opens the directory that users never reach.
func (v *Opened) enter() error {
	if err := ours(v.dir); err != nil {
		return err
	}
	meta, err := openFile(int(v.dir.Fd()), metaDir, dirFlags)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", metaDir, err)
	}
	v.meta = meta
	if v.trash.above == nil {
		v.trash = trash{above: meta, name: innerTrash, path: filepath.Join(v.Dir, metaDir, innerTrash)}
	}
	return ours(meta)
}

// Close gives the descriptors up.
func (v *Opened) Close() {
	for _, f := range []*os.File{v.dir, v.meta, v.trash.above} {
		if f != nil {
			_ = f.Close() // of meta also a second time, which does nothing
		}
	}
}

// Descriptor is that of the volume's directory. It is closed with the volume.
func (v *Opened) Descriptor() *os.File { return v.dir }

// OpenContent opens the directory of content in a position, finished or not. ErrNotFound if there is none.
func (v *Opened) OpenContent(at Position) (*os.File, error) {
	for _, p := range v.places() {
		if p.at == at {
			f, err := openFile(int(p.dir.Fd()), p.name, dirFlags)
			if err != nil {
				return nil, named(fmt.Sprintf("open %s content of volume %s", at, v.ID), err)
			}
			return f, nil
		}
	}
	return nil, fmt.Errorf("open %s content of volume %s: %w", at, v.ID, ErrNotFound)
}

// OpenPublished opens the content that users see: the very directory that the marker calls finished, on the volume's own mount.
// ErrUnfinished if there is none, ErrNotFound if users do not see it.
func (v *Opened) OpenPublished() (*os.File, error) {
	at, sealed, err := v.position()
	switch {
	case err != nil:
		return nil, err
	case sealed == nil:
		return nil, ErrUnfinished
	case at != Published:
		return nil, fmt.Errorf("no content is published: %w", ErrNotFound)
	}
	dir, err := v.OpenContent(Published)
	if err != nil {
		return nil, err
	}
	is, err := v.holds(sealed, dir)
	if err == nil && !is { // it was moved an instant ago, and another directory made in its place
		err = fmt.Errorf("no content is published: %w", ErrNotFound)
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// Holds says whether an open directory, by whatever mount it was reached, is the content that the marker calls finished.
func (v *Opened) Holds(dir *os.File) (bool, error) {
	sealed, err := v.sealed()
	if err != nil || sealed == nil {
		return false, err
	}
	return v.holds(sealed, dir)
}

func (v *Opened) holds(sealed *Content, dir *os.File) (bool, error) {
	st, err := stat(int(dir.Fd()), "")
	if err != nil {
		return false, err
	}
	home, err := stat(int(v.dir.Fd()), "")
	return err == nil && sealed.is(st) && st.Dev_major == home.Dev_major && st.Dev_minor == home.Dev_minor, err
}

// place is where content can be.
type place struct {
	at   Position
	dir  *os.File
	name string
}

// places returns all of them; a volume that was not finished has none.
func (v *Opened) places() []place {
	if v.meta == nil {
		return nil
	}
	return []place{{Published, v.dir, contentDir}, {Withdrawn, v.meta, withdrawnDir}, {Staged, v.meta, stagingDir}}
}

// sealed returns the content that the marker calls finished, nil if there is none.
func (v *Opened) sealed() (*Content, error) {
	if v.meta == nil {
		return nil, nil //nolint:nilnil // no content is an ordinary state
	}
	m := &MarkerFile{path: v.Dir, dir: v.dir, meta: v.meta}
	marker, err := m.Read()
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // as above
	}
	return marker.Content, err
}

// find returns where the sealed content is. While it looks, a job may move the content from a place that is looked at
// later to one that was looked at already, so that only a second look finds it.
func (v *Opened) find(c *Content) (Position, error) {
	at, err := v.look(c)
	for range 2 {
		if at != None || err != nil {
			break
		}
		at, err = v.look(c)
	}
	return at, err
}

func (v *Opened) look(c *Content) (Position, error) {
	home, err := stat(int(v.dir.Fd()), "")
	if err != nil {
		return None, err
	}
	for _, p := range v.places() {
		st, err := stat(int(p.dir.Fd()), p.name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return None, err
		}
		// What is mounted there is another filesystem, with inode numbers of its own.
		if c.is(st) && st.Dev_major == home.Dev_major && st.Dev_minor == home.Dev_minor {
			return p.at, nil
		}
	}
	return None, nil
}
