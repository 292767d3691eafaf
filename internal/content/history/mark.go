package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// needs is what the commits and pins of a domain need. It takes 40 bytes or so for each pack that is needed and 100 for each
// commit, whatever they hold.
type needs struct {
	domain *Domain
	packs  map[packID]bool // whether they were found in the store
	read   map[string]struct{}
	unborn bool // nothing was found that says that this domain was ever in use
}

// needs reads all commits and pins. One that cannot be read might need any pack, so it is an error that names it.
func (d *Domain) needs(ctx context.Context) (*needs, error) {
	n := &needs{domain: d, packs: map[packID]bool{}, read: map[string]struct{}{}}
	if err := n.update(ctx); err != nil {
		return nil, err
	}
	return n, n.lookForLife(ctx)
}

// update reads what appeared since the last time. Commits never change, so it reads none twice.
func (n *needs) update(ctx context.Context) error {
	if err := n.below(ctx, "w/", n.commit); err != nil {
		return err
	}
	return n.below(ctx, "s/", n.pin) // after the commits: a pin is made of one that may go then
}

// below reads what is new below a prefix.
func (n *needs) below(ctx context.Context, prefix string, read func(context.Context, string) ([]Pack, error)) error {
	prefix = n.domain.key(prefix)
	for o, err := range n.domain.scan(ctx, prefix) {
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if _, known := n.read[o.Key]; known {
			continue
		}
		packs, err := read(ctx, strings.TrimPrefix(o.Key, prefix))
		if errors.Is(err, store.ErrNotFound) {
			err = n.retired(ctx, o.Key)
		}
		if err != nil {
			return fmt.Errorf("%s cannot be read and might need any pack, so none is removed: %w", o.Key, err)
		}
		n.add(o.Key, packs)
	}
	return nil
}

// retired makes sure that an object that was listed and is not found any more is gone.
func (n *needs) retired(ctx context.Context, key string) error {
	there, err := n.domain.store.List(ctx, key, "", 1)
	if err == nil && len(there) > 0 && there[0].Key == key {
		err = errors.New("it is listed and cannot be found")
	}
	return err
}

func (n *needs) commit(ctx context.Context, rest string) ([]Pack, error) {
	workspace, key, _ := strings.Cut(rest, "/")
	if _, grave := parseGraveKey(key); grave {
		return nil, nil
	}
	name, ok := parseNameKey(key)
	if !ok {
		return nil, errors.New("this version does not know what it is: update ws-daemon, or remove it")
	}
	if name.IsClaim() {
		return nil, nil // what it goes on from is a commit of its own
	}
	c, _, err := n.domain.Workspace(workspace).read(ctx, name)
	return c.Packs, err
}

func (n *needs) pin(ctx context.Context, id string) ([]Pack, error) {
	p, err := n.domain.Pinned(ctx, id)
	return p.Commit.Packs, err
}

func (n *needs) add(key string, packs []Pack) {
	n.read[key] = struct{}{}
	for _, p := range packs {
		id, _ := parsePackID(p.ID) // whoever read the commit has checked it
		if !n.has(id) {
			n.packs[id] = false
		}
	}
}

func (n *needs) has(id packID) bool {
	_, needed := n.packs[id]
	return needed
}

// lookForLife tells a domain whose backups have all had their time, which has tombstones, from one whose backups are missing.
func (n *needs) lookForLife(ctx context.Context) error {
	if len(n.read) > 0 {
		return nil
	}
	graves, err := n.domain.store.List(ctx, n.domain.key("t/"), "", 1)
	n.unborn = len(graves) == 0
	return err
}

// missing returns what is needed and was not found, once all packs were listed.
func (n *needs) missing() []string {
	var out []string
	for id, found := range n.packs {
		if !found {
			out = append(out, id.String())
		}
	}
	slices.Sort(out)
	return out
}

// storedPack is a pack as it is listed.
type storedPack struct {
	id   packID
	size int64
}

// stock is what the packs of a domain come to.
type stock struct {
	packs, bytes int64            // all there are
	idle         []storedPack     // that nothing needs and no list has, older than a time; at most maxListed of them
	more         bool             // there are more idle ones
	listed       map[packID]int64 // sizes of those in lists, 0 until they are found
}

// count lists the packs of a domain, page by page, and marks those that are needed as seen.
func (s *stock) count(ctx context.Context, n *needs, before time.Time) error {
	prefix := n.domain.key("p/")
	for o, err := range n.domain.scanBy(ctx, prefix, "", maxPage) {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		_, name, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		id, err := parsePackID(name)
		if err != nil || n.domain.packKey(Pack{ID: name}) != o.Key {
			continue // no pack of ours
		}
		s.packs, s.bytes = s.packs+1, s.bytes+o.Size
		_, isListed := s.listed[id]
		switch {
		case isListed:
			s.listed[id] = o.Size
			if n.has(id) {
				n.packs[id] = true
			}
		case n.has(id):
			n.packs[id] = true
		case o.Modified.After(before): // maybe of a backup that is being made
		case len(s.idle) == maxListed:
			s.more = true
		default:
			s.idle = append(s.idle, storedPack{id, o.Size})
		}
	}
	return nil
}

// spare leaves out what is needed after all.
func (s *stock) spare(n *needs) {
	s.idle = slices.DeleteFunc(s.idle, func(p storedPack) bool { return n.has(p.id) })
}
