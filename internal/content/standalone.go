package content

import (
	"cmp"
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
	Cluster   string // that a domain belongs to if Create makes it
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
	// Skipped names sockets and devices (at most 100), which are never kept.
	Skipped []string
	// Altered names what a tar has and the file system that it was unpacked to cannot hold (at most 100 of AlteredCount).
	Altered      []archive.Problem
	AlteredCount int64
}

func (a Standalone) log() *history.Log { return a.Domain.Workspace(a.Workspace) }

// Find returns a backup by name, a snapshot by id, or the newest complete backup if both are empty.
func (a Standalone) Find(ctx context.Context, backup, snapshot string) (history.Commit, error) {
	c, err := a.find(ctx, backup, snapshot)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, history.ErrNoBackup) {
		return c, cmp.Or(a.Domain.Find(ctx), a.absent(backup, snapshot, err))
	}
	return c, err
}

func (a Standalone) find(ctx context.Context, backup, snapshot string) (history.Commit, error) {
	switch {
	case snapshot != "":
		pinned, err := a.Domain.Pinned(ctx, snapshot)
		return pinned.Commit, err
	case backup != "":
		name, err := history.ParseName(backup)
		if err != nil {
			return history.Commit{}, err
		}
		c, _, err := a.log().Read(ctx, name)
		return c, err
	default:
		c, _, err := a.log().Current(ctx)
		return c, err
	}
}

// absent says what there is none of.
func (a Standalone) absent(backup, snapshot string, err error) error {
	switch {
	case snapshot != "":
		return fmt.Errorf("there is no snapshot %s in domain %s", snapshot, a.Namespace)
	case backup != "":
		return fmt.Errorf("workspace %s/%s has no backup %s: `ws-daemon archive list` names those that it has", a.Namespace, a.Workspace, backup)
	case errors.Is(err, history.ErrNoBackup):
		return fmt.Errorf("workspace %s/%s has no complete backup in this store: check the names, or make one", a.Namespace, a.Workspace)
	default: // one that was listed is gone
		return err
	}
}

// Create makes a backup of a directory under a claim of its own. The index of an earlier run spares the reading of what has not
// changed since; it is kept at indexPath, which may be empty. from is a snapshot of the domain that has much of the directory; it
// may be empty, too.
func (a Standalone) Create(ctx context.Context, dir, from, indexPath string) (Made, error) {
	last, err := a.parent(ctx, from)
	if err != nil {
		return Made{}, err
	}
	made, err := a.create(ctx, dir, last, from, indexPath)
	if errors.Is(err, history.ErrCondemned) {
		return a.create(ctx, dir, nil, "", indexPath)
	}
	return made, err
}

