package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Errors of drivers, for errors.Is.
var (
	// ErrNotSupported means that the driver cannot do it for any volume.
	ErrNotSupported = errors.New("not supported by this volume driver")
	// ErrNotFound means that there is no such volume, or no such content in it.
	ErrNotFound = errors.New("not found")
	// ErrInUse means that something is mounted below what should be moved or removed.
	ErrInUse = errors.New("in use")
	// ErrShrink means that a volume would have become smaller.
	ErrShrink = errors.New("a volume never shrinks")
	// ErrFinished means that finished content would have been removed without anyone having said so in the marker.
	ErrFinished = errors.New("the marker says that this content is finished")
	// ErrUnfinished means that content would have been published that the marker does not call finished.
	ErrUnfinished = errors.New("the marker does not say that this content is finished")
	// ErrUnlimited means that the disk cannot limit volumes, or not as it is mounted; the error says what is missing.
	ErrUnlimited = errors.New("the size of volumes cannot be limited here")
	// ErrReplaced means that a path does not lead to the directory any more that was opened.
	ErrReplaced = errors.New("the disk was unmounted or replaced: mount it again and restart the daemon")
	// ErrOtherDisk means that the driver's disk is not the one on which the node's volumes lie.
	ErrOtherDisk = errors.New("this is not the disk of this node's volumes")
)

// ForeignError says that something lies where content has to go which is not that content, and is not empty either.
type ForeignError struct {
	// Path that is occupied.
	Path string
	// Reason tells what lies there.
	Reason string
}

// Error names the path and says what to do.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is in the way (%s): move it elsewhere", e.Path, e.Reason)
}

// EscapedError says that the limit of a volume does not bind what is in it.
type EscapedError struct {
	// ID of the volume.
	ID string
	// Reason tells what was found.
	Reason string
}

// Error names the volume and what was found.
func (e *EscapedError) Error() string {
	return fmt.Sprintf("content of volume %s has escaped from its limit: %s", e.ID, e.Reason)
}

// Auditor is a [Driver] whose limits privileged users can get round.
type Auditor interface {
	// Audit looks for content that its volume's limit does not bind, and returns an *EscapedError if it finds any. there is what somebody
	// who has just looked at the published content has seen of it; nil to look now. Only if that is more than what the limit counts,
	// the whole tree is searched.
	Audit(ctx context.Context, id string, there *Usage) error
}

// Mounter is a [Driver] each of whose volumes lies on a disk of its own: if one hangs, the others may be well.
type Mounter interface {
	// MountPoint returns where the disk of a volume is mounted.
	MountPoint(id string) string
}

// Spec is what a volume shall be.
type Spec struct {
	// ID is the UID of the object: 1 to 64 letters, digits and hyphens.
	ID string
	// Size in bytes and number of inodes, 0 for no limit.
	Size, Inodes int64
}

// Info is what a volume is.
type Info struct {
	ID string
	// Dir is the volume's directory.
	Dir string
	// Path is where users find the content, whether it is there now or not: Dir/content.
	Path string
	// Size in bytes that was asked for, 0 for no limit; also of a volume that was not finished.
	Size int64
	// Inodes that were asked for, 0 for no limit.
	Inodes int64
	// Limited tells whether the size is enforced.
	Limited bool
}

// Usage is what a volume uses of its limits.
type Usage struct {
	// Bytes allocated on disk. A file with several names counts once.
	Bytes int64
	// Inodes of any type.
	Inodes int64
}

// View is a read-only image of a volume's content at one moment.
type View struct {
	// Path of the content in the image.
	Path string
	// Close gives the image up.
	Close func() error
}

// Position tells where the content of a volume is.
type Position string

// The positions of content.
const (
	// None means that there is no content, or none that the marker knows.
	None Position = ""
	// Staged means out of the users' reach and never seen by them yet. It is finished only if the marker says so.
	Staged Position = "Staged"
	// Published means that users see it.
	Published Position = "Published"
	// Withdrawn means that users saw it, and do not any more.
	Withdrawn Position = "Withdrawn"
)

