package lvm

import (
	"context"
	"sync"
	"time"
)

// recentFor is how long a report serves those that look for a volume, or make one. Every pass over a workspace that has none yet looks
// for it, and LVM takes its time. Nobody but us makes or removes our volumes, and what we do ends it at once.
const recentFor = 3 * time.Second

// latest is the last report. The zero value is none.
type latest struct {
	mu     sync.Mutex
	report report
	at     time.Time
	// orders have been given to LVM, and are over.
	orders int
}

// changed drops the report, and any that is being made.
func (l *latest) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = time.Time{}
	l.orders++
}

// begin returns what keep has to be told.
func (l *latest) begin() (at time.Time, orders int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now(), l.orders
}

// keep keeps a report, unless something was changed since it was begun.
func (l *latest) keep(r report, at time.Time, orders int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if orders == l.orders && at.After(l.at) {
		l.report, l.at = r, at
	}
}

func (l *latest) get() (report, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.report, !l.at.IsZero() && time.Since(l.at) < recentFor
}

// recent returns what the volume group had a moment ago. Whoever removes something looks anew.
func (d *Driver) recent(ctx context.Context) (report, error) {
	if r, ok := d.latest.get(); ok {
		return r, nil
	}
	return d.report(ctx)
}
