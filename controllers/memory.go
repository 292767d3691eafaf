package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"wsdaemon.dev/ws-daemon/internal/content"
)

// memory holds what only this process needs to know: nothing is lost when it goes.
type memory struct {
	mu      sync.Mutex
	written map[types.UID]string    // the resourceVersion that our last write replaced
	usage   map[types.UID]time.Time // when usage was last reported
	asked   map[types.UID]time.Time // when the disk was last asked for it
	// failures of backups; the journal has them, too, unless the disk is full
	failures map[types.UID]failure
	names    map[string]types.NamespacedName // of objects whose jobs may end
	unused   map[string]time.Time            // since when no pod uses content, as far as anybody looked
}

// unusedSince takes note whether pods use content, and returns since when none does; the zero time if some do.
func (m *memory) unusedSince(uid string, used bool, now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unused == nil {
		m.unused = map[string]time.Time{}
	}
	since, known := m.unused[uid]
	switch {
	case used:
		delete(m.unused, uid)
		return time.Time{}
	case known:
		return since
	default:
		m.unused[uid] = now
		return now
	}
}

// wrote records that a write of ours replaced the version of an object that the cache showed. A write that changed nothing
// makes no new version, and no event that would wake anybody.
func (m *memory) wrote(o client.Object, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.written == nil {
		m.written = map[types.UID]string{}
	}
	if version != o.GetResourceVersion() {
		m.written[o.GetUID()] = o.GetResourceVersion()
	}
}

// failure is what backups of a workspace fail of, where it cannot be written into the journal.
type failure struct {
	attempts int
	text     string
	next     time.Time
}

// backupEnded remembers how a backup ended.
func (m *memory) backupEnded(uid types.UID, err error, now time.Time, limit time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.failures, uid)
		return
	}
	if m.failures == nil {
		m.failures = map[types.UID]failure{}
	}
	f := m.failures[uid]
	f.attempts++
	f.text, f.next = err.Error(), now.Add(content.Backoff(f.attempts, limit, string(uid)))
	m.failures[uid] = f
}

// failing returns what backups of a workspace fail of.
func (m *memory) failing(uid types.UID) failure {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failures[uid]
}

// stale says whether the cache still shows the version that our last write replaced. It never goes back, so once it does not
// there is nothing to remember.
func (m *memory) stale(o client.Object) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	replaced, wrote := m.written[o.GetUID()]
	if wrote && replaced != o.GetResourceVersion() {
		delete(m.written, o.GetUID())
	}
	return wrote && replaced == o.GetResourceVersion()
}

// usageDue says whether usage that changed little shall be reported all the same.
func (m *memory) usageDue(uid types.UID, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, ok := m.usage[uid]
	return !ok || now.Sub(last) >= usageInterval
}

// usageTold takes note that usage is reported.
func (m *memory) usageTold(uid types.UID, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.usage == nil {
		m.usage = map[types.UID]time.Time{}
	}
	m.usage[uid] = now
}

// measureIn returns how long it is until the disk shall be asked again for the usage of a volume. If that is now, it takes note.
func (m *memory) measureIn(uid types.UID, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wait := m.asked[uid].Add(measureInterval).Sub(now); wait > 0 && wait <= measureInterval {
		return wait
	}
	if m.asked == nil {
		m.asked = map[types.UID]time.Time{}
	}
	m.asked[uid] = now
	return 0
}

// name remembers whose jobs are keyed by a UID.
func (m *memory) name(uid string, name types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		m.names = map[string]types.NamespacedName{}
	}
	m.names[uid] = name
}

// nameOf returns what name remembered.
func (m *memory) nameOf(uid string) (types.NamespacedName, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, ok := m.names[uid]
	return name, ok
}

// named returns the UIDs of all objects of a name.
func (m *memory) named(name types.NamespacedName) []types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []types.UID
	for uid, other := range m.names {
		if other == name {
			found = append(found, types.UID(uid))
		}
	}
	return found
}

// forget drops what is known of an object that is gone.
func (m *memory) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.written, uid)
	delete(m.usage, uid)
	delete(m.asked, uid)
	delete(m.names, string(uid))
	delete(m.unused, string(uid))
	delete(m.failures, uid)
}