// create stores what last does not have, which is the snapshot from if that is not empty.
func (a Standalone) create(ctx context.Context, dir string, last *history.Commit, from, indexPath string) (Made, error) {
	if err := checkKey(ctx, a.Domain, a.Key); err != nil {
		return Made{}, err
	}
	o := archive.CreateOptions{Sink: packs{a.Domain}, Source: packs{a.Domain}, Connections: packs{a.Domain}.connections(), Key: a.Key, Progress: a.Progress}
	if last != nil {
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
	if from == "" && res.Unchanged {
		keepIndex(res.Index, indexPath)
		return Made{Commit: *last, Unchanged: true, BytesRead: res.BytesRead, Skipped: res.Skipped}, nil
	}
	if from != "" {
		last = nil // of whatever workspace
	}
	c, err := a.commit(ctx, res, last)
	if err != nil {
		return Made{}, err
	}
	keepIndex(res.Index, indexPath)
	return Made{Commit: c, BytesRead: res.BytesRead, Skipped: res.Skipped}, nil
}

// parent is what the next backup goes on from: the newest one, complete or not, or the snapshot that is asked for; nil if there is
// none, if something of it is missing, or if it is sealed with another key. Then everything is stored anew, in a domain that is made
// if it is not there.
func (a Standalone) parent(ctx context.Context, snapshot string) (*history.Commit, error) {
	c, err := a.newest(ctx, snapshot)
	if err == nil {
		err = a.Domain.VerifyPacks(ctx, c.Packs)
	}
	if errors.Is(err, history.ErrNoBackup) || snapshot == "" && history.Gone(err) {
		_, err := a.Domain.Make(ctx, a.Cluster)
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if !sealedAlike(c, a.Key) {
		return nil, nil
	}
	return &c, nil
}

func (a Standalone) newest(ctx context.Context, snapshot string) (history.Commit, error) {
	if snapshot != "" {
		return a.Find(ctx, "", snapshot)
	}
	c, _, err := a.log().Newest(ctx)
	if err == nil && c.Name.IsClaim() { // of a node that took the workspace over, and has made no backup yet
		c, _, err = a.log().Current(ctx)
	}
	return c, err
}

// commit names what was stored. In the ordinary case last is still the newest backup, and a claim of ours goes on; else it comes
// after whatever is newest. Of two at once one wins, and the other says so.
func (a Standalone) commit(ctx context.Context, res *archive.Result, last *history.Commit) (history.Commit, error) {
	c := history.Commit{ID: history.NewID(), Domain: a.Namespace, Workspace: a.Workspace, Created: time.Now().UTC()}
	take(&c, res)
	if last != nil && last.Owner.UID == standaloneOwner {
		c.Name, c.Owner = history.Name{Claim: last.Name.Claim, Number: last.Name.Number + 1}, last.Owner
		if _, err := a.log().Append(ctx, c, last.Name); !errors.Is(err, history.ErrFenced) {
			return c, err
		}
	}
	var err error
	if c.Name, c.Owner, err = a.next(ctx); err == nil {
		_, err = a.log().Append(ctx, c, history.Name{Claim: c.Name.Claim, Number: c.Name.Number - 1})
	}
	return c, a.outrun(err)
}

// next returns the name of the next backup, under a claim that no node holds.
func (a Standalone) next(ctx context.Context) (history.Name, history.Owner, error) {
	newest, _, err := a.log().Newest(ctx)
	if err != nil && !errors.Is(err, history.ErrNoBackup) && !history.Gone(err) {
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
		return history.Name{}, owner, err
	}
	return history.Name{Claim: claim + 1, Number: 1}, owner, nil
}

// outrun says what a fence means to somebody who holds no workspace.
func (a Standalone) outrun(err error) error {
	if errors.Is(err, history.ErrFenced) {
		return fmt.Errorf("somebody else made a backup of workspace %s/%s at the same time: run it again (%w)", a.Namespace, a.Workspace, err)
	}
	return err
}

// indexAge is how long the index of a directory is kept that no command asks for.
const indexAge = 30 * 24 * time.Hour

// keepIndex keeps an index, or else none. It is a cache: that it cannot be written is no failure of what was done.
func keepIndex(index *archive.Index, path string) {
	if path == "" {
		return
	}
	if index == nil || os.MkdirAll(filepath.Dir(path), 0o700) != nil || index.Save(path) != nil {
		_ = os.Remove(path)
	}
	forgetIndexes(filepath.Dir(path), time.Now().Add(-indexAge))
}

// forgetIndexes removes those last written before a time: most directories that somebody restores into are never backed up.
func forgetIndexes(dir string, before time.Time) {
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) {
			_ = os.Remove(filepath.Join(dir, f.Name()))
		}
	}
}

// Restore writes a backup, or some paths of it, into a new or empty directory, where everything appears at once, verified and on the
// disk. An index for the next Create is kept at indexPath, unless that is empty.
func (a Standalone) Restore(ctx context.Context, c history.Commit, dir string, paths []string, salvage bool, indexPath string) (archive.Report, error) {
	root, err := rootOf(c)
	if err != nil {
		return archive.Report{}, err
	}
	to, err := newTarget(dir)
	if err != nil {
		return archive.Report{}, fmt.Errorf("restore: %w", err)
	}
	report, index, err := archive.Restore(ctx, root, to.dir(), archive.RestoreOptions{
		Source: packs{a.Domain}, Connections: packs{a.Domain}.connections(), Key: keyOf(c, a.Key),
		Paths: paths, Salvage: salvage, Progress: a.Progress, SkipOwner: os.Geteuid() != 0,
	})
	err = to.finish(ctx, err)
	if err != nil {
		return report, explained(c, err)
	}
	keepIndex(index, indexPath)
	return report, nil
}

