package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/syncfs"
)

const (
	metaDir      = ".ws"
	markerFile   = "marker"
	markerFormat = 1
)

// ErrDamaged means that a marker or a volume's description cannot be understood; the error names the file.
var ErrDamaged = errors.New("damaged")

// Marker lies beside the content, out of the users' reach, and says whose it is.
type Marker struct {
	// Format of the file, 1; filled in when it is written.
	Format int `json:"format"`
	// UID, namespace and name of the Workspace object.
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Cluster is the UID of kube-system, Node the node's name, Area the id of its working area.
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Area    string `json:"area"`
	// Claim under which the content is held.
	Claim int64 `json:"claim"`
	// Content is the finished content, nil as long as it is not.
	Content *Content `json:"content,omitempty"`
	// Prepared is the content of a template that the volume was made from; nil if there was none. It is staged, and does not count as
	// finished: whether it is what the workspace needs is found out later.
	Prepared *Content `json:"prepared,omitempty"`
	// Released is the backup ("7.2") under which the content was released, "" while it is held.
	Released string `json:"released,omitempty"`
}

// Content describes finished content and says which directory it is.
type Content struct {
	// Source of the content, "Backup" or "Git" for example, and the backup that it was restored from.
	Source string `json:"source"`
	Backup string `json:"backup,omitempty"`
	// SnapshotID that it was restored from, and the branch and commit that it was cloned at.
	SnapshotID string `json:"snapshotID,omitempty"`
	// Template names what was restored in a way that equals only for equal content of one domain; "" if nothing was.
	Template string `json:"template,omitempty"`
	// Cloned says that it was not restored, but copied from the template of that name. Otherwise NotCloned may say why.
	Cloned    bool   `json:"cloned,omitempty"`
	NotCloned string `json:"notCloned,omitempty"`
	Branch    string `json:"branch,omitempty"`
	Commit    string `json:"commit,omitempty"`
	// Duration of the work.
	Duration time.Duration `json:"duration,omitempty"`
	// Finished is when it was complete.
	Finished time.Time `json:"finished"`
	// Device, Inode and Born (the time of its creation in nanoseconds since 1970, 0 if the filesystem does not tell)
	// identify the directory; filled in by [Seal]. Device numbers change when a node starts: Device is for people.
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Born   int64  `json:"born,omitempty"`
	// Files and Bytes that were written.
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
	// Steps are what the content was made of, in order.
	Steps []Step `json:"steps,omitempty"`
}

// Step is one of the things that content was made of.
type Step struct {
	// Source is the kind, as that of [Content]; From the URL, or the id of a snapshot.
	Source string `json:"source"`
	From   string `json:"from,omitempty"`
	// Branch and Commit that were checked out, if any.
	Branch string `json:"branch,omitempty"`
	Commit string `json:"commit,omitempty"`
	// Files and Bytes that were written, and how long it took.
	Files    int64         `json:"files,omitempty"`
	Bytes    int64         `json:"bytes,omitempty"`
	Duration time.Duration `json:"duration,omitempty"`
	// Message says what else is worth knowing.
	Message string `json:"message,omitempty"`
}

// is tells whether st is the directory that was sealed. Inode numbers are used again; the time of birth tells them apart.
func (c *Content) is(st unix.Statx_t) bool {
	return c != nil && isDir(st) && st.Ino == c.Inode && (c.Born == 0 || born(st) == c.Born)
}

func born(st unix.Statx_t) int64 {
	if st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
}

// MarkerFile is a volume held open, so that a job can tell whether its path still leads there.
type MarkerFile struct {
	path string
	dir  *os.File
	meta *os.File
}

// OpenMarker opens a volume by its directory. ErrNotFound if the volume is not there, or was not finished.
func OpenMarker(info Info) (*MarkerFile, error) {
	dir, err := os.OpenFile(info.Dir, dirFlags, 0)
	if err != nil {
		return nil, named("open volume "+info.Dir, err)
	}
	meta, err := openFile(int(dir.Fd()), metaDir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		err = ours(meta)
	}
	m := &MarkerFile{path: info.Dir, dir: dir, meta: meta}
	if err != nil {
		_ = m.Close()
		return nil, named("open "+filepath.Join(info.Dir, metaDir), err)
	}
	return m, nil
}

