// Package content fills, saves and empties the workspaces of one node.
//
// The [Keeper] does what the reconcilers decide. Each of its methods is one job: it may take long, may be ended at any
// instruction, and goes on where it was when it is called again. What is true is on the disk (markers) and in the store
// (commits); the journal caches both. The package knows nothing of Kubernetes.
package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Subject says whose content a job works on, and under which claim.
type Subject struct {
	UID, Namespace, Name, Class string
	Claim                       int64
}

// String names the subject in messages.
func (s Subject) String() string { return s.Namespace + "/" + s.Name }

// Keeper fills, saves and empties the workspaces of one node.
type Keeper struct {
	// Area is the node's working area.
	Area *state.Area
	// Store holds the backups of all nodes.
	Store store.Store
	// Memory is what the buffers of all jobs are taken from; nil: there is enough.
	Memory *memory.Budget
	// Volumes by class.
	Volumes map[string]volume.Driver
	// Templates is how many templates a class keeps at most, if its driver can; none if it is not here.
	Templates map[string]int
	// Cluster is the UID of the namespace kube-system, Node the name of this node.
	Cluster, Node string
	// Keys returns the keys that seal and open what a domain stores, nil to leave it readable. Without the function nothing is
	// sealed. It is asked at the beginning of each job.
	Keys func(domain string) (*format.Key, error)
	// AdoptCluster lets domains that another cluster made be used.
	AdoptCluster bool
	// Git clones repositories.
	Git initializer.Git
	// StepEnded is told of each step that filled a workspace, or failed to, if it is set: where content came from, what was made, and
	// how long it took. It must not block.
	StepEnded func(step volume.Step, err error)
	// StrayRetention is how long a stray snapshot is kept, until [Keeper.Tune] says otherwise.
	StrayRetention time.Duration
	// RetryMax is the longest pause between two attempts, until [Keeper.Tune] says otherwise.
	RetryMax time.Duration
	// Patience is how long a disk may take to answer; 20 seconds if it is zero.
	Patience time.Duration
	// Now is the time.
	Now func() time.Time
	// Damaged is told of what is missing or damaged in the store, once an hour for each pack; it may be nil. It must not block.
	Damaged func(Damage)

	tuning     atomic.Pointer[Tuning]
	identified sync.Map      // classes whose disk is known to be ours
	arriving   sync.Map      // classes that are not in order since the start, each with a turn to do that
	familiar   sync.Map      // backups that need not be read again, by UID
	collected  history.Cache // what was read of collection's lists
	templates  templates
	answers    answers
	damages    damages
}

// Observation is what the node knows of one workspace without asking anybody.
type Observation struct {
	// Class of the volume.
	Class string
	// Volume on this node; the zero value if there is none.
	Volume volume.Info
	// Position of the content in it.
	Position volume.Position
	// Marker beside the content; the zero value if there is none.
	Marker volume.Marker
	// Journal is the journal's entry; the zero value if there is none.
	Journal state.Entry
}

// Exists says whether there is a volume.
func (o Observation) Exists() bool { return o.Volume.ID != "" }

// Finished says whether the volume holds content that was completed.
func (o Observation) Finished() bool { return o.Exists() && o.Marker.Content != nil }

// Observe looks at what the node has of a workspace. It does not wait for anything but the local disk, and for that not for ever:
// [ErrHangs]. The journal's entry is in the observation whatever fails; [ErrUnknownClass] if the class is not in this node's configuration.
func (k *Keeper) Observe(ctx context.Context, s Subject) (Observation, error) {
	entry, _ := k.Area.Journal().Get(s.UID)
	o, err := inTime(ctx, k, k.diskOf(s.Class, s.UID), func(ctx context.Context) (Observation, error) { return k.observe(ctx, s) })
	o.Class, o.Journal = s.Class, entry
	return o, err
}

func (k *Keeper) observe(ctx context.Context, s Subject) (o Observation, err error) {
	driver, err := k.driver(ctx, s)
	if err != nil {
		return o, err // what lies in a class that cannot be looked into is unknown, not absent
	}
	info, err := driver.Get(ctx, s.UID)
	if errors.Is(err, volume.ErrNotFound) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	o.Volume = info
	if o.Marker, err = volume.ReadMarker(info); err != nil && !errors.Is(err, volume.ErrNotFound) {
		return o, err
	}
	o.Position, err = driver.Position(ctx, s.UID)
	return o, err
}

