package history

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

const (
	listsPrefix     = "g/"
	condemnedPrefix = "g/c/"
	sweptPrefix     = "g/s/"
	maxListed       = 100_000 // packs in one list, which takes 4 MB

	// maxLag is how old a look at the lists may be when a commit that relies on it is written. It is far shorter than the least
	// time that a condemned pack stays, [MinWait], and far longer than a few requests take.
	maxLag = 10 * time.Minute
)

// packID is a pack's name in memory: 16 bytes instead of 32 digits.
type packID [16]byte

// packList names packs that collection is about to remove, or has removed. Its key ends in the hash of its bytes.
type packList struct {
	Format int      `json:"format"`
	ID     string   `json:"id"` // random
	Domain string   `json:"domain"`
	Packs  []string `json:"packs"`
}

// Cache remembers what never changes in a store, lists of condemned packs and checks of keys, so that a process reads each of
// them once. The zero value is ready.
type Cache struct {
	mu    sync.Mutex
	lists map[string]map[packID]struct{} // by key
	keys  map[string]string              // checks by key
}

// Sharing has the domain use a cache that others use, too, and returns it.
func (d *Domain) Sharing(c *Cache) *Domain {
	d.cache = c
	return d
}

// look is what the lists said when they were read.
type look struct {
	at    time.Duration // by the clock since boot, before anything was asked
	lists map[string]map[packID]struct{}

	mu    sync.Mutex
	there map[string]bool // packs that were seen afterwards
}

// sinceBoot is a clock that no one sets, and that goes on while the machine is suspended.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // fails only on kernels without that clock, older than any we run on
	return time.Duration(ts.Nano())
}

// look reads which packs are going, and which went: one request, and one for each list that the cache does not have. A list that
// vanishes meanwhile was swept, and another one says so.
func (d *Domain) look(ctx context.Context) (l *look, err error) {
	for range 3 {
		if l, err = d.lookOnce(ctx); !errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("look for what is collected of domain %s: %w", d.name, err)
	}
	d.cache.keep(d.key(listsPrefix), l.lists)
	d.mu.Lock()
	d.last = l
	d.mu.Unlock()
	return l, nil
}

func (d *Domain) lookOnce(ctx context.Context) (*look, error) {
	l := &look{at: d.clock(), lists: map[string]map[packID]struct{}{}, there: map[string]bool{}}
	for o, err := range d.scanBy(ctx, d.key(listsPrefix), "", maxPage) {
		if err != nil {
			return nil, err
		}
		if l.lists[o.Key], err = d.listed(ctx, o.Key); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// recent is a look that is good for a commit that is written soon.
func (d *Domain) recent(ctx context.Context) (*look, error) {
	d.mu.Lock()
	l := d.last
	d.mu.Unlock()
	if l != nil && d.clock()-l.at <= maxLag/2 {
		return l, nil
	}
	return d.look(ctx)
}

// listed returns the packs in a list.
func (d *Domain) listed(ctx context.Context, key string) (map[packID]struct{}, error) {
	if set, known := d.cache.get(key); known {
		return set, nil
	}
	l, err := d.readList(ctx, key)
	if err != nil {
		return nil, err
	}
	set := make(map[packID]struct{}, len(l.Packs))
	for _, id := range l.Packs {
		p, err := parsePackID(id)
		if err != nil {
			return nil, damaged(key, err)
		}
		set[p] = struct{}{}
	}
	return set, nil
}

func (d *Domain) readList(ctx context.Context, key string) (packList, error) {
	data, err := fetch(ctx, d.store, key)
	if err != nil {
		return packList{}, fmt.Errorf("read a list of collected packs: %w", err)
	}
	var l packList
	err = decode(key, data, &l)
	if err == nil && (l.Domain != d.name || !strings.HasSuffix(key, "/"+listName(data))) {
		err = damaged(key, errors.New("it is not the list that was written"))
	}
	if err != nil {
		return packList{}, fmt.Errorf("read a list of collected packs: %w: remove it, and what it names stays until it is collected anew", err)
	}
	return l, nil
}

// writeList stores a list below a prefix and returns its key. One that is there already is the same, by its name; that it is there is made
// sure of.
func (d *Domain) writeList(ctx context.Context, prefix string, l packList) (key string, err error) {
	l.Format, l.Domain = formatVersion, d.name
	data, err := encode(d.key(prefix), l)
	if err != nil {
		return "", err
	}
	key = d.key(prefix + listName(data))
	err = d.store.Put(ctx, key, data)
	if errors.Is(err, store.ErrExists) {
		_, err = d.readList(ctx, key)
	}
	return key, err
}

func listName(data []byte) string { return hash(data)[:32] }

// allows refuses packs that are going, or went: whoever refers to them would lose them.
func (l *look) allows(packs []Pack) error {
	for _, p := range packs {
		id, err := parsePackID(p.ID)
		if err != nil {
			return err
		}
		for key, set := range l.lists {
			if _, going := set[id]; going {
				return fmt.Errorf("%w: pack %s is in %s: what it holds must be stored anew", ErrCondemned, p.ID, key)
			}
		}
	}
	return nil
}

// inTime refuses to write what relies on a look that is too old.
func (d *Domain) inTime(l *look) error {
	if age := d.clock() - l.at; age > maxLag {
		return fmt.Errorf("the store took %s to answer, which is too long to rely on what it said: try again", age)
	}
	return nil
}

// confirm looks again after a reference to packs was written, unless that was certainly soon after the look that it relied on:
// a machine that was stopped for a day in between knows nothing of what was swept.
func (d *Domain) confirm(ctx context.Context, l *look, packs []Pack) error {
	if d.inTime(l) == nil {
		return nil
	}
	return d.VerifyPacks(ctx, packs)
}

func (c *Cache) get(key string) (map[packID]struct{}, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set, known := c.lists[key]
	return set, known
}

// keep replaces what is known below a prefix.
func (c *Cache) keep(prefix string, lists map[string]map[packID]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil {
		c.lists = map[string]map[packID]struct{}{}
	}
	for key := range c.lists {
		if strings.HasPrefix(key, prefix) && lists[key] == nil {
			delete(c.lists, key)
		}
	}
	maps.Copy(c.lists, lists)
}

func parsePackID(s string) (packID, error) {
	var id packID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s {
		return id, fmt.Errorf("pack id %q: it has 32 hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

func (id packID) String() string { return hex.EncodeToString(id[:]) }
