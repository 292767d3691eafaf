package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// innerTrash is the trash of volumes that have one of their own, in metaDir.
const innerTrash = "trash"

// trash is a directory from which things are removed that were moved into it, on the same filesystem. Names in it are those of
// [trashName]. It is made when it is needed.
type trash struct {
	above *os.File
	name  string
	path  string
}

// EmptyTrash finishes removals in the volume that were interrupted.
func (v *Opened) EmptyTrash(ctx context.Context) error {
	if v.trash.above == nil {
		return nil
	}
	return v.trash.empty(ctx, v.ID+".")
}

// discard moves a directory of a volume to the trash, and empties the trash of that volume. path is that of the directory.
func (t trash) discard(ctx context.Context, id string, dir *os.File, name, path string) error {
	if err := unmounted(path); err != nil {
		return err
	}
	if err := mkdir(int(t.above.Fd()), t.name, 0o700); err != nil {
		return err
	}
	trash, err := openFile(int(t.above.Fd()), t.name, dirFlags)
	if err != nil {
		return err
	}
	defer trash.Close()
	from := int(dir.Fd())
	if err := insist(from, name, func() error { return move(from, name, int(trash.Fd()), trashName(id)) }); err != nil {
		return err
	}
	faults.Point("volume.remove.trash")
	return t.empty(ctx, id+".")
}

func trashName(id string) string { return id + "." + rand.Text() }

// unmounted refuses a directory with mounts in it: to remove below them would empty another volume.
func unmounted(path string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return fmt.Errorf("read the table of mounts: %w", err)
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is a mount: %w", mounts[0].Mountpoint, ErrInUse)
	}
	return nil
}

// empty removes everything in the trash whose name begins with prefix.
func (t trash) empty(ctx context.Context, prefix string) error {
	trash, err := openFile(int(t.above.Fd()), t.name, dirFlags)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer trash.Close()
	for {
		names, err := trashed(trash, prefix)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			id, _, _ := strings.Cut(name, ".")
			r := remover{trash: int(trash.Fd()), id: id}
			if err := r.entry(ctx, int(trash.Fd()), name, 0); err != nil {
				return fmt.Errorf("remove %s: %w", filepath.Join(t.path, name), err)
			}
		}
	}
}

func trashed(trash *os.File, prefix string) ([]string, error) {
	names, err := rewound(trash, -1)
	if err != nil {
		return nil, err
	}
	matching := names[:0]
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			matching = append(matching, name)
		}
	}
	return matching, nil
}