// Driver makes volumes on one disk. All methods are idempotent and may be repeated after a crash at any instruction;
// methods for different volumes may run at the same time, those for one volume should not, except for those that only
// read. A volume that is not there is ErrNotFound unless the method says otherwise.
//
// The life of content is: Stage, fill it, [Seal] it, write the marker with what Seal returned, Publish; later Withdraw,
// and Publish again or Remove.
type Driver interface {
	// Name of the driver, "directory" for example.
	Name() string
	// Identify makes sure that the disk is the owner's, and marks it as such if it has no mark and none of the owner's volumes
	// is known to lie on it. ErrOtherDisk if it is not. It comes before anything else is believed.
	Identify(ctx context.Context, owner string, known bool) error
	// Ensure makes the volume, or finishes or returns the one there is. It does not change a size: see Resize.
	Ensure(ctx context.Context, spec Spec) (Info, error)
	// Get returns a volume, finished or not.
	Get(ctx context.Context, id string) (Info, error)
	// Resize makes a volume larger; ErrShrink if it would become smaller. No limit is larger than any.
	Resize(ctx context.Context, spec Spec) (Info, error)
	// Usage measures a volume. It may have to read the whole tree: give it a deadline.
	Usage(ctx context.Context, id string) (Usage, error)
	// Snapshot makes a read-only view of the content; ErrNotSupported.
	Snapshot(ctx context.Context, id string) (View, error)
	// Clone makes a volume with the finished content of another, staged and without a marker: [Seal] it, and write one that
	// says whose it is. ErrNotSupported, ErrUnfinished, ErrShrink if the other is larger.
	Clone(ctx context.Context, from string, spec Spec) (Info, error)
	// Remove removes a volume with everything in it, and what an earlier Remove left. An absent one is no error.
	// ErrInUse if something is mounted in it; then nothing has changed.
	Remove(ctx context.Context, id string) error
	// Sweep finishes all removals that were interrupted.
	Sweep(ctx context.Context) error
	// List returns all volumes on the disk, also unfinished ones, ordered by ID.
	List(ctx context.Context) ([]Info, error)
	// Capacity measures the disk.
	Capacity(ctx context.Context) (Capacity, error)

	// Position tells where the content is. Where the marker names a finished directory, only that one counts; else it
	// is Staged if there is a staging directory, and None if not.
	Position(ctx context.Context, id string) (Position, error)
	// Path returns where content in a position lies, whether there is any or not; "" for None.
	Path(id string, at Position) string
	// Stage makes an empty staging directory (0700, owned by the daemon) and returns its path. Unfinished content of an
	// earlier attempt is removed; finished content is ErrFinished: discard it or rewrite the marker first.
	Stage(ctx context.Context, id string) (string, error)
	// Publish moves finished content, staged or withdrawn, to where users find it. An empty directory there is removed,
	// anything else is a *ForeignError. ErrUnfinished if the marker names no content, ErrNotFound if what it names is
	// not there.
	Publish(ctx context.Context, id string) error
	// Withdraw moves published content out of the users' reach. What they have open stays open, and their mounts of it
	// keep working; a driver that can tell that anybody has either puts the content back, and that is ErrInUse. Staged content is
	// ErrNotFound. A *ForeignError if other content was withdrawn before.
	Withdraw(ctx context.Context, id string) error
	// Discard removes content that is Staged or Withdrawn, whatever the marker says. Absent content is no error.
	Discard(ctx context.Context, id string, at Position) error
	// OpenPublished opens the content that users see, and nothing that lies in its place: the directory that the marker calls
	// finished, on the volume's disk. ErrUnfinished if the marker names no content, ErrNotFound if users do not see it.
	OpenPublished(ctx context.Context, id string) (*os.File, error)
	// Holds says whether an open directory is the volume's finished content, in whatever position and by whatever mount.
	Holds(ctx context.Context, id string, dir *os.File) (bool, error)
}

// ValidID returns an error unless id can name a volume.
func ValidID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if id == "" || len(id) > 64 || strings.Trim(id, letters) != "" {
		return fmt.Errorf("volume id %q: it needs 1 to 64 letters, digits and hyphens", id)
	}
	return nil
}
