package archive

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxXattrs keeps the attributes of one file within what a tar reader accepts in a PAX header (1 MiB).
const maxXattrs = 640 << 10

type xattr struct{ name, value string }

// keptXattr tells which attributes belong to the content. Others belong to the node: labels of its security module,
// trusted attributes of its filesystems.
func keptXattr(name string) bool {
	switch name {
	case "system.posix_acl_access", "system.posix_acl_default", "security.capability":
		return true
	}
	return strings.HasPrefix(name, "user.") && len(name) > len("user.")
}

// readXattrs returns the attributes of an open file (O_PATH will do), sorted by name.
func readXattrs(fd int) ([]xattr, error) {
	path := procPath(fd)
	names, err := listXattrs(path)
	if err != nil {
		return nil, err
	}
	var found []xattr
	size := 0
	for _, name := range names {
		value, err := getXattr(path, name)
		if errors.Is(err, unix.ENODATA) { // removed since it was listed
			continue
		}
		if err != nil {
			return found, fmt.Errorf("read attribute %q: %w", name, err)
		}
		if size += len(name) + 2*len(value) + 64; size > maxXattrs {
			return found, fmt.Errorf("the extended attributes are larger than %d KiB together", maxXattrs>>10)
		}
		found = append(found, xattr{name, value})
	}
	return found, nil
}

func listXattrs(path string) ([]string, error) {
	list, err := grow(256, func(buf []byte) (int, error) { return unix.Listxattr(path, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var names []string
	for name := range strings.SplitSeq(list, "\x00") {
		if keptXattr(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func getXattr(path, name string) (string, error) {
	return grow(256, func(buf []byte) (int, error) { return unix.Getxattr(path, name, buf) })
}

// grow calls until the buffer is large enough: what is read may grow as well.
func grow(size int, call func([]byte) (int, error)) (string, error) {
	for {
		buf := make([]byte, size)
		n, err := call(buf)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			size *= 4
			continue
		}
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
}

func writeXattrs(fd int, attrs []xattr) error {
	for _, a := range attrs {
		if err := unix.Setxattr(procPath(fd), a.name, []byte(a.value), 0); err != nil {
			return fmt.Errorf("set attribute %q: %w", a.name, err)
		}
	}
	return nil
}

// clearXattrs removes what a directory has inherited, above all a default ACL that would spread to everything in it.
func clearXattrs(fd int) error {
	names, err := listXattrs(procPath(fd))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := unix.Removexattr(procPath(fd), name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute %q: %w", name, err)
		}
	}
	return nil
}
