package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/lvm"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	// backendInterval is how often the disks are measured.
	backendInterval = 30 * time.Second
	// backendTimeout is how long one may take.
	backendTimeout = 20 * time.Second
)

// backends measures the disks of the node, now and then: whoever asks how they are must not wait for one that hangs.
type backends struct {
	keeper *content.Keeper

	mu      sync.Mutex
	area    measured[metrics.Area]
	classes map[string]*measured[space]
}

// space is what a volume class offers.
type space struct {
	volume.Capacity

	// data and metadata are how full a thin pool is, from 0 to 1; negative without one.
	data, metadata float64
}

// measured is what was found when a disk was looked at last. The mutex of the backends protects it.
type measured[T any] struct {
	value T
	err   error
	known bool
	busy  bool
	since time.Time // of the look that is under way
}

func newBackends(keeper *content.Keeper) *backends {
	b := &backends{keeper: keeper, classes: map[string]*measured[space]{}}
	for name := range keeper.Volumes {
		b.classes[name] = &measured[space]{}
	}
	return b
}

// run measures until ctx ends.
func (b *backends) run(ctx context.Context) error {
	wait.UntilWithContext(ctx, b.look, backendInterval)
	return nil
}

// look measures everything that is not being measured still, and waits for it no longer than it may take.
func (b *backends) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	looks := make([]<-chan struct{}, 0, 1+len(b.classes))
	looks = append(looks, measure(ctx, &b.mu, &b.area, b.measureArea))
	for name, class := range b.classes {
		looks = append(looks, measure(ctx, &b.mu, class, func(ctx context.Context) (space, error) { return b.measureClass(ctx, name) }))
	}
	for _, done := range looks {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// measure begins to measure unless that is under way, and returns what tells of the end.
func measure[T any](ctx context.Context, mu *sync.Mutex, m *measured[T], call func(context.Context) (T, error)) <-chan struct{} {
	done := make(chan struct{})
	mu.Lock()
	defer mu.Unlock()
	if m.busy {
		close(done)
		return done
	}
	m.busy, m.since = true, time.Now()
	go func() {
		defer close(done)
		value, err := call(ctx)
		mu.Lock()
		defer mu.Unlock()
		m.value, m.err, m.known, m.busy = value, err, true, false
	}()
	return done
}

// state returns what was measured, and why that cannot be relied on. The mutex is held.
func (m *measured[T]) state() (T, error) {
	switch {
	case m.busy && time.Since(m.since) > backendTimeout:
		return m.value, fmt.Errorf("the disk has not answered for %s", time.Since(m.since).Round(time.Second))
	case !m.known:
		return m.value, errors.New("the disk has not been looked at yet")
	default:
		return m.value, m.err
	}
}

func (b *backends) measureArea(context.Context) (metrics.Area, error) {
	area := b.keeper.Area
	_, err := area.Identity()
	if err == nil {
		err = area.Check()
	}
	if err != nil {
		return metrics.Area{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(area.Dir(), &fs); err != nil {
		return metrics.Area{}, fmt.Errorf("measure %s: %w", area.Dir(), err)
	}
	return metrics.Area{Up: true, Size: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize}, nil
}

func (b *backends) measureClass(ctx context.Context, name string) (space, error) {
	s := space{data: -1, metadata: -1}
	var err error
	if s.Capacity, err = b.keeper.Capacity(ctx, name); err != nil {
		return s, err
	}
	pool, ok := b.keeper.Volumes[name].(interface {
		Fill(ctx context.Context) (lvm.Fill, error)
	})
	if !ok {
		return s, nil
	}
	fill, err := pool.Fill(ctx)
	if err == nil {
		s.data, s.metadata = fill.Data/100, fill.Metadata/100
	}
	return s, err
}

// usable says why a volume class cannot be used; nil if all can.
func (b *backends) usable(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(b.classes)) {
		if _, err := b.classes[name].state(); err != nil {
			errs = append(errs, fmt.Errorf("volume class %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// areaUsable says why the working area cannot be used; nil if it can.
func (b *backends) areaUsable(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.area.state()
	return err
}

// report is what is known of the disks, and of the volumes on them by the journal.
func (b *backends) report(entries []state.Entry) (metrics.Area, map[string]*metrics.Class) {
	b.mu.Lock()
	defer b.mu.Unlock()
	area, err := b.area.state()
	area.Up = err == nil
	classes := map[string]*metrics.Class{}
	for name, m := range b.classes {
		s, err := m.state()
		c := &metrics.Class{Name: name, Driver: b.keeper.Volumes[name].Name(), Up: err == nil, Data: -1, Metadata: -1, Fullest: -1}
		if err == nil {
			c.Size, c.Allocated, c.Free, c.Data, c.Metadata = s.Size, s.Allocated, s.Free, s.data, s.metadata
		}
		classes[name] = c
	}
	for _, e := range entries {
		c := classes[e.Class]
		if c == nil { // it was taken out of the configuration while it had volumes
			c = &metrics.Class{Name: e.Class, Data: -1, Metadata: -1, Fullest: -1}
			classes[e.Class] = c
		}
		c.Volumes++
		c.Used += e.Usage.Bytes
		if e.Usage.Escaped != "" {
			c.Escaped++
		}
	}
	return area, classes
}
