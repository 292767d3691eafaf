package history

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// keyPrefix is where the records of keys lie in a domain.
const keyPrefix = "k/"

// ErrOtherKey says that a domain was sealed with another key of the same generation.
var ErrOtherKey = errors.New("another key")

// keyRecord tells keys of one generation apart. It says nothing about the key itself.
type keyRecord struct {
	Format     int    `json:"format"`
	Domain     string `json:"domain"`
	Generation uint32 `json:"generation"`
	Check      string `json:"check"`
}

// CheckKey makes sure that all who seal in a domain under one generation have the same key, by what is derived from it. The first
// one leaves a record; another key is [ErrOtherKey]. What was seen to be right once is not asked again.
func (d *Domain) CheckKey(ctx context.Context, generation uint32, check string) error {
	key := d.key(keyPrefix + strconv.FormatUint(uint64(generation), 10))
	if d.cache.checked(key, check) {
		return nil
	}
	record, err := d.keyRecord(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		record, err = d.writeKeyRecord(ctx, key, keyRecord{Format: formatVersion, Domain: d.name, Generation: generation, Check: check})
	}
	if err != nil {
		return fmt.Errorf("check the key of domain %s: %w", d.name, err)
	}
	if record.Domain != d.name || record.Generation != generation {
		return damaged(key, fmt.Errorf("it says it is of generation %d of domain %q", record.Generation, record.Domain))
	}
	if record.Check != check {
		return fmt.Errorf("domain %s: %w: key generation %d is not the one that was used first (%s in the store tells): "+
			"give the first one, or the new one another generation", d.name, ErrOtherKey, generation, key)
	}
	d.cache.check(key, check)
	return nil
}

func (d *Domain) keyRecord(ctx context.Context, key string) (keyRecord, error) {
	data, err := fetch(ctx, d.store, key)
	if err != nil {
		return keyRecord{}, err
	}
	var r keyRecord
	return r, decode(key, data, &r)
}

func (d *Domain) writeKeyRecord(ctx context.Context, key string, r keyRecord) (keyRecord, error) {
	data, err := encode(key, r)
	if err != nil {
		return r, err
	}
	if err := d.store.Put(ctx, key, data); err != nil && !errors.Is(err, store.ErrExists) {
		return r, err
	}
	return d.keyRecord(ctx, key)
}

func (c *Cache) checked(key, check string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys[key] == check
}

func (c *Cache) check(key, check string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[string]string{}
	}
	c.keys[key] = check
}
