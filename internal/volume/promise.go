package volume

import (
	"context"
	"fmt"
	"sync"
)

// promises are the sizes of a disk's volumes. The disk has them all, if their sum stays within what it has.
type promises struct {
	kept bool // else more may be promised than there is

	mu    sync.Mutex
	sizes map[string]int64 // by id; nil as long as nobody has looked
}

// KeepWithinDisk has the driver refuse volumes whose sizes would be more than the disk's, together: ErrCapacity. It comes before anything
// else.
func (d *Directory) KeepWithinDisk() { d.promises.kept = true }

// Promise makes or grows a volume if the disk has room for its size, whatever others use of theirs. A size that was promised before is kept.
func (d *Directory) Promise(ctx context.Context, spec Spec, do func() error) error {
	if !d.promises.kept {
		return do()
	}
	d.promises.mu.Lock()
	defer d.promises.mu.Unlock()
	if d.promises.sizes == nil {
		if err := d.countPromises(ctx); err != nil {
			return err
		}
	}
	if spec.Size > d.promises.sizes[spec.ID] {
		if err := d.admit(spec); err != nil {
			return err
		}
	}
	err := do()
	if err == nil {
		d.promises.sizes[spec.ID] = max(d.promises.sizes[spec.ID], spec.Size)
	}
	return err
}

// countPromises reads the sizes of all volumes from the disk.
func (d *Directory) countPromises(ctx context.Context) error {
	list, err := d.List(ctx)
	if err != nil {
		return err
	}
	d.promises.sizes = make(map[string]int64, len(list))
	for _, v := range list {
		d.promises.sizes[v.ID] = v.Size
	}
	return nil
}

// admit refuses what the disk cannot have beside the other volumes.
func (d *Directory) admit(spec Spec) error {
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	room, err := MeasureRoom(root)
	if err != nil {
		return err
	}
	promised := d.promises.sum() - d.promises.sizes[spec.ID]
	if promised+spec.Size <= room.Size {
		return nil
	}
	return fmt.Errorf("%w: the disk of %s has %d bytes, of which %d are promised to other volumes, and %d are asked for: enlarge it, "+
		"remove workspaces, or let the class overcommit", ErrCapacity, d.root, room.Size, promised, spec.Size)
}

func (p *promises) sum() (sum int64) {
	for _, size := range p.sizes {
		sum += size
	}
	return sum
}

// forget takes a promise back.
func (p *promises) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sizes, id)
}

// spare returns what a disk of a size may still promise, nil if it may promise anything.
func (p *promises) spare(size int64, volumes []Info) *int64 {
	if !p.kept {
		return nil
	}
	left := size
	for _, v := range volumes {
		left -= v.Size
	}
	left = max(0, left)
	return &left
}