// explained says whose backup an error is about, and what a person can do if that is damaged.
func explained(c history.Commit, err error) error {
	if err == nil || errors.Is(err, format.ErrKey) {
		return named(c, err)
	}
	what := fmt.Sprintf("backup %s of workspace %s in domain %s", c.Name, c.Workspace, c.Domain)
	return orDamaged(err, what, "choose another one with --backup, or restore what is whole with --salvage")
}

// List calls each for the rows of a path.
func (a Standalone) List(ctx context.Context, c history.Commit, path string, recursive bool, each func(archive.Row) error) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	return explained(c, archive.List(ctx, root, packs{a.Domain}, keyOf(c, a.Key), path, recursive, each))
}

// Cat writes the content of a file.
func (a Standalone) Cat(ctx context.Context, c history.Commit, path string, w io.Writer) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	return explained(c, archive.Cat(ctx, root, packs{a.Domain}, keyOf(c, a.Key), path, w))
}

// Diff calls each for every difference between two backups.
func (a Standalone) Diff(ctx context.Context, from, to history.Commit, each func(archive.Change) error) error {
	if (keyOf(from, a.Key) == nil) != (keyOf(to, a.Key) == nil) {
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
	return explained(to, archive.Diff(ctx, before, after, packs{a.Domain}, keyOf(to, a.Key), each))
}

// Verify makes sure that a backup can be restored, and that what describes its domain and its claim is whole; with readData every
// byte of it is read.
func (a Standalone) Verify(ctx context.Context, c history.Commit, readData bool) error {
	err := a.verify(ctx, c, readData)
	if damaged, ok := errors.AsType[*DamagedError](err); ok {
		damaged.Needs = a.Domain.WhoNeeds(ctx, lostPacks(err))
	}
	return err
}

func (a Standalone) verify(ctx context.Context, c history.Commit, readData bool) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	if err := a.Domain.Check(ctx); err != nil {
		return err
	}
	claim := history.Name{Claim: c.Name.Claim}
	if _, _, err := a.Domain.Workspace(c.Workspace).Read(ctx, claim); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := a.verifyPacks(ctx, c.Packs); err != nil {
		return explained(c, err)
	}
	return explained(c, archive.Verify(ctx, root, packs{a.Domain}, keyOf(c, a.Key), readData, nil))
}

// verifyPacks names all packs that are missing or have another size.
func (a Standalone) verifyPacks(ctx context.Context, packs []history.Pack) error {
	first := a.Domain.VerifyPacks(ctx, packs)
	if !history.Gone(first) {
		return first
	}
	var lost lostError
	for _, p := range packs {
		err := a.Domain.StatPack(ctx, p)
		if err != nil && !history.Gone(err) {
			return err
		}
		if err != nil {
			lost = append(lost, err)
		}
	}
	if len(lost) == 0 {
		return first // one is being collected
	}
	return lost
}

// Export writes a backup as a plain tar.
func (a Standalone) Export(ctx context.Context, c history.Commit, w io.Writer) error {
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	return explained(c, archive.Export(ctx, root, packs{a.Domain}, keyOf(c, a.Key), w))
}

// Import stores a plain tar as the newest backup. A node that held the workspace meanwhile is fenced.
func (a Standalone) Import(ctx context.Context, r io.Reader) (_ Made, err error) {
	dir, err := newScratch(os.TempDir(), "ws-daemon-import-")
	if err != nil {
		return Made{}, fmt.Errorf("import: %w", err)
	}
	defer func() {
		if removeErr := dir.Remove(); err != nil { // what stays after a success goes with the next import
			err = errors.Join(err, removeErr)
		}
	}()
	found, err := archive.Import(ctx, r, dir.Path())
	if err != nil {
		return Made{}, err
	}
	made, err := a.Create(ctx, dir.Path(), "", "")
	made.Skipped, made.Altered, made.AlteredCount = found.Skipped, found.Altered, found.AlteredCount
	return made, err
}
