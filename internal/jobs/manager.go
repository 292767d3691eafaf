package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// ProgressInterval is the shortest time between two notifications of one job's progress.
	ProgressInterval = 2 * time.Second
	// Grace is what a job gets to return after its timeout, until it is overdue.
	Grace = time.Minute

	// reliefFactor is how many times the limit of its class may run when some have waited too long.
	reliefFactor = 3
)

// Manager starts, bounds, cancels and remembers jobs. All methods may be called from any goroutine.
type Manager struct {
	clock   Clock
	notify  func(Key)
	observe func(Key, State)
	root    context.Context //nolint:containedctx // jobs outlive the calls that start them
	stop    context.CancelCauseFunc
	group   sync.WaitGroup

	mu      sync.Mutex
	limits  map[Class]int
	patient map[Class]time.Duration // how long jobs wait for those that hold the places
	stopped bool
	jobs    map[Key]*job
	active  map[string]Key
	running map[Class]int
	queues  map[Class][]*job
}

// job is one entry; all fields that change are protected by the manager's mutex.
type job struct {
	key      Key
	state    State
	timeout  time.Duration
	fn       Func
	ctx      context.Context //nolint:containedctx // this is the job's own context
	cancel   context.CancelCauseFunc
	since    time.Time // by the system's clock
	relief   *time.Timer
	admitted chan struct{}
	notified time.Time
}

// New returns a manager that runs at most limits[c] jobs of class c at a time; a class without a limit runs one. A nil
// clock is the system's.
//
// notify is called after each end of a job, when it is overdue, and for progress at most every [ProgressInterval] of a job; never with a
// lock held and never after Shutdown began. It is called on the job's goroutine and must not block.
func New(limits map[Class]int, clock Clock, notify func(Key)) *Manager {
	if clock == nil {
		clock = systemClock{}
	}
	if notify == nil {
		notify = func(Key) {}
	}
	root, stop := context.WithCancelCause(context.Background())
	own := maps.Clone(limits)
	if own == nil {
		own = map[Class]int{}
	}
	return &Manager{
		limits: own, patient: map[Class]time.Duration{}, clock: clock, notify: notify, observe: func(Key, State) {}, root: root, stop: stop,
		jobs: map[Key]*job{}, active: map[string]Key{}, running: map[Class]int{}, queues: map[Class][]*job{},
	}
}

// BePatient has jobs of a class wait for the places of others no longer than a time: then they run beside them, up to three times as many as
// the limit says. It is to be called before the first Start.
func (m *Manager) BePatient(class Class, wait time.Duration) { m.patient[class] = wait }

// Start accepts a job and reports true. It reports false, and does nothing, if a job of that key exists in any phase, if
// another job of the UID is queued or running, or after Shutdown. The timeout counts from the moment the job runs; it
// has to be positive, or the job ends at once.
func (m *Manager) Start(key Key, class Class, timeout time.Duration, fn Func) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, busy := m.active[key.UID]; busy || m.stopped || m.jobs[key] != nil {
		return false
	}
	j := &job{key: key, timeout: timeout, fn: fn, since: time.Now(), admitted: make(chan struct{})}
	j.ctx, j.cancel = context.WithCancelCause(m.root)
	j.state = State{Phase: Queued, Class: class, Queued: m.clock.Now()}
	m.jobs[key] = j
	m.active[key.UID] = key
	m.queues[class] = append(m.queues[class], j)
	m.admit(class)
	if wait := m.patient[class]; wait > 0 && j.state.Phase == Queued {
		j.relief = m.relieveAfter(wait, class)
	}
	m.group.Go(func() { m.run(j) })
	return true
}

// State returns what is known about a job; its Phase is None if there is none.
func (m *Manager) State(key Key) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[key]; j != nil {
		return j.state
	}
	return State{}
}

// Running returns the job of a UID that is queued or running.
func (m *Manager) Running(uid string) (Key, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key, ok := m.active[uid]
	return key, ok
}

// Forget acknowledges the result of a job that is Done, so that a job of that key can be started again. A job that is
// queued or running is left alone.
func (m *Manager) Forget(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[key]; j != nil && j.state.Phase == Done {
		delete(m.jobs, key)
	}
}

// ForgetUID acknowledges the results of all jobs of a UID that are Done.
func (m *Manager) ForgetUID(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.jobs, func(key Key, j *job) bool { return key.UID == uid && j.state.Phase == Done })
}

