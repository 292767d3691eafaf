package quota

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// wholeProject is the project of the content in a file system that a volume has for itself. What else lies there is ours.
const wholeProject = 1

const (
	// reserve is what content leaves of such a file system: a workspace that has used up its volume must still get a new marker.
	reserve = 8 << 20
	// fillReserve is what is left of that while users have not seen the content: a restored tree may need some blocks more for its
	// directories than the one that was backed up had.
	fillReserve = 4 << 20
)

// LimitWhole limits the content of a file system which a volume has for itself to what the file system has, less a reserve, and to a
// number of inodes, 0 for no limit. [volume.ErrUnlimited] where there is no project quota. On ext4, this process is not bound by it as
// long as it has CAP_SYS_RESOURCE, without which it cannot grow file systems; the device binds everybody.
func LimitWhole(v *volume.Opened, inodes int64) error {
	at, err := v.Position()
	if err != nil {
		return err
	}
	if at == volume.Published || at == volume.Withdrawn {
		return limitWhole(v.Descriptor(), inodes, reserve)
	}
	return limitWhole(v.Descriptor(), inodes, fillReserve)
}

// LimitWholeForUsers sets the limits for content that users are going to see.
func LimitWholeForUsers(v *volume.Opened) error {
	spec, err := v.Spec()
	if err != nil {
		return err
	}
	return limitWhole(v.Descriptor(), spec.Inodes, reserve)
}

// limitWhole leaves so many bytes of a file system, whose top is root, to its content.
func limitWhole(root *os.File, inodes, keep int64) error {
	_, enforced, err := state(root)
	if err == nil && !enforced {
		err = fmt.Errorf("%w: %s is mounted without project quota", volume.ErrUnlimited, root.Name())
	}
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return fmt.Errorf("ask for the size of the file system of %s: %w", root.Name(), err)
	}
	used, err := accountOf(root, wholeProject)
	if err != nil {
		return err
	}
	// What the file system keeps for itself is in its size, but not in what is free.
	bytes := int64(st.Bavail)*st.Bsize + used.bytes - keep
	return setLimits(root, wholeProject, limits{bytes: max(bytes, block), inodes: inodes})
}

// EncloseWhole makes staged content, which must be empty, subject to the limits of the volume, and sets these.
func EncloseWhole(v *volume.Opened) error {
	content, err := v.OpenContent(volume.Staged)
	if err != nil {
		return err
	}
	defer content.Close()
	if err := setProject(content, project{id: wholeProject, inherit: true}); err != nil {
		return err
	}
	spec, err := v.Spec()
	if err != nil {
		return err
	}
	return LimitWhole(v, spec.Inodes)
}

// UsageOfWhole measures the content of a file system for which LimitWhole was called.
func UsageOfWhole(root *os.File) (volume.Usage, error) {
	a, err := accountOf(root, wholeProject)
	return volume.Usage{Bytes: a.bytes, Inodes: a.inodes}, err
}
