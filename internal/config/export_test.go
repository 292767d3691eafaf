package config

import (
	"context"
	"time"
)

// Hasten shortens a watcher's pauses.
func (w *Watcher) Hasten(settle, interval time.Duration) { w.settle, w.interval = settle, interval }

// Look has a watcher look once.
func (w *Watcher) Look(ctx context.Context) bool { return w.look(ctx) }
