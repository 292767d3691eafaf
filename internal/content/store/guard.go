package store

import (
	"context"
	"errors"
)

// Guard is a store that is written to only after a probe has found it fit. One that cannot be reached is probed again at the next write,
// so that an outage at the start delays nothing else. Reading needs no probe: what is there may be the only copy.
type Guard struct {
	Store

	turn    chan struct{} // holds a token while somebody probes
	fitness *Fitness
	unfit   *UnfitError
}

// NewGuard guards a store.
func NewGuard(s Store) *Guard { return &Guard{Store: s, turn: make(chan struct{}, 1)} }

// Probe returns what the probe found, and makes it if there was none yet. Its errors are those of the function [Probe]; that a store is unfit
// holds until the next start.
func (g *Guard) Probe(ctx context.Context) (Fitness, error) {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return Fitness{}, context.Cause(ctx)
	}
	if g.unfit != nil {
		return Fitness{}, g.unfit
	}
	if g.fitness != nil {
		return *g.fitness, nil
	}
	fitness, err := Probe(ctx, g.Store)
	if err == nil {
		g.fitness = &fitness
	}
	errors.As(err, &g.unfit)
	return fitness, err
}

// Put creates an object if the store is fit.
func (g *Guard) Put(ctx context.Context, key string, data []byte) error {
	if _, err := g.Probe(ctx); err != nil {
		return err
	}
	return g.Store.Put(ctx, key, data)
}

// Delete removes objects if the store is fit.
func (g *Guard) Delete(ctx context.Context, keys ...string) error {
	if _, err := g.Probe(ctx); err != nil {
		return err
	}
	return g.Store.Delete(ctx, keys...)
}

// Sweep removes what killed writers left.
func (g *Guard) Sweep(ctx context.Context) error { return Sweep(ctx, g.Store) }
