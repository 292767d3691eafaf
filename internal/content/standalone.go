package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// standaloneOwner is the owner of claims that no node holds.
const standaloneOwner = "archive"

// Standalone works with the backups of one workspace without a cluster: for people, scripts and disasters.
type Standalone struct {
	Domain    *history.Domain
	Namespace string // name of the domain
	Workspace string
	// Key opens and seals; nil if the archive is readable. Opening needs the generation that a backup was sealed with.
	Key *format.Key
	// Progress is told what was read or written; it may be nil.
	Progress archive.Progress
}

// Made is a backup that Create has made, or found that it needs not be made.
type Made struct {
	history.Commit
	// Unchanged says that the directory equals the backup, which was there before.
	Unchanged bool
	// BytesRead is how much of the contents was read.
	BytesRead int64
}

func (a Standalone) log() *history.Log { return a.Domain.Workspace(a.Workspace) }

// Find returns a backup by name, a snapshot by id, or the newest complete backup if both are empty.
func (a Standalone) Find(ctx context.Context, backup, snapshot string) (history.Commit, error) {
	switch {
	case snapshot != "":
		pinned, err := a.Domain.Pinned(ctx, snapshot)
		if errors.Is(err, store.ErrNotFound) {
			return history.Commit{}, fmt.Errorf("there is no snapshot %s in domain %s", snapshot, a.Namespace)
		}
		return pinned.Commit, err
	case backup != "":
		name, err := history.ParseName(backup)
		if err != nil {
			return history.Commit{}, err
		}
		c, _, err := a.log().Read(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			return history.Commit{}, fmt.Errorf("workspace %s/%s has no backup %s: `ws-daemon archive list` names those that it has", a.Namespace, a.Workspace, backup)
		}
		return c, err
	default:
		c, _, err := a.log().Current(ctx)
		if errors.Is(err, history.ErrNoBackup) {
			return c, fmt.Errorf("workspace %s/%s has no complete backup in this store: check the names, or make one", a.Namespace, a.Workspace)
		}
		return c, err
	}
}

// Create makes a backup of a directory under a claim of its own. The index of an earlier run spares the reading of what has not
// changed since; it is kept at indexPath, which may be empty. from is a snapshot of the domain that has much of the directory; it
// may be empty, too.
func (a Standalone) Create(ctx context.Context, dir, from, indexPath string) (Made, error) {
	last, parent, err := a.parent(ctx, from)
	if err != nil {
		return Made{}, err
	}
	made, err := a.create(ctx, dir, last, parent, indexPath)
	if errors.Is(err, history.ErrCondemned) {
		return a.create(ctx, dir, nil, nil, indexPath)
	}
	return made, err
}

// create stores what last does not have; parent names last if that is a backup of this workspace.
func (a Standalone) create(ctx context.Context, dir string, last *history.Commit, parent *history.Ref, indexPath string) (Made, error) {
	if err := checkKey(ctx, a.Domain, a.Key); err != nil {
		return Made{}, err
	}
	o := archive.CreateOptions{Sink: packs{a.Domain}, Source: packs{a.Domain}, Connections: packs{a.Domain}.writes(), Key: a.Key, Progress: a.Progress}
	if last != nil && sealedAlike(*last, a.Key) {
		root, err := rootOf(*last)
		if err != nil {
			return Made{}, err
		}
		o.Parent = &root
		o.Index, _ = archive.LoadIndex(indexPath) // without one everything is read
	}
	res, err := archive.Create(ctx, dir, o)
	if err != nil && last != nil {
		err = named(*last, err)
	}
	if err != nil {
		return Made{}, err
	}
	if o.Parent != nil && parent != nil && equals(last.Tree, res.Report) {
		return Made{Commit: *last, Unchanged: true, BytesRead: res.BytesRead}, keepIndex(res.Index, indexPath)
	}
	c, err := a.commit(ctx, res, parent)
	if err != nil {
		return Made{}, err
	}
	return Made{Commit: c, BytesRead: res.BytesRead}, keepIndex(res.Index, indexPath)
}

// parent is the newest backup and its name, or the snapshot that is asked for; nil if there is none.
func (a Standalone) parent(ctx context.Context, snapshot string) (*history.Commit, *history.Ref, error) {
	if snapshot != "" {
		c, err := a.Find(ctx, "", snapshot)
		return &c, nil, err
	}
	c, ref, err := a.log().Current(ctx)
	if errors.Is(err, history.ErrNoBackup) {
		return nil, nil, nil
	}
	return &c, &ref, err
}

