package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// The kinds of pins.
const (
	PinSnapshot = "snapshot" // a person's
	PinStray    = "stray"    // content whose owner moved on
	PinRestore  = "restore"  // what was newest before somebody went back in time
)

// Pin says why a commit is kept beside the history, and how long.
type Pin struct {
	Kind    string    `json:"kind"`             // PinSnapshot, PinStray or PinRestore
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Node    string    `json:"node,omitempty"`   // where the content was
}

// PinnedCommit is a pin with its own copy of the commit.
type PinnedCommit struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	Pin
	Commit Commit `json:"commit"`
}

// PinEntry is a pin as it is listed.
type PinEntry struct {
	ID       string
	Modified time.Time // by the store's clock
	Size     int64     // bytes of the record
}

// Pin keeps a commit under an id, once all its packs are known to be there and to stay. It succeeds again for the same commit; an
// id that holds another is [ErrOtherCommit].
func (d *Domain) Pin(ctx context.Context, id string, c Commit, p Pin) error {
	record, err := d.pinRecord(id, c, p)
	if err != nil {
		return fmt.Errorf("pin %s in domain %s: %w", id, d.name, err)
	}
	data, err := encode(d.pinKey(id), record)
	if err != nil {
		return err
	}
	l, err := d.verify(ctx, c.Packs)
	if err == nil {
		err = d.inTime(l)
	}
	if err != nil {
		return fmt.Errorf("pin %s in domain %s: %w", id, d.name, err)
	}
	err = d.store.Put(ctx, d.pinKey(id), data)
	if err == nil {
		return d.confirm(ctx, l, c.Packs)
	}
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	there, err := d.Pinned(ctx, id)
	if err == nil && there.Commit.ID != c.ID {
		err = fmt.Errorf("pin %s in domain %s: %w: %s of workspace %s", id, d.name, ErrOtherCommit, there.Commit.Name, there.Commit.Workspace)
	}
	return err
}

func (d *Domain) pinRecord(id string, c Commit, p Pin) (PinnedCommit, error) {
	switch p.Kind {
	case PinSnapshot, PinStray, PinRestore:
	default:
		return PinnedCommit{}, fmt.Errorf("unknown kind %q", p.Kind)
	}
	c.Format = formatVersion
	c.Tree = c.Tree.clipped()
	c.Domain = cmp.Or(c.Domain, d.name)
	if c.Domain != d.name {
		return PinnedCommit{}, fmt.Errorf("the commit is of domain %s, whose packs are not here", c.Domain)
	}
	err := errors.Join(validID("pin", id), validID("workspace", c.Workspace), c.valid(d.pinKey(id)))
	return PinnedCommit{Format: formatVersion, ID: id, Pin: p, Commit: c}, err
}

// Pinned reads a pin.
func (d *Domain) Pinned(ctx context.Context, id string) (PinnedCommit, error) {
	if err := validID("pin", id); err != nil {
		return PinnedCommit{}, err
	}
	key := d.pinKey(id)
	data, err := fetch(ctx, d.store, key)
	if err != nil {
		return PinnedCommit{}, fmt.Errorf("read pin: %w", err)
	}
	var p PinnedCommit
	if err := decode(key, data, &p); err != nil {
		return PinnedCommit{}, fmt.Errorf("read pin: %w", err)
	}
	if p.ID != id || p.Commit.Domain != d.name {
		return PinnedCommit{}, damaged(key, fmt.Errorf("it says it is pin %q of domain %q", p.ID, p.Commit.Domain))
	}
	return p, p.Commit.valid(key)
}

// Pins lists the pins whose id begins with prefix, in order.
func (d *Domain) Pins(ctx context.Context, prefix string) ([]PinEntry, error) {
	var pins []PinEntry
	dir := d.key("s/")
	if strings.Contains(prefix, "/") {
		return nil, fmt.Errorf("list pins of domain %s: %q cannot begin a pin's id", d.name, prefix)
	}
	for o, err := range d.scan(ctx, dir+prefix) {
		if err != nil {
			return nil, fmt.Errorf("list pins of domain %s: %w", d.name, err)
		}
		id := strings.TrimPrefix(o.Key, dir)
		if validID("pin", id) == nil {
			pins = append(pins, PinEntry{ID: id, Modified: o.Modified, Size: o.Size})
		}
	}
	return pins, nil
}

// Unpin removes a pin; one that is absent is no error.
func (d *Domain) Unpin(ctx context.Context, id string) error {
	if err := validID("pin", id); err != nil {
		return err
	}
	return d.store.Delete(ctx, d.pinKey(id))
}

func (d *Domain) pinKey(id string) string { return d.key("s/" + id) }

// ForkID names the pin of a fork: a commit of a former owner that retention must not lose.
func ForkID(workspace string, n Name) string { return "fork." + workspace + "." + n.String() }

// ofHistory says whether a pin keeps a part of its workspace's history that retention would have removed. Nobody needs it any
// longer than that history. Snapshots are a person's, and stray ones have their time.
func (p PinnedCommit) ofHistory() bool {
	return p.Kind == PinRestore || p.Kind == PinStray && p.ID == ForkID(p.Commit.Workspace, p.Commit.Name)
}

// StrayID names a stray snapshot by workspace, node and time. A node name too long for a key is cut and hashed.
func StrayID(workspace, node string, t time.Time) string {
	return StrayPrefix(workspace, node) + t.UTC().Format("20060102T150405Z")
}

// StrayPrefix is what the ids of a workspace's stray snapshots from one node begin with.
func StrayPrefix(workspace, node string) string {
	const maxNode = 128
	if len(node) > maxNode {
		node = node[:maxNode-17] + "-" + hash([]byte(node))[:16]
	}
	return "stray." + workspace + "." + node + "."
}