// Close gives the volume up.
func (m *MarkerFile) Close() error {
	if m.meta == nil {
		return m.dir.Close()
	}
	return errors.Join(m.meta.Close(), m.dir.Close())
}

// Read returns the marker. ErrNotFound if there is none, ErrDamaged if it is not understood.
func (m *MarkerFile) Read() (Marker, error) {
	data, err := readSmall(int(m.meta.Fd()), markerFile)
	if err != nil {
		return Marker{}, named("read marker "+m.name(), err)
	}
	var marker Marker
	if err := json.Unmarshal(data, &marker); err != nil {
		return Marker{}, fmt.Errorf("read marker %s: %w: %w", m.name(), ErrDamaged, err)
	}
	if marker.Format != markerFormat {
		return Marker{}, fmt.Errorf("read marker %s: %w: format %d is not understood by this version", m.name(), ErrDamaged, marker.Format)
	}
	return marker, nil
}

// Write replaces the marker. After nil the new one survives a crash; else it is the old or the new one.
func (m *MarkerFile) Write(marker Marker) error {
	marker.Format = markerFormat
	data, err := json.MarshalIndent(marker, "", "  ")
	if err != nil {
		return fmt.Errorf("write marker %s: %w", m.name(), err)
	}
	faults.Point("volume.marker.before")
	if err := replaceFile(int(m.meta.Fd()), markerFile, append(data, '\n')); err != nil {
		return fmt.Errorf("write marker %s: %w", m.name(), err)
	}
	faults.Point("volume.marker.after")
	return nil
}

// Check tells whether the path still leads to the directory, on the mount, that was opened: ErrReplaced if not.
func (m *MarkerFile) Check() error {
	held, err := stat(int(m.dir.Fd()), "")
	if err != nil {
		return fmt.Errorf("check volume %s: %w", m.path, err)
	}
	now, err := stat(unix.AT_FDCWD, m.path)
	if errors.Is(err, unix.ENOENT) || err == nil && (!sameFile(held, now) || held.Mnt_id != now.Mnt_id) {
		return fmt.Errorf("check volume %s: %w", m.path, ErrReplaced)
	}
	if err != nil {
		return fmt.Errorf("check volume %s: %w", m.path, err)
	}
	return nil
}

func (m *MarkerFile) name() string { return filepath.Join(m.path, metaDir, markerFile) }

// ReadMarker reads the marker of a volume, see [MarkerFile.Read].
func ReadMarker(info Info) (Marker, error) {
	m, err := OpenMarker(info)
	if err != nil {
		return Marker{}, err
	}
	defer m.Close()
	return m.Read()
}

// WriteMarker replaces the marker of a volume, see [MarkerFile.Write].
func WriteMarker(info Info, marker Marker) error {
	m, err := OpenMarker(info)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Write(marker)
}

// Flush writes out everything that is dirty in the filesystem of the directory at path. Until a page is written out, stores
// through a mapping of it change no time of its file; the first one after that does.
func Flush(ctx context.Context, path string) error {
	dir, err := os.OpenFile(path, dirFlags, 0)
	if err != nil {
		return named("flush "+path, err)
	}
	defer dir.Close()
	if err := syncfs.Sync(ctx, int(dir.Fd())); err != nil {
		return fmt.Errorf("flush %s: %w", path, err)
	}
	return nil
}

// Seal flushes the filesystem of the content directory at path and returns c with the directory's identity. A marker
// may call content finished only after this: a crash of the node must not keep the marker and lose the files.
func Seal(ctx context.Context, path string, c Content) (Content, error) {
	dir, err := os.OpenFile(path, dirFlags, 0)
	if err != nil {
		return c, named("seal content "+path, err)
	}
	defer dir.Close()
	if err := syncfs.Sync(ctx, int(dir.Fd())); err != nil {
		return c, fmt.Errorf("seal content %s: %w", path, err)
	}
	st, err := stat(int(dir.Fd()), "")
	if err != nil {
		return c, fmt.Errorf("seal content %s: %w", path, err)
	}
	c.Device, c.Inode, c.Born = unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, born(st)
	return c, nil
}

// named adds what was done to an error, and ErrNotFound where that is what it means.
func named(what string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return fmt.Errorf("%s: %w", what, err)
}
