package csi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

const (
	pathFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// resolve keeps what is below the kubelet's directory there. Mounts may be crossed: they are what this is about.
	resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	// mostMounts is how many mounts may lie on one another.
	mostMounts = 16
)

// Errors of mounts, for errors.Is.
var (
	errOutside  = errors.New("it is no place for volumes of pods in the kubelet's directory")
	errPrivate  = errors.New("mounts of the daemon do not reach the node")
	errOccupied = errors.New("something else is there")
)

// kubelet is the directory below which the kubelet has volumes mounted. Nobody but root can change what lies between it and a target,
// and nothing there is followed that is a link.
type kubelet struct {
	dir string // as the kubelet calls it
}

// spot is what lies at a target.
type spot struct {
	// dir is what is mounted there, or the directory itself; nil if there is none. It can only be the start of other calls.
	dir *os.File
	// mounted says whether something is mounted there.
	mounted bool
	// mount is the id of the mount.
	mount int
}

func (s spot) close() {
	if s.dir != nil {
		_ = s.dir.Close()
	}
}

// relative returns a target's path below the directory; errOutside if it has none.
func (k kubelet) relative(target string) (string, error) {
	if !filepath.IsAbs(target) || filepath.Clean(target) != target {
		return "", fmt.Errorf("%q: %w: it is no clean absolute path", target, errOutside)
	}
	below, found := strings.CutPrefix(target, filepath.Clean(k.dir)+"/")
	if !found || podOf(target) == "" {
		return "", fmt.Errorf("%s: %w, %s: set csi.kubeletDir of the daemon's configuration to the kubelet's --root-dir", target, errOutside, k.dir)
	}
	return below, nil
}

// podOf returns the UID of the pod that a target belongs to, by the path that the kubelet has for the volumes of CSI drivers:
// …/pods/UID/volumes/kubernetes.io~csi/NAME/mount. It is empty for other paths.
func podOf(target string) string {
	of, _, found := strings.Cut(target, "/volumes/kubernetes.io~csi/")
	if !found || filepath.Base(filepath.Dir(of)) != "pods" {
		return ""
	}
	return filepath.Base(of)
}

// parent opens the directory of a target, and returns the target's name in it.
func (k kubelet) parent(target string) (*os.File, string, error) {
	below, err := k.relative(target)
	if err != nil {
		return nil, "", err
	}
	root, err := os.OpenFile(k.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open the kubelet's directory: %w", err)
	}
	defer root.Close()
	parent, err := openBelow(root, filepath.Dir(below))
	if err != nil {
		return nil, "", fmt.Errorf("open the directory of %s: %w", target, err)
	}
	return parent, filepath.Base(below), nil
}

func openBelow(dir *os.File, name string) (*os.File, error) {
	how := &unix.OpenHow{Flags: pathFlags, Resolve: resolve}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, how)
		// EAGAIN: something was renamed while the kernel looked, and it could not be sure to be still beneath.
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// at looks at a target. One that is not there, or whose directory is not, has nothing in it.
func (k kubelet) at(target string) (spot, error) {
	parent, name, err := k.parent(target)
	if errors.Is(err, os.ErrNotExist) {
		return spot{}, nil
	}
	if err != nil {
		return spot{}, err
	}
	defer parent.Close()
	s, err := look(parent, name)
	if err != nil {
		return spot{}, fmt.Errorf("look at %s: %w", target, err)
	}
	return s, nil
}

func look(parent *os.File, name string) (spot, error) {
	dir, err := openBelow(parent, name)
	if errors.Is(err, unix.ENOENT) {
		return spot{}, nil
	}
	if err != nil {
		return spot{}, err
	}
	s := spot{dir: dir}
	var st unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MNT_ID, &st); err != nil {
		s.close()
		return spot{}, err
	}
	s.mounted, s.mount = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, int(st.Mnt_id)
	return s, nil
}

// mount mounts a directory that is held open on a target, whose directory must be there. It does so by descriptors: no path is
// looked up between what was found out about them and the mount. Nothing in it makes a device or gives rights.
func (k kubelet) mount(content *os.File, target string, readOnly bool) error {
	parent, name, err := k.parent(target)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", target, err)
	}
	faults.Point("csi.mount.made")
	there, err := look(parent, name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", target, err)
	}
	defer there.close()
	if err := free(there, parent, name); err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	if err := shared(there.mount); err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	return bind(content, there.dir, target, readOnly)
}

