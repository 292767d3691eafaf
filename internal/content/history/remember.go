package history

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// recollection is what a log remembers because it does not change: whoever asks again would get the same answer.
type recollection struct {
	mu      sync.Mutex
	records map[int64]Commit // of claims
	backups map[Name]fact
}

// fact is what retention needs to know of a backup.
type fact struct {
	id       string
	complete bool
}

// Remembering returns a log that reads nothing twice that never changes: records of claims, and what backups are.
func (l *Log) Remembering() *Log {
	return &Log{domain: l.domain, name: l.name, known: &recollection{records: map[int64]Commit{}, backups: map[Name]fact{}}}
}

// Listed returns a log that shows the history as it is now, whatever comes later: everything that is asked of it is answered from one
// listing, which takes one request for a thousand backups. Of such a log it is the log itself.
func (l *Log) Listed(ctx context.Context) (*Log, error) {
	if l.listing != nil {
		return l, nil
	}
	listing := []Entry{}
	for e, err := range l.recordsBy(ctx, 0, maxPage) {
		if err != nil {
			return nil, l.wrap("list backups", err)
		}
		listing = append(listing, e)
	}
	l.known.forgetOthers(listing)
	return &Log{domain: l.domain, name: l.name, known: l.known, listing: listing}, nil
}

// with returns a listed log that shows a commit, too, which was written a moment later. When that was by the store's clock nobody knows.
func (l *Log) with(n Name) *Log {
	more := *l
	if len(l.listing) == 0 || l.listing[0].Name != n { // else it was there already
		more.listing = append([]Entry{{Name: n, appended: true}}, l.listing...)
	}
	return &more
}

// since returns what of a listing belongs to claims older than below, everything if that is 0.
func since(listing []Entry, below int64) []Entry {
	if below <= 0 {
		return listing
	}
	at := slices.IndexFunc(listing, func(e Entry) bool { return e.Name.Claim < below })
	if at < 0 {
		return nil
	}
	return listing[at:]
}

// remembered returns what of a log never changes, by asking only once.
func remembered[K comparable, V any](r *recollection, of func(*recollection) map[K]V, key K, ask func() (V, error)) (V, error) {
	if r == nil {
		return ask()
	}
	r.mu.Lock()
	v, ok := of(r)[key]
	r.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := ask()
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		of(r)[key] = v
	}
	return v, err
}

func recordsOf(r *recollection) map[int64]Commit { return r.records }

func backupsOf(r *recollection) map[Name]fact { return r.backups }

// note remembers a backup that was just written.
func (r *recollection) note(c Commit) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backups[c.Name] = fact{c.ID, c.Complete()}
}

// forgetOthers drops what is there no more.
func (r *recollection) forgetOthers(listing []Entry) {
	if r == nil {
		return
	}
	there := make(map[Name]bool, len(listing))
	for _, e := range listing {
		there[e.Name] = there[e.Name] || !e.grave
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.backups, func(n Name, _ fact) bool { return !there[n] })
	maps.DeleteFunc(r.records, func(claim int64, _ Commit) bool { return !there[Name{Claim: claim}] })
}
