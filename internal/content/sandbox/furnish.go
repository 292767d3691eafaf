package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// newRoot is covered by the new root before that becomes the root: it is there on every system.
	newRoot = "/proc"

	shut   = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	locked = unix.MOUNT_ATTR_RDONLY | shut
)

// programs are where those of the system lie, with what they load.
func programs() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
}

// settings are what programs read: how names are resolved and whom to trust. Directories first.
func settings() (dirs, files []string) {
	return []string{"/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/etc/crypto-policies"},
		[]string{"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/ld.so.cache"}
}

func devices() []string {
	return []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
}

// tree is a part of the file system that was taken, to be put somewhere else.
type tree struct {
	to   string
	fd   int
	attr uint64
	dir  bool
}

// room is a new root in the making.
type room struct {
	trees []tree
	links map[string]string
	files map[string][]byte
}

// furnish makes a root of its own for this process: the system's programs, some settings, and the directory of the task. What it
// shows is taken before the new root covers anything.
func furnish(s setup, missing func(lack)) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	r := &room{links: map[string]string{}, files: map[string][]byte{}}
	if err := r.gather(s); err != nil {
		return err
	}
	processes, err := unix.OpenTree(unix.AT_FDCWD, "/proc", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	if err := unix.Mount("tmpfs", newRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=4m,mode=0755"); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := r.build(); err != nil {
		return err
	}
	if err := mountProcesses(s, processes, missing); err != nil {
		return err
	}
	return enterRoot()
}

// gather takes what is to be seen.
func (r *room) gather(s setup) error {
	attr := uint64(shut | unix.MOUNT_ATTR_NOEXEC)
	if s.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if err := r.take(s.Dir, place, attr); err != nil {
		return err
	}
	dirs, files := settings()
	for _, path := range append(programs(), dirs...) {
		if err := r.takeIfThere(path, locked); err != nil {
			return err
		}
	}
	for _, path := range s.Visible {
		if err := r.take(path, path, locked); err != nil {
			return err
		}
	}
	for _, path := range devices() {
		if err := r.take(path, path, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return err
		}
	}
	for _, path := range files {
		if data, err := os.ReadFile(path); err == nil {
			r.files[path] = data
		}
	}
	r.accounts(s.UID, s.GID)
	return nil
}

// accounts names the two users that there are: some programs refuse to run for one without a name.
func (r *room) accounts(uid, gid uint32) {
	r.files["/etc/passwd"], r.files["/etc/group"] = []byte("root:x:0:0::/:/bin/false\n"), []byte("root:x:0:\n")
	if uid != 0 {
		r.files["/etc/passwd"] = append(r.files["/etc/passwd"], fmt.Sprintf("workspace:x:%d:%d::/nonexistent:/bin/false\n", uid, gid)...)
	}
	if gid != 0 {
		r.files["/etc/group"] = append(r.files["/etc/group"], fmt.Sprintf("workspace:x:%d:\n", gid)...)
	}
}

func (r *room) takeIfThere(path string, attr uint64) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		r.links[path], err = os.Readlink(path)
		return err
	}
	return r.take(path, path, attr)
}

func (r *room) take(from, to string, attr uint64) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return &fs.PathError{Op: "open_tree", Path: from, Err: err}
	}
	r.trees = append(r.trees, tree{to, fd, attr, info.IsDir()})
	return nil
}

// build puts all of it below the new root.
func (r *room) build() error {
	for _, dir := range []string{"/proc", "/dev", "/etc", "/tmp"} {
		if err := os.MkdirAll(newRoot+dir, 0o755); err != nil { //nolint:gosec // the owner of the workspace passes here
			return err
		}
	}
	for path, target := range r.links {
		if err := os.Symlink(target, newRoot+path); err != nil {
			return err
		}
	}
	for path, data := range r.files {
		if err := os.WriteFile(newRoot+path, data, 0o644); err != nil { //nolint:gosec // everybody may read it
			return err
		}
	}
	if err := os.Symlink("/proc/self/fd", newRoot+"/dev/fd"); err != nil {
		return err
	}
	const scratch = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", newRoot+"/tmp", "tmpfs", scratch, "size=64m,mode=1777"); err != nil {
		return os.NewSyscallError("mount", err)
	}
	for _, t := range r.trees {
		if err := t.put(); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) put() error {
	to := newRoot + t.to
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // the owner of the workspace passes here
		return err
	}
	var err error
	if t.dir {
		err = os.MkdirAll(to, 0o755) //nolint:gosec // a mount point
	} else {
		err = os.WriteFile(to, nil, 0o644) //nolint:gosec // a mount point
	}
	if err != nil {
		return err
	}
	if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "move_mount", Path: t.to, Err: err}
	}
	if err := unix.Close(t.fd); err != nil {
		return err
	}
	return protect(to, t.attr)
}

// protect adds attributes to a mount and to all below it.
func protect(path string, attr uint64) error {
	err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr})
	if err != nil {
		return &fs.PathError{Op: "mount_setattr", Path: path, Err: err}
	}
	return nil
}

// mountProcesses shows the processes of the sandbox. The kernel refuses that to a namespace of users whose /proc is masked, as in most
// containers; then it is the one that there was.
func mountProcesses(s setup, outside int, missing func(lack)) error {
	err := errors.New("there is no namespace of processes")
	if s.Flags&unix.CLONE_NEWPID != 0 && !s.skip(ProcessView) {
		err = unix.Mount("proc", newRoot+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err == nil {
		return unix.Close(outside)
	}
	missing(lack{ProcessView, "mount /proc: " + err.Error()})
	err = unix.MoveMount(outside, "", unix.AT_FDCWD, newRoot+"/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	return unix.Close(outside)
}

// enterRoot makes the new root the root, and lets go of the old one.
func enterRoot() error {
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: locked})
	return os.NewSyscallError("mount_setattr", err)
}
