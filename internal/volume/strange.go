package volume

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lostAndFound is made by some file systems.
const lostAndFound = "lost+found"

// Strange returns a *[ForeignError] if a directory, which is at path, has something in it that a volume without content does not have:
// then somebody else made it, or has put something there.
func Strange(dir *os.File, path string) error {
	names, err := rewound(dir, -1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == metaDir || (name == contentDir || name == lostAndFound) && isEmpty(dir, name) {
			continue
		}
		return &ForeignError{Path: filepath.Join(path, name), Reason: "it is not of a volume, but lies where one is or shall be"}
	}
	return nil
}

// isEmpty says whether a name is a directory without anything in it, and no mount.
func isEmpty(dir *os.File, name string) bool {
	f, err := openFile(int(dir.Fd()), name, dirFlags)
	if err != nil {
		return false
	}
	defer f.Close()
	names, err := rewound(f, 1)
	return err == nil && len(names) == 0
}

// unoccupied refuses a directory that somebody else made at the name of a volume. One that is empty may be what a crash left of ours.
func (d *Directory) unoccupied(root *os.File, id string) error {
	dir, err := openFile(int(root.Fd()), id, dirFlags)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := stat(int(dir.Fd()), metaDir); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return Strange(dir, d.Dir(id))
}
