package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// opened is a volume held open by descriptors. A volume that was not finished has no meta.
type opened struct {
	id              string
	path            string
	root, dir, meta *os.File
}

func (d *Directory) volume(ctx context.Context, id string) (*opened, error) {
	if err := check(ctx, id); err != nil {
		return nil, err
	}
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	v := &opened{id: id, path: filepath.Join(d.root, id), root: root}
	if err := v.open(); err != nil {
		v.Close()
		return nil, named("open volume "+v.path, err)
	}
	return v, nil
}

func (v *opened) open() error {
	var err error
	if v.dir, err = openFile(int(v.root.Fd()), v.id, dirFlags); err != nil {
		return err
	}
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
	return ours(meta)
}

// Close gives the descriptors up.
func (v *opened) Close() {
	for _, f := range []*os.File{v.meta, v.dir, v.root} {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (v *opened) described() (description, error) {
	if v.meta == nil {
		return description{}, nil
	}
	data, err := readSmall(int(v.meta.Fd()), descriptionOf)
	if errors.Is(err, unix.ENOENT) {
		return description{}, nil
	}
	name := filepath.Join(v.path, metaDir, descriptionOf)
	if err != nil {
		return description{}, fmt.Errorf("read %s: %w", name, err)
	}
	var is description
	if err := json.Unmarshal(data, &is); err != nil {
		return description{}, fmt.Errorf("read %s: %w: %w", name, ErrDamaged, err)
	}
	return is, nil
}

// place is where content can be.
type place struct {
	at   Position
	dir  *os.File
	name string
}

// places returns all of them; a volume that was not finished has none.
func (v *opened) places() []place {
	if v.meta == nil {
		return nil
	}
	return []place{{Published, v.dir, contentDir}, {Withdrawn, v.meta, withdrawnDir}, {Staged, v.meta, stagingDir}}
}

// sealed returns the content that the marker calls finished, nil if there is none.
func (v *opened) sealed() (*Content, error) {
	if v.meta == nil {
		return nil, nil //nolint:nilnil // no content is an ordinary state
	}
	m := &MarkerFile{path: v.path, dir: v.dir, meta: v.meta}
	marker, err := m.Read()
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // as above
	}
	return marker.Content, err
}

// find returns where the sealed content is. While it looks, a job may move the content from a place that is looked at
// later to one that was looked at already, so that only a second look finds it.
func (v *opened) find(c *Content) (Position, error) {
	at, err := v.look(c)
	for range 2 {
		if at != None || err != nil {
			break
		}
		at, err = v.look(c)
	}
	return at, err
}

func (v *opened) look(c *Content) (Position, error) {
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