// Find returns the keys of all jobs whose operation begins with a prefix, in any phase, whosever they are.
func (m *Manager) Find(prefix string) []Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []Key
	for key := range m.jobs {
		if strings.HasPrefix(key.Op, prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Cancel ends a job's context. The job stays in its phase until its function returned; then it is Done and notified
// like any other. A queued job ends without having run.
func (m *Manager) Cancel(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[key]; j != nil {
		j.cancel(ErrCancelled)
	}
}

// Shutdown accepts no more jobs, cancels all with cause ErrShuttingDown, and waits until they ended or ctx did. The
// error names the jobs that still run. A job that failed because of the shutdown leaves nothing behind: its State is
// None, and nobody is notified.
func (m *Manager) Shutdown(ctx context.Context) error {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.stop(ErrShuttingDown)

	ended := make(chan struct{})
	go func() {
		m.group.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for jobs (%s): %w", strings.Join(m.unfinished(), ", "), context.Cause(ctx))
	}
}

// Runnable returns a function that waits for its context to end and then shuts down, for at most grace.
func (m *Manager) Runnable(grace time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		return m.Shutdown(limited)
	}
}

func (m *Manager) unfinished() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.active))
	for _, key := range m.active {
		names = append(names, key.String())
	}
	slices.Sort(names)
	return names
}

// admit lets the oldest jobs of a class run while there is room. The mutex is held.
func (m *Manager) admit(class Class) {
	for len(m.queues[class]) > 0 && m.running[class] < m.places(class) {
		j := m.queues[class][0]
		m.queues[class] = m.queues[class][1:]
		m.running[class]++
		j.state.Phase = Running
		j.state.Started = m.clock.Now()
		close(j.admitted)
	}
}

// places is how many jobs of a class may run, as long as the first of its queue waits. The mutex is held.
func (m *Manager) places(class Class) int {
	limit := max(1, m.limits[class])
	if wait := m.patient[class]; wait > 0 && time.Since(m.queues[class][0].since) >= wait {
		return reliefFactor * limit
	}
	return limit
}

// relieveAfter lets jobs run that have waited long enough.
func (m *Manager) relieveAfter(wait time.Duration, class Class) *time.Timer {
	return time.AfterFunc(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.admit(class)
	})
}

// run is the goroutine of a job, from its acceptance to its end.
func (m *Manager) run(j *job) {
	defer j.cancel(nil)
	result, err := any(nil), errExited
	defer func() { m.end(j, result, err) }()

	select {
	case <-j.admitted:
	case <-j.ctx.Done():
	}
	if err = context.Cause(j.ctx); err != nil {
		return
	}
	err = errExited
	result, err = m.call(j)
}

// call runs the function under its timeout.
func (m *Manager) call(j *job) (result any, err error) {
	ctx, cancel := context.WithTimeoutCause(j.ctx, j.timeout, ErrTimeout)
	defer cancel()
	defer time.AfterFunc(j.timeout+Grace, func() { m.overdue(j) }).Stop()
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	result, err = j.fn(ctx, func(p Progress) { m.report(j, p) })
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return result, err
}

// overdue gives the place of a job that does not return to the next one.
func (m *Manager) overdue(j *job) {
	m.mu.Lock()
	late := j.state.Phase == Running && !m.stopped
	if late {
		j.state.Overdue = true
		m.running[j.state.Class]--
		m.admit(j.state.Class)
	}
	m.mu.Unlock()
	if late {
		m.notify(j.key)
	}
}

// end records the result and gives the place to the next job.
func (m *Manager) end(j *job, result any, err error) {
	m.mu.Lock()
	class := j.state.Class
	switch {
	case j.state.Overdue: // it has no place any more
	case j.state.Phase == Running:
		m.running[class]--
	default:
		m.queues[class] = slices.DeleteFunc(m.queues[class], func(o *job) bool { return o == j })
	}
	if j.relief != nil {
		j.relief.Stop()
	}
	delete(m.active, j.key.UID)
	j.state.Phase, j.state.Ended, j.state.Overdue = Done, m.clock.Now(), false
	j.state.Result, j.state.Err = result, err
	j.fn = nil // it holds on to all that it works on
	silent := m.stopped
	if silent && err != nil {
		delete(m.jobs, j.key)
	}
	m.admit(class)
	ended := j.state
	m.mu.Unlock()
	if !silent {
		m.observe(j.key, ended)
		m.notify(j.key)
	}
}

// report keeps progress and passes it on, but not more often than anyone would want to look at it.
func (m *Manager) report(j *job, p Progress) {
	now := m.clock.Now()
	m.mu.Lock()
	tell := j.state.Phase == Running && !m.stopped && now.Sub(j.notified) >= ProgressInterval
	if j.state.Phase == Running {
		j.state.Progress = p
	}
	if tell {
		j.notified = now
	}
	m.mu.Unlock()
	if tell {
		m.notify(j.key)
	}
}
