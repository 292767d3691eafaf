package quota

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

// Range of project ids, both ends included.
type Range struct{ First, Last uint32 }

// DefaultRange is used where nothing else is configured. It is far from the ids that people write into /etc/projid, and below
// those that the kubelet takes.
func DefaultRange() Range { return Range{First: 200_000, Last: 299_999} }

// allocator gives ids of a range to directories.
type allocator struct {
	ids  Range
	mu   sync.Mutex
	next uint32 // where to look first
}

// assign gives a free id to a directory, which has none and is empty. It is the caller's when the kernel counts one inode for
// it; two that took the same id at the same time see more.
func (a *allocator) assign(dir *os.File) (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range uint64(a.ids.Last-a.ids.First) + 1 {
		id := a.candidate()
		taken, err := take(dir, id)
		if err != nil {
			return 0, err
		}
		if taken {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no project id from %d to %d is free: give the volume class a larger range of its own", a.ids.First, a.ids.Last)
}

func (a *allocator) candidate() uint32 {
	id := max(a.next, a.ids.First)
	a.next = id + 1
	if id >= a.ids.Last {
		a.next = a.ids.First
	}
	return id
}

// take puts a directory into a project if it is free, and reports whether it is alone there.
func take(dir *os.File, id uint32) (bool, error) {
	was, err := accountOf(dir, id)
	if err != nil || !was.free() {
		return false, err
	}
	if err := setProject(dir, project{id: id}); err != nil {
		return false, err
	}
	faults.Point("quota.assign")
	is, err := accountOf(dir, id)
	if err == nil && is.inodes == 1 && is.limits == (limits{}) {
		return true, nil
	}
	return false, errors.Join(err, setProject(dir, project{}))
}

// release removes the limits of a project for which no file counts; one that is still in use keeps them.
func release(f *os.File, id uint32) error {
	a, err := accountOf(f, id)
	if err != nil || !a.empty() || a.free() {
		return err
	}
	return setLimits(f, id, limits{})
}

// releaseLeft releases what a crash left in the range: limits are set after a directory got the id, so that the id of a volume
// always counts an inode.
func (r Range) releaseLeft(f *os.File) error {
	for id := r.First; ; id++ {
		a, err := nextAccount(f, id)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || err == nil && (a.id > r.Last || a.id < id) {
			return nil
		}
		if err == nil && a.empty() {
			err = release(f, a.id)
		}
		if err != nil || a.id == r.Last {
			return err
		}
		id = a.id
	}
}
