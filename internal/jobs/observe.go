package jobs

import "time"

// Load is how busy a class is.
type Load struct {
	// Limit is how many jobs may run at a time.
	Limit int
	// Running and Queued are how many do, and how many wait.
	Running, Queued int
	// Oldest is when the first one of those that wait was accepted; the zero time if none does.
	Oldest time.Time
}

// OnEnd has observe called with the last state of every job that ended, on the job's goroutine. Jobs that a shutdown ended are left
// out. It is to be called before the first Start.
func (m *Manager) OnEnd(observe func(Key, State)) { m.observe = observe }

// SetLimits changes how many jobs of each class run at a time. Those that run go on; those that wait are let in if there is room now.
func (m *Manager) SetLimits(limits map[Class]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for class, limit := range limits {
		m.limits[class] = limit
		m.admit(class)
	}
}

// Loads returns how busy all classes are that have a limit.
func (m *Manager) Loads() map[Class]Load {
	m.mu.Lock()
	defer m.mu.Unlock()
	loads := make(map[Class]Load, len(m.limits))
	for class, limit := range m.limits {
		load := Load{Limit: limit, Running: m.running[class], Queued: len(m.queues[class])}
		if load.Queued > 0 {
			load.Oldest = m.queues[class][0].state.Queued
		}
		loads[class] = load
	}
	return loads
}
