package volume

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// ErrOtherContent means that a template holds something else than its name says.
var ErrOtherContent = errors.New("the template holds other content than it should")

// Template is what a volume was when its content had just been written, kept as a cache: a new volume can begin with it in no more
// time than an empty one takes.
type Template struct {
	// Name of the template; it tells what its content is. At most 64 letters and digits.
	Name string
	// Bytes that it takes at most, if nothing shares them any more.
	Bytes int64
}

// Templater is a [Driver] that keeps templates. They are found again from the disk alone.
type Templater interface {
	// KeepTemplate makes a template of a volume as it is, with the staged and finished content that its marker names, in no more time
	// for much content than for little. That there is one of the name is no error. ErrCapacity if the disk is too full.
	KeepTemplate(ctx context.Context, id, name string) error
	// Templates returns all templates, ordered by name.
	Templates(ctx context.Context) ([]Template, error)
	// CloneTemplate makes a volume as Ensure does, but with the content of a template, staged. marker gets the marker that the template
	// has, and returns that of the volume; its error, ErrOtherContent for example, leaves no volume. It is told where the content lies
	// for now. ErrNotFound if there is no such template, ErrShrink if it is larger than the volume shall be. A volume that is there
	// already is returned as it is.
	CloneTemplate(ctx context.Context, name string, spec Spec, marker func(m Marker, path string) (Marker, error)) (Info, error)
	// DropTemplate removes a template; an absent one is no error. Volumes that were made from it stay.
	DropTemplate(ctx context.Context, name string) error
}

// IsAt says whether the directory at path is the one that was sealed, see [Seal].
func (c *Content) IsAt(path string) (bool, error) {
	st, err := stat(unix.AT_FDCWD, path)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil && c.is(st), err
}
