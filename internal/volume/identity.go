package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// identityOf is the file in a driver's root that says whose volumes lie there.
const identityOf = ".owner"

// Identify writes the owner's mark into the root, or compares it. A root without a mark that must have one is the mount point
// of a disk that is missing, for all that can be seen.
func (d *Directory) Identify(_ context.Context, owner string, known bool) error {
	root, st, err := d.look() // maybe another directory than the one the driver was made with
	if err != nil {
		return fmt.Errorf("open volume root: %w: %w", ErrOtherDisk, err)
	}
	defer root.Close()
	if err := d.mark(root, owner, known); err != nil {
		return err
	}
	d.is.Store(&st)
	return nil
}

func (d *Directory) mark(root *os.File, owner string, known bool) error {
	path := filepath.Join(d.root, identityOf)
	data, err := readSmall(int(root.Fd()), identityOf)
	mark := strings.TrimSpace(string(data))
	switch {
	case errors.Is(err, unix.ENOENT) && !known:
		if err := replaceFile(int(root.Fd()), identityOf, []byte(owner+"\n")); err != nil {
			return fmt.Errorf("mark %s: %w", path, err)
		}
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %s is not there, although there are volumes of this class: mount their disk; "+
			"only if that is lost for good, write %s into that file to begin with an empty one", ErrOtherDisk, path, owner)
	case err != nil:
		return fmt.Errorf("read %s: %w", path, err)
	case mark != owner:
		return fmt.Errorf("%w: %s names working area %q, this is %s: mount the right disk", ErrOtherDisk, path, mark, owner)
	default:
		return nil
	}
}
