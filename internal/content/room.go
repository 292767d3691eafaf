package content

import (
	"context"
	"fmt"
	"os"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Capacity measures the disk of a class, once that is known to be the right one.
func (k *Keeper) Capacity(ctx context.Context, class string) (volume.Capacity, error) {
	driver, ok := k.Volumes[class]
	if !ok {
		return volume.Capacity{}, fmt.Errorf("%w: %q", ErrUnknownClass, class)
	}
	if err := k.identify(ctx, class, driver); err != nil {
		return volume.Capacity{}, err
	}
	return driver.Capacity(ctx)
}

// AreaRoom measures the disk of the working area, once that is known to be the right one.
func (k *Keeper) AreaRoom() (volume.Room, error) {
	if err := k.Area.Check(); err != nil {
		return volume.Room{}, err
	}
	dir, err := os.Open(k.Area.Dir())
	if err != nil {
		return volume.Room{}, fmt.Errorf("measure working area: %w", err)
	}
	defer dir.Close()
	return volume.MeasureRoom(dir)
}

// CanEvict says whether a class has a driver that keeps caches.
func (k *Keeper) CanEvict(class string) bool {
	_, ok := k.Volumes[class].(volume.Templater)
	return ok
}

// Evict removes templates of a class, those first that were used longest ago, until its disk has enough room, or there are none
// left. It returns how many went, also beside an error.
func (k *Keeper) Evict(ctx context.Context, class string, enough func(volume.Capacity) bool) (int, error) {
	for n := 0; ; n++ {
		room, err := k.Capacity(ctx, class)
		if err != nil || enough(room) {
			return n, err
		}
		gone, err := k.EvictTemplate(ctx, class)
		if err != nil {
			return n, fmt.Errorf("evict a template of volume class %s: %w", class, err)
		}
		if !gone {
			return n, nil
		}
	}
}
