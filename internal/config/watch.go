package config

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Outcome is what became of a change of the file.
type Outcome struct {
	// Changed are the keys that were taken over just now.
	Changed []string
	// Pending are the keys that wait for a restart.
	Pending []string
	// Err says why the file is refused; then everything goes on as it was, and Pending is what it was before.
	Err error
}

// Watcher takes over changes of a file while the daemon runs. What is mounted from a ConfigMap changes by a link that is replaced,
// an editor renames a new file over the old one, and others write into it: all of that is noticed by looking at the directory, and
// again every ten seconds, for not every file system tells of changes.
type Watcher struct {
	// File is the configuration.
	File string
	// Apply takes over a configuration of which keys that may change have changed. It is called by one goroutine.
	Apply func(Config)
	// Report is told the outcome of every change, after Apply.
	Report func(Outcome)

	running  Config
	pending  []string
	seen     [sha256.Size]byte
	settle   time.Duration
	interval time.Duration

	notify  *fsnotify.Watcher // nil without one
	changes <-chan fsnotify.Event
	lost    <-chan error
}

const (
	// settle is how long nothing may change before a file is taken for complete.
	settle = 300 * time.Millisecond
	// lookInterval is how often it is looked without having been told to.
	lookInterval = 10 * time.Second
	// restless is how often a file that never holds still is waited for before it is taken as it is.
	restless = 10
)

// NewWatcher watches the file that the running configuration was read from. It compares with what runs first, so that a change between
// start and watch is not missed.
func NewWatcher(file string, running Config, apply func(Config), report func(Outcome)) *Watcher {
	return &Watcher{File: file, Apply: apply, Report: report, running: clone(running), settle: settle, interval: lookInterval}
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	// The kernel may have no room for another watcher: then only the ticker looks.
	if notify, err := fsnotify.NewWatcher(); err == nil {
		defer notify.Close()
		w.notify, w.changes, w.lost = notify, notify.Events, notify.Errors
	}
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for w.look(ctx) {
		select {
		case <-ctx.Done():
			return nil
		case <-w.changes:
		case <-w.lost: //nolint:errcheck // it says that some changes were not told: look
		case <-ticker.C:
		}
	}
	return nil
}

// look takes over what has changed. It returns false when ctx has ended.
func (w *Watcher) look(ctx context.Context) bool {
	w.follow()
	data, err := read(w.File)
	for range restless {
		sum := sumOf(data, err)
		if sum == w.seen {
			return true
		}
		if !w.rest(ctx) {
			return false
		}
		if data, err = read(w.File); sumOf(data, err) == sum {
			break
		}
	}
	w.seen = sumOf(data, err)
	w.take(data, err)
	return true
}

// follow watches the directory of the file, and that of what it is a link to. A directory that was replaced is watched anew.
func (w *Watcher) follow() {
	if w.notify == nil {
		return
	}
	_ = w.notify.Add(filepath.Dir(w.File)) // what cannot be watched is looked at by the ticker
	if target, err := filepath.EvalSymlinks(w.File); err == nil {
		_ = w.notify.Add(filepath.Dir(target))
	}
}

// rest waits a moment, in which a writer may get on.
func (w *Watcher) rest(ctx context.Context) bool {
	timer := time.NewTimer(w.settle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-w.changes: // looked at when the time is over
		case <-timer.C:
			return true
		}
	}
}

func sumOf(data []byte, err error) [sha256.Size]byte {
	if err != nil {
		return sha256.Sum256([]byte("error: " + err.Error()))
	}
	return sha256.Sum256(data)
}

// take takes a new content of the file over, if it is one.
func (w *Watcher) take(data []byte, err error) {
	var file Config
	if err == nil {
		file, err = parseFile(w.File, data)
	}
	if err != nil {
		w.Report(Outcome{Pending: w.pending, Err: err})
		return
	}
	next, changed, pending := takeOver(w.running, file)
	w.running, w.pending = next, pending
	if len(changed) > 0 {
		w.Apply(clone(next))
	}
	w.Report(Outcome{Changed: changed, Pending: pending})
}