// commit names what was stored, after the newest backup there is. Of two at once one wins, and the other says so.
func (a Standalone) commit(ctx context.Context, res *archive.Result, parent *history.Ref) (history.Commit, error) {
	name, owner, err := a.next(ctx)
	if err != nil {
		return history.Commit{}, err
	}
	c := history.Commit{ID: history.NewID(), Domain: a.Namespace, Workspace: a.Workspace, Owner: owner, Created: time.Now().UTC(), Name: name, Parent: parent}
	take(&c, res)
	before := history.Name{Claim: name.Claim, Number: name.Number - 1}
	if _, err := a.log().Append(ctx, c, before); errors.Is(err, history.ErrFenced) {
		return c, fmt.Errorf("somebody else made a backup of workspace %s/%s at the same time: run it again (%w)", a.Namespace, a.Workspace, err)
	} else if err != nil {
		return c, err
	}
	return c, nil
}

// next returns the name of the next backup, under a claim that no node holds.
func (a Standalone) next(ctx context.Context) (history.Name, history.Owner, error) {
	newest, _, err := a.log().Newest(ctx)
	if err != nil && !errors.Is(err, history.ErrNoBackup) {
		return history.Name{}, history.Owner{}, err
	}
	if err == nil && newest.Owner.UID == standaloneOwner {
		return history.Name{Claim: newest.Name.Claim, Number: newest.Name.Number + 1}, newest.Owner, nil
	}
	claim, err := a.log().NewestClaim(ctx)
	if err != nil {
		return history.Name{}, history.Owner{}, err
	}
	owner := history.Owner{UID: standaloneOwner, Node: standaloneOwner, Area: history.NewID()}
	if err := a.log().PublishClaim(ctx, claim+1, owner, nil); err != nil {
		return history.Name{}, owner, fmt.Errorf("claim workspace %s/%s: %w", a.Namespace, a.Workspace, err)
	}
	return history.Name{Claim: claim + 1, Number: 1}, owner, nil
}

func keepIndex(index *archive.Index, path string) error {
	if index == nil || path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return index.Save(path)
}

// Restore writes a backup, or some paths of it, into a new or empty directory. An index for the next Create is kept at
// indexPath, unless that is empty.
func (a Standalone) Restore(ctx context.Context, c history.Commit, dir string, paths []string, salvage bool, indexPath string) (archive.Report, error) {
	root, err := rootOf(c)
	if err != nil {
		return archive.Report{}, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { //nolint:gosec // the root's mode is restored, too
		return archive.Report{}, err
	}
	report, index, err := archive.Restore(ctx, root, dir, archive.RestoreOptions{
		Source: packs{a.Domain}, Connections: packs{a.Domain}.reads(), Key: keyOf(c, a.Key),
		Paths: paths, Salvage: salvage, Progress: a.Progress, SkipOwner: os.Geteuid() != 0,
	})
	if err != nil {
		return report, named(c, err)
	}
	return report, keepIndex(index, indexPath)
}

// List calls each for the rows of a path.
func (a Standalone) List(ctx context.Context, c history.Commit, path string, recursive bool, each func(archive.Row) error) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	return named(c, archive.List(ctx, root, packs{a.Domain}, keyOf(c, a.Key), path, recursive, each))
}

// Cat writes the content of a file.
func (a Standalone) Cat(ctx context.Context, c history.Commit, path string, w io.Writer) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	return named(c, archive.Cat(ctx, root, packs{a.Domain}, keyOf(c, a.Key), path, w))
}

// Diff calls each for every difference between two backups.
func (a Standalone) Diff(ctx context.Context, from, to history.Commit, each func(archive.Change) error) error {
	if !sealedAlike(from, keyOf(to, a.Key)) {
		return fmt.Errorf("backups %s and %s are not sealed alike: restore both and compare the directories", from.Name, to.Name)
	}
	before, err := rootOf(from)
	if err != nil {
		return err
	}
	after, err := rootOf(to)
	if err != nil {
		return err
	}
	return named(to, archive.Diff(ctx, before, after, packs{a.Domain}, keyOf(to, a.Key), each))
}

// Verify makes sure that a backup can be restored; with readData every byte of it is read.
func (a Standalone) Verify(ctx context.Context, c history.Commit, readData bool) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	if err := a.Domain.VerifyPacks(ctx, c.Packs); err != nil {
		return err
	}
	return named(c, archive.Verify(ctx, root, packs{a.Domain}, keyOf(c, a.Key), readData, nil))
}

// Export writes a backup as a plain tar.
func (a Standalone) Export(ctx context.Context, c history.Commit, w io.Writer) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	return named(c, archive.Export(ctx, root, packs{a.Domain}, keyOf(c, a.Key), w))
}

// Import stores a plain tar as the newest backup. A node that held the workspace meanwhile is fenced.
func (a Standalone) Import(ctx context.Context, r io.Reader) (_ Made, err error) {
	dir, err := os.MkdirTemp("", "ws-daemon-import-")
	if err != nil {
		return Made{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if _, err := archive.Import(ctx, r, dir); err != nil {
		return Made{}, err
	}
	return a.Create(ctx, dir, "", "")
}
