package quota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Audit compares what the kernel counts for a volume with what lies in it. Outside of a user namespace, the owner of a file may
// give it another project id, and root with CAP_SYS_RESOURCE may write past a limit of ext4. A difference may also come from
// files that were made and removed meanwhile, so it is believed only if a file is found that counts for another project.
func (d *Driver) Audit(ctx context.Context, id string, seen *volume.Usage) error {
	return d.With(ctx, id, "audit", func(v *volume.Opened) error {
		project, err := assigned(v)
		if err != nil {
			return err
		}
		before, err := accountOf(v.Descriptor(), project)
		if err != nil {
			return err
		}
		there, err := measure(ctx, v, seen)
		if err != nil {
			return err
		}
		own, err := ownUsage(v)
		if err != nil {
			return err
		}
		there.Bytes, there.Inodes = there.Bytes+own.Bytes, there.Inodes+own.Inodes
		return audit(ctx, v, project, before, there)
	})
}

// AuditWhole does for a file system that a volume has for itself, see [LimitWhole], what [Driver.Audit] does: files with another project
// id do not count for the limit of inodes. Nothing gets round the size of the device.
func AuditWhole(ctx context.Context, v *volume.Opened, seen *volume.Usage) error {
	before, err := accountOf(v.Descriptor(), wholeProject)
	if err != nil {
		return err
	}
	there, err := measure(ctx, v, seen)
	if err != nil {
		return err
	}
	return compare(ctx, v, wholeProject, before, there)
}

func audit(ctx context.Context, v *volume.Opened, id uint32, before account, there volume.Usage) error {
	spec, err := v.Spec()
	if err != nil {
		return err
	}
	after, err := accountOf(v.Descriptor(), id)
	if err != nil {
		return err
	}
	if most := filling(spec); most.bytes > 0 && min(before.bytes, after.bytes) > most.bytes+largestBlock {
		return &volume.EscapedError{ID: v.ID, Reason: fmt.Sprintf("it takes %d bytes, which is more than %d: "+
			"a process with the capability SYS_RESOURCE wrote past the limit", after.bytes, spec.Size)}
	}
	return compare(ctx, v, id, before, there)
}

// compare searches for what has escaped if there is more than what the kernel counts, and counted before.
func compare(ctx context.Context, v *volume.Opened, id uint32, before account, there volume.Usage) error {
	after, err := accountOf(v.Descriptor(), id)
	if err != nil {
		return err
	}
	if there.Inodes <= max(before.inodes, after.inodes) && there.Bytes <= max(before.bytes, after.bytes) {
		return nil
	}
	return search(ctx, v, id)
}

// ownUsage is that of a volume's directory, which counts for its project.
func ownUsage(v *volume.Opened) (volume.Usage, error) {
	var own unix.Stat_t
	if err := unix.Fstat(int(v.Descriptor().Fd()), &own); err != nil {
		return volume.Usage{}, fmt.Errorf("look at %s: %w", v.Dir, err)
	}
	return volume.Usage{Bytes: own.Blocks * basicBlock, Inodes: 1}, nil
}

// measure sums up what content takes; of what is published, somebody may have seen that already.
func measure(ctx context.Context, v *volume.Opened, seen *volume.Usage) (volume.Usage, error) {
	var sum volume.Usage
	err := eachContent(v, func(at volume.Position, dir *os.File) error {
		if at == volume.Published && seen != nil {
			sum.Bytes += seen.Bytes
			sum.Inodes += seen.Inodes
			return nil
		}
		usage, err := volume.Measure(ctx, dir)
		sum.Bytes += usage.Bytes
		sum.Inodes += usage.Inodes
		return err
	})
	return sum, err
}

func eachContent(v *volume.Opened, do func(at volume.Position, dir *os.File) error) error {
	for _, at := range positions() {
		f, err := v.OpenContent(at)
		if errors.Is(err, volume.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		err = do(at, f)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// search returns an *EscapedError with the first file that counts for another project, or directory that does not pass its own on.
func search(ctx context.Context, v *volume.Opened, id uint32) error {
	return eachContent(v, func(_ volume.Position, top *os.File) error {
		return volume.Walk(ctx, top, func(dir *os.File, name string, st unix.Statx_t) error {
			p, known := projectAt(dir, name, st)
			if !known || p.id == id && (p.inherit || name != "") {
				return nil
			}
			return &volume.EscapedError{ID: v.ID, Reason: fmt.Sprintf("%q has project id %d (inherited: %t) and not %d",
				pathOf(dir, name), p.id, p.inherit, id)}
		})
	})
}

// projectAt reads the project of what a walk visits. Only files and directories have one that can be read, and changed.
func projectAt(dir *os.File, name string, st unix.Statx_t) (project, bool) {
	if name == "" {
		p, err := projectOf(dir)
		return p, err == nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return project{}, false
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		return project{}, false
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	p, err := projectOf(f)
	return p, err == nil
}

// pathOf says where a file lies, for people: it may have been moved since.
func pathOf(dir *os.File, name string) string {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
	if err != nil {
		path = dir.Name()
	}
	return filepath.Join(path, name)
}
