package history

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"path"
	"strings"
	"sync"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

const (
	firstPage = 8
	maxPage   = 1000
	maxID     = 255 // bytes, the limit of a file name

	// maxApart is how far the clocks of store and node may be apart where something goes because time has passed. It is far shorter than
	// [MinWait].
	maxApart = 15 * time.Minute
)

// Domain is the unit of stored data, usually of one namespace.
type Domain struct {
	store store.Store
	name  string
	cache *Cache
	clock func() time.Duration          // since boot
	apart func(time.Time) time.Duration // how far a time of the store is ahead of this node's clock
	newID func() string

	mu   sync.Mutex
	last *look // the newest
}

func newDomain(s store.Store, name string) *Domain {
	return &Domain{store: s, name: name, cache: &Cache{}, clock: sinceBoot, apart: time.Until, newID: NewID}
}

type domainRecord struct {
	Format  int    `json:"format"`
	Cluster string `json:"cluster"`
}

// OpenDomain opens the domain of that name and makes it if need be. The cluster is recorded with it; the domain of
// another cluster is refused with [ErrOtherCluster] unless adopt is set.
func OpenDomain(ctx context.Context, s store.Store, name, cluster string, adopt bool) (*Domain, error) {
	return openDomain(ctx, s, name, cluster, adopt, (*Domain).create)
}

// ReadDomain is [OpenDomain] for those who only read: a domain that is not there is [store.ErrNotFound].
func ReadDomain(ctx context.Context, s store.Store, name, cluster string, adopt bool) (*Domain, error) {
	return openDomain(ctx, s, name, cluster, adopt, nil)
}

func openDomain(
	ctx context.Context, s store.Store, name, cluster string, adopt bool, create func(*Domain, context.Context, string) (domainRecord, error),
) (*Domain, error) {
	if err := validID("domain", name); err != nil {
		return nil, err
	}
	if cluster == "" {
		return nil, fmt.Errorf("open domain %s: the id of the cluster is empty", name)
	}
	d := newDomain(s, name)
	record, err := d.record(ctx)
	if errors.Is(err, store.ErrNotFound) && create != nil {
		record, err = create(d, ctx, cluster)
	}
	if err != nil {
		return nil, fmt.Errorf("open domain %s: %w", name, err)
	}
	if record.Cluster != cluster && !adopt {
		return nil, fmt.Errorf("open domain %s in %s: %w: it is of cluster %s, this is %s: adopt it in the configuration if that one is gone",
			name, s, ErrOtherCluster, record.Cluster, cluster)
	}
	return d, nil
}

// NameDomain returns the domain of that name, of whatever cluster it is. Nothing is read: what is found in it proves that it is
// there. Where nothing is found, ask [Domain.Find].
func NameDomain(s store.Store, name string) (*Domain, error) {
	if err := validID("domain", name); err != nil {
		return nil, err
	}
	return newDomain(s, name), nil
}

// Find makes sure that the domain is there, or fails with [store.ErrNotFound]; an error says if not even the store is.
func (d *Domain) Find(ctx context.Context) error {
	_, err := d.record(ctx)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, err := store.Identity(ctx, d.store); err != nil {
		return err
	}
	return fmt.Errorf("there is no domain %s in %s: check the name (%w)", d.name, d.store, err)
}

// Check makes sure that what describes the domain is whole: which store it is in, whose it is, and what tells its keys apart.
func (d *Domain) Check(ctx context.Context) error {
	if _, err := store.Identity(ctx, d.store); err != nil {
		return err
	}
	if err := d.Find(ctx); err != nil {
		return err
	}
	for o, err := range d.scan(ctx, d.key(keyPrefix)) {
		if err != nil {
			return fmt.Errorf("list the keys of domain %s: %w", d.name, err)
		}
		if _, err := d.keyRecord(ctx, o.Key); err != nil {
			return fmt.Errorf("check the keys of domain %s: %w", d.name, err)
		}
	}
	return nil
}

// Make makes the domain if it is not there, of that cluster. It says whether it did.
func (d *Domain) Make(ctx context.Context, cluster string) (bool, error) {
	err := d.Find(ctx)
	if !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	_, err = d.create(ctx, cluster)
	return true, err
}

func (d *Domain) record(ctx context.Context) (domainRecord, error) {
	key := d.key(domainFile)
	data, err := fetch(ctx, d.store, key)
	if err != nil {
		return domainRecord{}, err
	}
	var r domainRecord
	if err := decode(key, data, &r); err != nil {
		return domainRecord{}, err
	}
	if r.Cluster == "" {
		return domainRecord{}, damaged(key, errors.New("the cluster is missing"))
	}
	return r, nil
}

func (d *Domain) create(ctx context.Context, cluster string) (domainRecord, error) {
	key := d.key(domainFile)
	data, err := encode(key, domainRecord{Format: formatVersion, Cluster: cluster})
	if err != nil {
		return domainRecord{}, err
	}
	if err := d.store.Put(ctx, key, data); err != nil && !errors.Is(err, store.ErrExists) {
		return domainRecord{}, err
	}
	return d.record(ctx)
}

// Name returns the domain's name.
func (d *Domain) Name() string { return d.name }

// Workspace returns the history of one workspace. Nothing is read; a name that cannot be one fails at the first use.
func (d *Domain) Workspace(name string) *Log {
	return &Log{domain: d, name: name}
}

