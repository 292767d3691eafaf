package content

import (
	"context"
	"errors"
	"fmt"
	"os"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Capacity measures the disk of a class, once that is known to be the right one; [ErrHangs] if it does not answer.
func (k *Keeper) Capacity(ctx context.Context, class string) (volume.Capacity, error) {
	return askClass(ctx, k, class, func(ctx context.Context, driver volume.Driver) (volume.Capacity, error) { return driver.Capacity(ctx) })
}

// List returns all volumes of a class, once its disk is known to be the right one; [ErrHangs] if it does not answer.
func (k *Keeper) List(ctx context.Context, class string) ([]volume.Info, error) {
	return askClass(ctx, k, class, func(ctx context.Context, driver volume.Driver) ([]volume.Info, error) { return driver.List(ctx) })
}

func askClass[T any](ctx context.Context, k *Keeper, class string, put func(context.Context, volume.Driver) (T, error)) (T, error) {
	return inTime(ctx, k, k.diskOf(class, ""), func(ctx context.Context) (T, error) {
		driver, err := k.driver(ctx, Subject{Class: class})
		if err != nil {
			var none T
			return none, err
		}
		return put(ctx, driver)
	})
}

// CheckArea makes sure that the working area is the one that was opened; [ErrHangs] if its disk does not answer.
func (k *Keeper) CheckArea(ctx context.Context) error {
	_, err := inTime(ctx, k, areaDisk, func(context.Context) (struct{}, error) { return struct{}{}, k.Area.Check() })
	return err
}

// AreaRoom measures the disk of the working area, once that is known to be the right one; [ErrHangs] if it does not answer.
func (k *Keeper) AreaRoom(ctx context.Context) (volume.Room, error) {
	return inTime(ctx, k, areaDisk, func(context.Context) (volume.Room, error) { return k.areaRoom() })
}

func (k *Keeper) areaRoom() (volume.Room, error) {
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

// Evict makes room on the disk of a class, until it has enough, or nothing is left that could go: volumes in use give back what they do
// not need, then templates go, those first that were used longest ago. It returns how many went, also beside an error.
func (k *Keeper) Evict(ctx context.Context, class string, enough func(volume.Capacity) bool) (int, error) {
	room, err := k.Capacity(ctx, class)
	if err != nil || enough(room) {
		return 0, err
	}
	var trimmed error
	if t, ok := k.Volumes[class].(volume.Trimmer); ok {
		if trimmed = t.Trim(ctx); trimmed != nil {
			trimmed = fmt.Errorf("volume class %s: %w", class, trimmed)
		}
	}
	for n := 0; ; n++ {
		room, err := k.Capacity(ctx, class)
		if err != nil || enough(room) {
			return n, errors.Join(trimmed, err)
		}
		gone, err := k.EvictTemplate(ctx, class)
		if err != nil {
			return n, errors.Join(trimmed, fmt.Errorf("evict a template of volume class %s: %w", class, err))
		}
		if !gone {
			return n, trimmed
		}
	}
}
