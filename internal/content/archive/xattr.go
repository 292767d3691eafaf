package archive

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// maxXattrs is the size of all attributes of one file together, names included.
const maxXattrs = 1 << 20

// opaque is overlayfs' mark for a directory that hides the one below it. Like whiteouts it is content of an upper directory;
// only root sees and sets it.
const opaque = "trusted.overlay.opaque"

// keptXattr tells which attributes belong to the content. Others belong to the node: labels of its security module, and all
// other trusted attributes, which mean something to one mount or one filesystem only.
func keptXattr(name string) bool {
	switch name {
	case "system.posix_acl_access", "system.posix_acl_default", "security.capability", opaque:
		return true
	}
	return strings.HasPrefix(name, "user.") && len(name) > len("user.")
}

// xattrCalls are the system calls on the attributes of one open file.
type xattrCalls struct {
	list   func(buf []byte) (int, error)
	get    func(name string, buf []byte) (int, error)
	set    func(name string, value []byte) error
	remove func(name string) error
}

// xattrsOf returns the calls for a file that is open for reading or writing.
func xattrsOf(fd int) xattrCalls {
	return xattrCalls{
		list:   func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		get:    func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) },
		set:    func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) },
		remove: func(name string) error { return unix.Fremovexattr(fd, name) },
	}
}

// xattrsOfPath returns the calls for a file opened with O_PATH. It must not be a symbolic link.
func xattrsOfPath(fd int) xattrCalls {
	path := procPath(fd)
	return xattrCalls{
		list:   func(buf []byte) (int, error) { return unix.Listxattr(path, buf) },
		get:    func(name string, buf []byte) (int, error) { return unix.Getxattr(path, name, buf) },
		set:    func(name string, value []byte) error { return unix.Setxattr(path, name, value, 0) },
		remove: func(name string) error { return unix.Removexattr(path, name) },
	}
}

// readXattrs returns the attributes that belong to the content, sorted by name. Those read before an error come with it.
func readXattrs(calls xattrCalls) ([]format.Xattr, error) {
	names, err := listXattrs(calls)
	if err != nil {
		return nil, err
	}
	var found []format.Xattr
	size := 0
	for _, name := range names {
		value, err := grow(256, func(buf []byte) (int, error) { return calls.get(name, buf) })
		if errors.Is(err, unix.ENODATA) { // removed since it was listed
			continue
		}
		if err != nil {
			return found, fmt.Errorf("read attribute %q: %w", name, err)
		}
		if size += len(name) + len(value); size > maxXattrs {
			return found, fmt.Errorf("the extended attributes are larger than %d KiB together", maxXattrs>>10)
		}
		found = append(found, format.Xattr{Name: name, Value: value})
	}
	return found, nil
}

func listXattrs(calls xattrCalls) ([]string, error) {
	list, err := grow(256, calls.list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var names []string
	for name := range strings.SplitSeq(string(list), "\x00") {
		if keptXattr(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// grow calls until the buffer is large enough: what is read may grow as well.
func grow(size int, call func([]byte) (int, error)) ([]byte, error) {
	for {
		buf := make([]byte, size)
		n, err := call(buf)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			size *= 4
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n:n], nil
	}
}

func writeXattrs(calls xattrCalls, attrs []format.Xattr) error {
	for _, a := range attrs {
		if err := calls.set(a.Name, a.Value); err != nil {
			return fmt.Errorf("set attribute %q: %w", a.Name, err)
		}
	}
	return nil
}

// clearXattrs removes what a directory has inherited, above all a default ACL that would spread to everything in it.
func clearXattrs(calls xattrCalls) error {
	names, err := listXattrs(calls)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := calls.remove(name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute %q: %w", name, err)
		}
	}
	return nil
}