// Provision makes the volume, or grows it, and marks it as belonging to the subject. Content is not touched.
func (k *Keeper) Provision(ctx context.Context, s Subject, size, inodes int64) error {
	if err := k.Area.Check(); err != nil {
		return err
	}
	driver, err := k.driver(ctx, s)
	if err != nil {
		return err
	}
	if err := k.record(s, func(*state.Entry) {}); err != nil {
		return err
	}
	spec := volume.Spec{ID: s.UID, Size: size, Inodes: inodes}
	info, err := driver.Ensure(ctx, spec)
	if err != nil {
		return err
	}
	if _, err := volume.ReadMarker(info); !errors.Is(err, volume.ErrNotFound) {
		if err != nil {
			return err
		}
		return grow(ctx, driver, spec)
	}
	if err := bare(driver, info); err != nil {
		return err
	}
	m, err := k.marker(s)
	if err != nil {
		return err
	}
	return volume.WriteMarker(info, m)
}

// grow makes a volume as large as it shall be. What the driver says afterwards decides whether it has to be done again.
func grow(ctx context.Context, driver volume.Driver, spec volume.Spec) error {
	info, err := driver.Resize(ctx, spec)
	if err == nil && (info.Size < spec.Size || info.Inodes != spec.Inodes) {
		err = fmt.Errorf("volume %s has %d bytes and %d inodes after it was made to have %d and %d",
			info.Dir, info.Size, info.Inodes, spec.Size, spec.Inodes)
	}
	return err
}

// bare makes sure that a volume without a marker holds nothing, wherever content may lie, and is no directory of somebody else. A
// marker may get lost; what lay beside it is not for us to remove, or to give to anybody.
func bare(driver volume.Driver, info volume.Info) error {
	if err := nothingStrange(info.Dir); err != nil {
		return err
	}
	for _, at := range []volume.Position{volume.Published, volume.Withdrawn, volume.Staged} {
		path := driver.Path(info.ID, at)
		names, err := os.ReadDir(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for content without a marker: %w", err)
		}
		if len(names) > 0 {
			return fmt.Errorf("%w: volume %s has no marker: %w", ErrNotOurs, info.Dir,
				&volume.ForeignError{Path: path, Reason: "whose content it is cannot be told"})
		}
	}
	return nil
}

// nothingStrange makes sure that the directory of a volume has nothing in it that is not of a volume.
func nothingStrange(path string) error {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for content without a marker: %w", err)
	}
	defer dir.Close()
	if err := volume.Strange(dir, path); err != nil {
		return fmt.Errorf("%w: %s has no marker: %w", ErrNotOurs, path, err)
	}
	return nil
}

// marker returns the unfinished marker of a subject.
func (k *Keeper) marker(s Subject) (volume.Marker, error) {
	id, err := k.Area.Identity()
	if err != nil {
		return volume.Marker{}, err
	}
	return volume.Marker{
		UID: s.UID, Namespace: s.Namespace, Name: s.Name,
		Cluster: k.Cluster, Node: k.Node, Area: id.ID, Claim: s.Claim,
	}, nil
}

// own returns the volume and its marker if they belong to the subject under its claim; every job starts here.
func (k *Keeper) own(ctx context.Context, s Subject) (volume.Driver, Observation, error) {
	if err := k.Area.Check(); err != nil {
		return nil, Observation{}, err
	}
	driver, err := k.driver(ctx, s)
	if err != nil {
		return nil, Observation{}, err
	}
	o, err := k.Observe(ctx, s)
	if err != nil {
		return nil, o, err
	}
	switch {
	case !o.Exists():
		return nil, o, fmt.Errorf("%w: workspace %s has no volume on this node", ErrNotOurs, s)
	case o.Marker.UID != s.UID || o.Marker.Claim != s.Claim:
		return nil, o, fmt.Errorf("%w: the marker in %s names %s under claim %d, not %s under claim %d",
			ErrNotOurs, o.Volume.Dir, o.Marker.UID, o.Marker.Claim, s.UID, s.Claim)
	case o.Marker.Content == nil:
		return nil, o, fmt.Errorf("%w: the content in %s was never finished", ErrNotOurs, o.Volume.Dir)
	}
	return driver, o, nil
}

