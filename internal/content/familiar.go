package content

import (
	"context"
	"errors"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// trust is how long a workspace's backups are taken to be whole after all that the newest one needs was looked for.
const trust = 24 * time.Hour

// familiar is what this process knows of a workspace's newest backup, because it has read or written all of it. It spares requests: what
// never changes is not asked again, and whether it is still there shows when the next backup looks who owns the workspace.
type familiar struct {
	domain   *history.Domain
	log      *history.Log
	key      *format.Key
	commit   history.Commit
	hash     string
	verified time.Time // when its packs were last looked for
}

// again returns a saving that goes on from what is familiar, and forgets that; nil if there is nothing, or if it is not what the journal
// says. The saving asks for nothing before it has read the tree.
func (k *Keeper) again(r SaveRequest, path string) *saving {
	last, ok := k.familiar.LoadAndDelete(r.UID)
	if !ok {
		return nil
	}
	known := last.(familiar) //nolint:forcetypeassert // nothing else is stored
	e, _ := k.Area.Journal().Get(r.UID)
	key, err := k.sameKey(known)
	c := known.commit
	if err != nil || e.Claim != r.Claim || c.Name.Claim != r.Claim || !known.is(e.Backup) || !sealedAlike(c, key) {
		return nil
	}
	if age := k.Now().Sub(known.verified); age < 0 || age > trust {
		return nil
	}
	return &saving{k: k, r: r, path: path, domain: known.domain, log: known.log, key: key, last: &known}
}

func (f familiar) is(b state.Backup) bool {
	return b.Pending == nil && b.Name == f.commit.Name.String() && b.Hash == f.hash && b.Last == f.commit.Name.Number
}

// errOtherKey says that a domain is not sealed with what it was.
var errOtherKey = errors.New("the key is another one")

// sameKey returns the keys of a domain as long as they seal as they did.
func (k *Keeper) sameKey(known familiar) (*format.Key, error) {
	if k.Keys == nil {
		return nil, nil //nolint:nilnil // Nothing is sealed, and that is all right.
	}
	key, err := k.Keys(known.domain.Name())
	if err != nil {
		return nil, err
	}
	now, nowErr := checkOf(key)
	then, thenErr := checkOf(known.key)
	if now != then {
		return nil, errOtherKey
	}
	return key, errors.Join(nowErr, thenErr)
}

// checkOf tells keys apart; without one it is "".
func checkOf(key *format.Key) (string, error) {
	if key == nil {
		return "", nil
	}
	return key.Check()
}

// goOn makes a backup that goes on from what is familiar.
func (w *saving) goOn(ctx context.Context) (history.Commit, error) {
	e, _ := w.k.Area.Journal().Get(w.r.UID)
	began := w.k.Now()
	root, err := rootOf(w.last.commit)
	if err != nil {
		return history.Commit{}, err
	}
	from := start{parent: &root, own: &w.last.commit, index: w.k.loadIndex(w.r.Subject)}
	return w.commitView(ctx, lazy, e, from, began)
}

// remember makes a backup familiar to the next one.
func (w *saving) remember(c history.Commit, hash string) {
	f := familiar{domain: w.domain, log: w.log, key: w.key, commit: c, hash: hash, verified: w.k.Now()}
	if w.last != nil {
		f.verified = w.last.verified
	}
	w.k.familiar.Store(w.r.UID, f)
}
