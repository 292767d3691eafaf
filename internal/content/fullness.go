package content

import (
	"context"
	"errors"
	"os"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Part is how much there is of something, and how much of it is used and left.
type Part struct{ Total, Used, Free int64 }

// Fullness is how full a volume is for those who use it.
type Fullness struct{ Bytes, Inodes Part }

// Fullness measures a volume, by the filesystem of a directory of it. A limited one has what it is limited to, and uses what the disk has
// counted. Where nothing limits it, it has the disk, and uses what the last backup saw: counting would read the whole tree.
func (k *Keeper) Fullness(ctx context.Context, s Subject, dir *os.File) (Fullness, error) {
	driver, err := k.driver(ctx, s)
	if err != nil {
		return Fullness{}, err
	}
	info, err := driver.Get(ctx, s.UID)
	if err != nil {
		return Fullness{}, err
	}
	disk, err := volume.MeasureRoom(dir)
	if err != nil && !errors.Is(err, volume.ErrReadOnly) {
		return Fullness{}, err
	}
	if !info.Limited {
		e, _ := k.Area.Journal().Get(s.UID)
		return Fullness{
			Bytes: Part{disk.Size, e.Usage.Bytes, disk.Free}, Inodes: Part{disk.Inodes, e.Usage.Inodes, disk.FreeInodes},
		}, nil
	}
	usage, err := driver.Usage(ctx, s.UID)
	return Fullness{
		Bytes: part(info.Size, usage.Bytes, disk.Size, disk.Free), Inodes: part(info.Inodes, usage.Inodes, disk.Inodes, disk.FreeInodes),
	}, err
}

// part is what a limit leaves of a disk; 0 is no limit.
func part(limit, used, size, free int64) Part {
	if limit == 0 {
		return Part{size, used, free}
	}
	return Part{limit, used, min(max(0, limit-used), free)}
}