func (k *Keeper) driver(ctx context.Context, s Subject) (volume.Driver, error) {
	driver, ok := k.Volumes[s.Class]
	if !ok {
		return nil, fmt.Errorf("%w: add %q to volumes.classes; what workspace %s has in it stays untouched until then", ErrUnknownClass, s.Class, s)
	}
	return driver, k.identify(ctx, s.Class, driver)
}

// identify makes sure that a class has the disk on which this node's volumes lie. Volumes that the journal knows must lie
// somewhere: without the class's mark this is a mount point.
func (k *Keeper) identify(ctx context.Context, class string, driver volume.Driver) error {
	if _, done := k.identified.Load(class); done {
		return nil
	}
	if err := k.recognize(ctx, class, driver); err != nil {
		return err
	}
	if late, ok := k.arriving.Load(class); ok {
		if err := k.arrive(ctx, class, driver, late); err != nil {
			return err
		}
	}
	k.identified.Store(class, true)
	return nil
}

// recognize has the driver look at its disk.
func (k *Keeper) recognize(ctx context.Context, class string, driver volume.Driver) error {
	id, err := k.Area.Identity()
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(k.Area.Journal().List(), func(e state.Entry) bool { return e.Class == class })
	if err := driver.Identify(ctx, id.ID, known); err != nil {
		return fmt.Errorf("volume class %s: %w", class, err)
	}
	return nil
}

// domain opens the subject's domain in the store, after making sure that it is the store this node has used so far.
func (k *Keeper) domain(ctx context.Context, namespace string) (*history.Domain, error) {
	if err := k.checkStore(ctx); err != nil {
		return nil, err
	}
	d, err := history.OpenDomain(ctx, k.Store, namespace, k.Cluster, k.AdoptCluster)
	if err != nil {
		return nil, err
	}
	return d.Sharing(&k.collected), nil
}

// checkStore refuses a store that is another one than before: swapped, emptied, or a mount that is missing.
func (k *Keeper) checkStore(ctx context.Context) error {
	id, err := store.Identity(ctx, k.Store)
	if err != nil {
		return &StoreError{Store: k.Store.String(), Err: err}
	}
	known, err := k.Area.Identity()
	if err != nil {
		return err
	}
	if known.Store == "" {
		return k.Area.SetStore(id)
	}
	if known.Store != id {
		return &StoreError{Store: k.Store.String(), Err: fmt.Errorf("this store has the identity %s, but this node has used %s: "+
			"point the configuration back at the old store, or remove \"store\" from identity.json in the working area to accept the new one", id, known.Store)}
	}
	return nil
}

// key returns the keys of a domain, once it is known that they are those that it was sealed with.
func (k *Keeper) key(ctx context.Context, domain *history.Domain) (*format.Key, error) {
	if k.Keys == nil {
		return nil, nil
	}
	key, err := k.Keys(domain.Name())
	if err != nil {
		return nil, err
	}
	return key, checkKey(ctx, domain, key)
}

func (k *Keeper) log(ctx context.Context, s Subject) (*history.Domain, *history.Log, error) {
	domain, err := k.domain(ctx, s.Namespace)
	if err != nil {
		return nil, nil, err
	}
	return domain, domain.Workspace(s.Name), nil
}

func (k *Keeper) owner(s Subject) (history.Owner, error) {
	id, err := k.Area.Identity()
	return history.Owner{UID: s.UID, Node: k.Node, Area: id.ID}, err
}

// record changes the subject's journal entry, making it if there is none. An entry of an older claim starts anew. What others
// write to the same entry at the same time stays: reconcile passes note what they see beside jobs.
func (k *Keeper) record(s Subject, change func(*state.Entry)) error {
	_, err := k.change(s, change)
	return err
}

// change is record, and returns what the entry is now.
func (k *Keeper) change(s Subject, change func(*state.Entry)) (state.Entry, error) {
	return k.Area.Journal().Update(s.UID, func(e *state.Entry, found bool) bool {
		if !found || e.Claim != s.Claim {
			// What pods have mounted is a matter of the volume, not of the claim.
			*e = state.Entry{UID: s.UID, Namespace: s.Namespace, Name: s.Name, Class: s.Class, Claim: s.Claim, Uses: e.Uses}
		}
		change(e)
		return true
	})
}
