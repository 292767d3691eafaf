package history

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

const (
	domainPrefix = "d/"
	domainFile   = "domain.json"
	turnPrefix   = "tend/"
)

// Domains returns the names of all domains in a store, in the order of their keys, whatever cluster they belong to. It takes one
// request for each, however much is in them: the listing jumps from a domain's first object to what comes after its last one.
func Domains(ctx context.Context, s store.Store) ([]string, error) {
	var names []string
	after := ""
	for {
		objects, err := s.List(ctx, domainPrefix, after, 1)
		if err != nil {
			return nil, fmt.Errorf("list domains: %w", err)
		}
		if len(objects) == 0 {
			return names, nil
		}
		after = objects[0].Key
		name, first, below := strings.Cut(strings.TrimPrefix(after, domainPrefix), "/")
		if !below {
			continue // an object among the domains
		}
		after = domainPrefix + name + "0" // '0' follows '/'
		ok, err := isDomain(ctx, s, name, first)
		if err != nil {
			return nil, fmt.Errorf("list domains: %w", err)
		}
		if ok {
			names = append(names, name)
		}
	}
}

// isDomain says whether there is a domain of that name, of whose keys first is the first. Without its record it is none, and
// opening it would make it one.
func isDomain(ctx context.Context, s store.Store, name, first string) (bool, error) {
	valid := validID("domain", name) == nil
	if !valid || first >= domainFile {
		return valid && first == domainFile, nil
	}
	_, err := s.Stat(ctx, domainPrefix+name+"/"+domainFile)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	return err == nil, nil
}

// TakeTurn says whether node is the one that does, in the current period, what only one node of a cluster has to do. The store's
// clock and its create-only writes decide, so no node needs to know which others there are, or are alive: the first to ask gets
// the turn. A node that fails or dies in its turn is made up for in the next period. An error beside true only says that records
// of earlier turns are left.
func TakeTurn(ctx context.Context, s store.Store, cluster, node string, period time.Duration) (bool, error) {
	prefix, now, err := turns(ctx, s, cluster)
	if err != nil {
		return false, err
	}
	key := turnKey(prefix, now, period)
	err = s.Put(ctx, key, []byte(node+"\n"))
	if errors.Is(err, store.ErrExists) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take a turn: %w", err)
	}
	return true, dropTurns(ctx, s, prefix, key)
}

// HoldTurn is [TakeTurn] for somebody who is to have every turn as long as he is alive: he takes the next one along with the present one. It
// is his again as often as he asks. When he is gone, others have the turn after the next.
func HoldTurn(ctx context.Context, s store.Store, cluster, holder string, period time.Duration) (bool, error) {
	prefix, now, err := turns(ctx, s, cluster)
	if err != nil {
		return false, err
	}
	key := turnKey(prefix, now, period)
	for _, key := range []string{key, turnKey(prefix, now.Add(period), period)} {
		if err := s.Put(ctx, key, []byte(holder+"\n")); err != nil && !errors.Is(err, store.ErrExists) {
			return false, fmt.Errorf("take a turn: %w", err)
		}
	}
	has, err := s.Get(ctx, key, maxID+1)
	if err != nil {
		return false, fmt.Errorf("take a turn: %w", err)
	}
	return string(has) == holder+"\n", dropTurns(ctx, s, prefix, key)
}

// turns says where the turns of a cluster are recorded, and what time it is by the store's clock.
func turns(ctx context.Context, s store.Store, cluster string) (prefix string, now time.Time, err error) {
	if err := validID("cluster", cluster); err != nil {
		return "", now, err
	}
	if now, err = s.Now(ctx); err != nil {
		return "", now, fmt.Errorf("take a turn: %w", err)
	}
	return turnPrefix + cluster + "/", now, nil
}

func turnKey(prefix string, now time.Time, period time.Duration) string {
	return prefix + now.UTC().Truncate(period).Format("20060102T150405Z")
}

// dropTurns removes the records of earlier periods.
func dropTurns(ctx context.Context, s store.Store, prefix, current string) error {
	objects, err := s.List(ctx, prefix, "", maxPage)
	if err != nil {
		return fmt.Errorf("list earlier turns: %w", err)
	}
	var keys []string
	for _, o := range objects {
		if o.Key < current {
			keys = append(keys, o.Key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if err := s.Delete(ctx, keys...); err != nil {
		return fmt.Errorf("remove earlier turns: %w", err)
	}
	return nil
}