// free fails unless a target is an empty directory that nothing is mounted on.
func free(there spot, parent *os.File, name string) error {
	if there.mounted {
		return fmt.Errorf("%w: another mount", errOccupied)
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if len(names) > 0 {
		return fmt.Errorf("%w: %q, which was written while nothing was mounted there: move it away", errOccupied, names[0])
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// bind makes a mount of its own for a directory, and moves it to its place when it is as it shall be.
func bind(content, place *os.File, target string, readOnly bool) error {
	tree, err := unix.OpenTree(int(content.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("mount on %s: copy the mount of the content: %w", target, err)
	}
	defer unix.Close(tree)
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if readOnly {
		attributes.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attributes); err != nil {
		return fmt.Errorf("mount on %s: set nosuid, nodev and the like: %w", target, err)
	}
	if err := unix.MoveMount(tree, "", int(place.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	faults.Point("csi.mounted")
	return nil
}

// entry returns what the table of mounts has about one.
func entry(mount int) (*mountinfo.Info, error) {
	table, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.ID != mount, m.ID == mount })
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	if len(table) == 0 {
		return nil, fmt.Errorf("mount %d is not in the table of mounts", mount)
	}
	return table[0], nil
}

// readOnly says whether a mount was made so. A file system that is read-only as a whole, as after an error of its disk, does not make
// its mounts so.
func readOnly(mount int) (bool, error) {
	m, err := entry(mount)
	if err != nil {
		return false, err
	}
	return slices.Contains(strings.Split(m.Options, ","), "ro"), nil
}

// shared fails unless what is mounted on a mount appears in the namespaces that it was made for: that of the node, where the kubelet
// and the containers are.
func shared(mount int) error {
	m, err := entry(mount)
	if err != nil {
		return err
	}
	if strings.Contains(" "+m.Optional, " shared:") {
		return nil
	}
	return fmt.Errorf("%w: %s is not a shared mount: let the DaemonSet mount it with mountPropagation Bidirectional", errPrivate, m.Mountpoint)
}

// unmount takes away all that is mounted on a target, and the directory. That there is nothing is no error.
func (k kubelet) unmount(target string) error {
	parent, name, err := k.parent(target)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	for range mostMounts {
		there, err := look(parent, name)
		there.close() // or it would keep the mount busy
		if err != nil {
			return fmt.Errorf("look at %s: %w", target, err)
		}
		if !there.mounted {
			return remove(parent, name, target)
		}
		path := fmt.Sprintf("/proc/self/fd/%d/%s", parent.Fd(), name)
		if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
		faults.Point("csi.unmounted")
	}
	return fmt.Errorf("unmount %s: there are more than %d mounts on it", target, mostMounts)
}

func remove(parent *os.File, name, target string) error {
	err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", target, err)
	}
	faults.Point("csi.removed")
	return nil
}

// seen fails unless mounts for pods can be seen from here: where they cannot, that there is none says nothing.
func (k kubelet) seen() error {
	root, err := os.OpenFile(k.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the kubelet's directory: %w", err)
	}
	defer root.Close()
	pods, err := look(root, "pods")
	if err != nil {
		return fmt.Errorf("look at %s/pods: %w", k.dir, err)
	}
	defer pods.close()
	if pods.dir == nil {
		return fmt.Errorf("%s/pods is not there: mount it with mountPropagation Bidirectional, or set csi.kubeletDir to the kubelet's --root-dir", k.dir)
	}
	return shared(pods.mount)
}

// mounts returns the paths of all mounts below the directory, ordered, without touching any of them.
func (k kubelet) mounts() ([]string, error) {
	if err := k.seen(); err != nil {
		return nil, err
	}
	// The table has paths without links.
	dir, err := filepath.EvalSymlinks(k.dir)
	if err != nil {
		return nil, fmt.Errorf("open the kubelet's directory: %w", err)
	}
	table, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	var targets []string
	for _, m := range table {
		if below, err := filepath.Rel(dir, m.Mountpoint); err == nil && below != "." {
			targets = append(targets, filepath.Join(k.dir, below))
		}
	}
	slices.Sort(targets)
	return slices.Compact(targets), nil
}