// IsLocal says whether the store is a directory.
func (d *Domain) IsLocal() bool { return store.IsLocal(d.store) }

// PutPack stores data as a new pack under a random id, which must never have been used.
func (d *Domain) PutPack(ctx context.Context, id string, data []byte) error {
	p := Pack{ID: id}
	if err := p.valid(); err != nil {
		return err
	}
	if err := d.store.Put(ctx, d.packKey(p), data); err != nil {
		return fmt.Errorf("store pack: %w", err)
	}
	faults.Point("history.pack.after")
	return nil
}

// ReadPack fills buf with the bytes of a pack from offset on. Nothing but its length is verified. After an error buf must be forgotten.
func (d *Domain) ReadPack(ctx context.Context, id string, offset int64, buf []byte) error {
	p := Pack{ID: id}
	if err := p.valid(); err != nil {
		return err
	}
	return d.read(ctx, d.packKey(p), offset, buf)
}

// read reads a part of a pack. One that ends before is damaged.
func (d *Domain) read(ctx context.Context, key string, offset int64, buf []byte) error {
	err := d.store.Read(ctx, key, offset, buf)
	if errors.Is(err, store.ErrTooShort) {
		err = damaged(key, err)
	}
	if err != nil {
		return &PackError{path.Base(key), fmt.Errorf("read pack: %w", err)}
	}
	return nil
}

// ComparePack reads a pack into buf, part by part, and verifies its checksum. After an error buf must be forgotten.
func (d *Domain) ComparePack(ctx context.Context, p Pack, buf []byte) error {
	if err := p.valid(); err != nil {
		return err
	}
	key := d.packKey(p)
	sum := uint32(0)
	for at := int64(0); at < p.Size; at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), p.Size-at)]
		if err := d.read(ctx, key, at, part); err != nil {
			return err
		}
		sum = crc32.Update(sum, castagnoli, part)
	}
	if Checksum(sum) != p.CRC32C {
		return &PackError{p.ID, fmt.Errorf("read pack: %w", damaged(key, errors.New("the checksum differs")))}
	}
	return nil
}

// StatPack verifies that a pack is there with its size.
func (d *Domain) StatPack(ctx context.Context, p Pack) error {
	if err := p.valid(); err != nil {
		return err
	}
	key := d.packKey(p)
	o, err := d.store.Stat(ctx, key)
	if err != nil {
		return &PackError{p.ID, fmt.Errorf("look for pack: %w", err)}
	}
	if o.Size != p.Size {
		return &PackError{p.ID, fmt.Errorf("look for pack: %w", damaged(key, fmt.Errorf("it has %d bytes instead of %d", o.Size, p.Size)))}
	}
	return nil
}

func (d *Domain) now(ctx context.Context) (time.Time, error) {
	now, err := d.store.Now(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("domain %s: %w", d.name, err)
	}
	return now.UTC(), nil
}

// agreed is [Domain.now] for whoever removes something because time has passed: that clock must be this node's, too.
func (d *Domain) agreed(ctx context.Context) (time.Time, error) {
	now, err := d.now(ctx)
	if err == nil {
		err = d.agrees(now)
	}
	return now, err
}

// agrees compares what the store says that the time is with this node's clock. If they differ, one of them is wrong, and nobody knows which: a
// day may seem to have passed that has not.
func (d *Domain) agrees(now time.Time) error {
	apart, where := d.apart(now).Round(time.Second), "ahead of"
	if apart.Abs() <= maxApart {
		return nil
	}
	if apart < 0 {
		where = "behind"
	}
	return fmt.Errorf("domain %s: the clock of the store is %s %s this node's: set the one that is wrong; until then nothing goes because of its age",
		d.name, apart.Abs(), where)
}

func (d *Domain) key(rest string) string { return domainPrefix + d.name + "/" + rest }

func (d *Domain) packKey(p Pack) string { return d.key("p/" + p.ID[:2] + "/" + p.ID) }

func (p Pack) valid() error {
	if _, err := parsePackID(p.ID); err != nil {
		return err
	}
	if p.Size < 0 {
		return fmt.Errorf("pack %s: size %d is negative", p.ID, p.Size)
	}
	return nil
}

// NewID returns a random id, for one attempt to write a commit.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// scan lists objects page by page; the first page is small because most callers want what is newest.
func (d *Domain) scan(ctx context.Context, prefix string) iter.Seq2[store.Object, error] {
	return d.scanBy(ctx, prefix, "", firstPage)
}

// scanBy is scan with a first page of that many objects.
func (d *Domain) scanBy(ctx context.Context, prefix, after string, first int) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		for limit := first; ; limit = min(4*limit, maxPage) {
			objects, err := d.store.List(ctx, prefix, after, limit)
			if err != nil {
				yield(store.Object{}, err)
				return
			}
			for _, o := range objects {
				if !yield(o, nil) {
					return
				}
			}
			if len(objects) < limit {
				return
			}
			after = objects[len(objects)-1].Key
		}
	}
}

// validID accepts what can be one component of a key in every store.
func validID(kind, id string) error {
	ok := len(id) > 0 && len(id) <= maxID && !strings.ContainsRune("._-", rune(id[0]))
	for _, r := range id {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		ok = ok && (letter || strings.ContainsRune("._-", r))
	}
	if !ok {
		return fmt.Errorf("%s name %q: it begins with a letter or digit and has at most %d letters, digits, '.', '_' and '-'",
			kind, id, maxID)
	}
	return nil
}
