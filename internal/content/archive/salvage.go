package archive

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

var (
	errLostDir   = errors.New("the attributes of the directory are lost")
	errNeverRead = errors.New("it could not be read when the backup was made")
	errPartial   = errors.New("not all of its extended attributes could be read when the backup was made")
	errLost      = fmt.Errorf("its content is lost: %w", format.ErrDamaged)
)

// damaged notes what a restore leaves out.
func (r *restorer) damaged(path string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.unreadable(path, err)
}

// lose notes an entry that is not made, once.
func (r *restorer) lose(entry uint32, err error) {
	r.mu.Lock()
	known := r.lost[entry]
	if r.lost == nil {
		r.lost = map[uint32]bool{}
	}
	r.lost[entry] = true
	r.mu.Unlock()
	if !known {
		r.damaged(r.plan.path(entry), err)
	}
}

func (r *restorer) isLost(entry uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost[entry]
}

// damagedFrame says what cannot be restored because a frame cannot be read; nil if that is to be lived with.
func (r *restorer) damagedFrame(refs []ref, number uint32, err error) error {
	err = ofFrame(&r.plan.frames[number], err)
	if r.o.Salvage && !fatal(err) {
		for _, ref := range refs {
			r.lose(ref.entry, err)
		}
		return nil
	}
	if n := len(refs) - 1; n > 0 {
		return fmt.Errorf("read %s and what follows it (%d in all): %w", display(r.plan.path(refs[0].entry)), n+1, err)
	}
	return fmt.Errorf("read %s: %w", display(r.plan.path(refs[0].entry)), err)
}

// damagedFile says why a file could not be written; nil if its content is damaged and that is to be lived with.
func (r *restorer) damagedFile(entry, number uint32, err error) error {
	if !errors.Is(err, format.ErrDamaged) {
		return r.failed(entry, err)
	}
	return r.damagedEntry(entry, ofFrame(&r.plan.frames[number], err))
}

// damagedEntry is damagedFile for what is in no frame.
func (r *restorer) damagedEntry(entry uint32, err error) error {
	if !r.o.Salvage || !errors.Is(err, format.ErrDamaged) {
		return r.failed(entry, err)
	}
	r.lose(entry, err)
	return nil
}

func (r *restorer) failed(entry uint32, err error) error {
	return fmt.Errorf("write %s: %w", display(r.plan.path(entry)), err)
}

// removeLost removes what was begun before it turned out to be damaged.
func (r *restorer) removeLost() error {
	h := r.hands[0]
	for entry := range r.lost {
		dir, e, err := h.enter(entry)
		if err == nil {
			err = unix.Unlinkat(dir, e.Name, 0)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove %s, which is damaged: %w", display(r.plan.path(entry)), err)
		}
	}
	return nil
}
