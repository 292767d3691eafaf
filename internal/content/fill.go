package content

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Sources of content, as the marker records them.
const (
	SourceEmpty     = "Empty"
	SourceGit       = "Git"
	SourceBackup    = "Backup"
	SourceSnapshot  = "Snapshot"
	SourceAdopted   = "Adopted"
	SourcePrebuild  = "Prebuild"
	SourceDownload  = "Download"
	SourceComposite = "Composite"
)

// FillRequest asks for content.
type FillRequest struct {
	Subject
	// Owner and Group own freshly initialized content.
	Owner, Group uint32
	// Size and Inodes are the limits of the volume, 0 for none: what is too large is refused before it is written.
	Size, Inodes int64
	// Expected is the newest backup that is known to have been made; the zero value if none is known.
	Expected history.Ref
	// Rewind names the backup to restore instead of the newest one, as long as no content was made of it: a backup under the
	// claim RewindSince, which was the first to be asked for it, or under a later one says that it was.
	Rewind      string
	RewindSince int64
	// Consent is what a person has decided about content of an older claim.
	Consent Consent
	// InUse fails with ErrInUse while pods use content that lies on the volume.
	InUse func(context.Context) error
	// Initializer is used if the workspace has never had a backup.
	Initializer Initializer
	// Progress is told what has been written.
	Progress archive.Progress
}

// NewestClaim returns the highest claim that the store knows of a workspace, 0 if it knows nothing.
func (k *Keeper) NewestClaim(ctx context.Context, s Subject) (int64, error) {
	ctx = fair.With(ctx, s.UID, fair.Urgent)
	_, log, err := k.log(ctx, s)
	if err != nil {
		return 0, err
	}
	return log.NewestClaim(ctx)
}

// Fill publishes the claim, brings the content to the volume, and lets users at it. Content of an older claim that equals
// the backup is kept; other content that lies there is saved first, as a stray snapshot whose id is returned, also with an
// error.
func (k *Keeper) Fill(ctx context.Context, r FillRequest) (stray string, err error) {
	ctx = fair.With(ctx, r.UID, fair.Urgent)
	if err := k.Area.Check(); err != nil {
		return "", err
	}
	driver, err := k.driver(ctx, r.Subject)
	if err != nil {
		return "", err
	}
	o, err := k.Observe(ctx, r.Subject)
	if err != nil {
		return "", err
	}
	if !o.Exists() {
		return "", fmt.Errorf("%w: workspace %s has no volume on this node", ErrNotOurs, r.Subject)
	}
	if o.Finished() && o.Marker.Claim == r.Claim {
		return "", k.publish(ctx, driver, r.Subject, o)
	}
	f := &filling{k: k, r: r, driver: driver, o: o}
	err = f.run(ctx)
	return f.stray, err
}

// publish lets users at finished content. From here on the tree may change, so it is not released any more.
func (k *Keeper) publish(ctx context.Context, driver volume.Driver, s Subject, o Observation) error {
	if o.Marker.Released != "" {
		o.Marker.Released = ""
		if err := volume.WriteMarker(o.Volume, o.Marker); err != nil {
			return err
		}
		faults.Point("fill.unreleased")
	}
	if err := k.record(s, func(e *state.Entry) { e.Released = "" }); err != nil {
		return err
	}
	return driver.Publish(ctx, o.Volume.ID)
}

// filling is one attempt to bring content to a volume.
type filling struct {
	k      *Keeper
	r      FillRequest
	driver volume.Driver
	o      Observation

	domain *history.Domain
	log    *history.Log
	// base is the backup to restore; its name is zero if there is none.
	base history.Commit
	ref  history.Ref
	// index describes what was restored.
	index *archive.Index
	// stray is the snapshot that holds what lay there before.
	stray string
}

func (f *filling) run(ctx context.Context) error {
	var err error
	if f.domain, f.log, err = f.k.log(ctx, f.r.Subject); err != nil {
		return err
	}
	if err := f.claim(ctx); err != nil {
		return err
	}
	faults.Point("fill.claimed")
	if f.o.Finished() {
		done, err := f.adopt(ctx)
		if done || err != nil {
			return err
		}
	}
	if err := f.driver.Discard(ctx, f.r.UID, volume.Withdrawn); err != nil {
		return err // left by an attempt that ended in clear
	}
	content, err := f.load(ctx)
	if err != nil {
		return err
	}
	faults.Point("fill.loaded")
	return f.seal(ctx, f.driver.Path(f.r.UID, volume.Staged), content)
}

// claim publishes the claim and finds the base. From the publication on a former owner sees that it is fenced: what it has
// committed by then is found, and what it has under way becomes a fork.
func (f *filling) claim(ctx context.Context) error {
	owner, err := f.k.owner(f.r.Subject)
	if err != nil {
		return err
	}
	parent, err := f.rewind(ctx)
	if err != nil {
		return err
	}
	if parent != nil {
		f.r.Expected = history.Ref{} // it is the newest one that is not wanted
	} else if err := f.look(ctx); err != nil {
		return err
	}
	if err := f.log.PublishClaim(ctx, f.r.Claim, owner, parent); err != nil {
		return orDamaged(err, fmt.Sprintf("the record of claim %d of workspace %s", f.r.Claim, f.r.Subject), startAgain)
	}
	return f.found(f.log.Base(ctx, f.r.Claim))
}

// look refuses to claim while what must be in the store is not. A claim's record says what the claim has seen: made over a
// store that lost its content for a while, it would make forks of all that comes back.
func (f *filling) look(ctx context.Context) error {
	newest, err := f.log.NewestClaim(ctx)
	if err != nil || newest >= f.r.Claim {
		return err
	}
	return f.found(f.log.Current(ctx))
}

// found takes the base, or the error of looking for it.
func (f *filling) found(base history.Commit, ref history.Ref, err error) error {
	switch {
	case errors.Is(err, history.ErrNoBackup):
		f.base, f.ref = history.Commit{}, history.Ref{}
		return f.missing("")
	case errors.Is(err, store.ErrNotFound):
		return &NoBackupError{Subject: f.r.Subject, Wanted: "the backup that the claim names as its parent"}
	case err != nil:
		return orDamaged(err, "the newest backup of workspace "+f.r.String(), otherBackup)
	}
	f.base, f.ref = base, ref
	return f.missing(base.Name.String())
}

// orDamaged returns a *DamagedError in place of an error which says that something in the store is gone or damaged.
func orDamaged(err error, what, instead string) error {
	if history.Gone(err) || errors.Is(err, format.ErrDamaged) {
		return &DamagedError{What: what, Err: err, Instead: instead}
	}
	return err
}

// rewind returns the backup that a request to go back in time names, nil if there is no such request or no need any more.
func (f *filling) rewind(ctx context.Context) (*history.Ref, error) {
	if f.r.Rewind == "" {
		return nil, nil
	}
	if fulfilled, err := f.rewound(ctx); err != nil || fulfilled {
		return nil, err
	}
	name, err := history.ParseName(f.r.Rewind)
	if err != nil {
		return nil, err
	}
	_, ref, err := f.log.Read(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &NoBackupError{Subject: f.r.Subject, Wanted: "backup " + f.r.Rewind}
	}
	return &ref, err
}

// rewound says whether somebody has worked on what the request to go back in time led to: then that work is what to go on from.
// A backup that cannot be read may be such work.
func (f *filling) rewound(ctx context.Context) (bool, error) {
	entries, err := f.log.Entries(ctx)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name.IsClaim() || e.Name.Claim < f.r.RewindSince {
			continue
		}
		c, _, err := f.log.Read(ctx, e.Name)
		damaged := history.Gone(err)
		if err != nil && !damaged {
			return false, err
		}
		if damaged || c.Complete() {
			return true, nil
		}
	}
	return false, nil
}

// missing refuses to go on with an older or another backup than the newest one known.
func (f *filling) missing(found string) error {
	want := f.r.Expected
	if want.Hash == "" && want.Name == (history.Name{}) {
		if found == "" && f.r.Initializer.Backup {
			return &NoBackupError{Subject: f.r.Subject, Wanted: "a backup"}
		}
		return nil
	}
	order := f.ref.Name.Compare(want.Name)
	if found == "" || order < 0 || (order == 0 && want.Hash != "" && f.ref.Hash != want.Hash) {
		return &NoBackupError{Subject: f.r.Subject, Wanted: fmt.Sprintf("backup %s (hash %.12s)", want.Name, want.Hash), Found: found}
	}
	return nil
}

// adopt keeps content of an older claim if a full read of it equals the base. Otherwise it saves the content and lets it go.
func (f *filling) adopt(ctx context.Context) (bool, error) {
	if f.o.Position == volume.None {
		return false, f.clear(ctx) // what the marker promises is gone; a person accepted it, or the claim would not be newer
	}
	path := f.driver.Path(f.r.UID, f.o.Position)
	report, err := archive.Digest(ctx, path, f.k.Memory)
	if err != nil {
		return false, fmt.Errorf("scan %s: %w", path, err)
	}
	if f.ref.Hash != "" && report.Digest == f.base.Tree.Digest && report.UnreadableCount == 0 {
		m := *f.o.Marker.Content
		m.Source, m.Backup = SourceAdopted, f.ref.Name.String()
		m.Cloned, m.NotCloned = false, ""
		return true, f.seal(ctx, path, m)
	}
	older := f.r.Subject
	older.Claim = f.o.Marker.Claim
	if path, err = f.k.withdraw(ctx, f.driver, f.o, f.r.InUse); err != nil {
		return false, err
	}
	if f.r.Consent.Discard != older.Claim {
		if f.stray, _, err = f.k.saveUnchanged(ctx, older, path, f.r.Consent, f.r.Progress); err != nil {
			return false, fmt.Errorf("keep the content of claim %d: %w", older.Claim, err)
		}
	}
	return false, f.clear(ctx)
}

// clear empties the volume after its content was saved: from here on the marker promises nothing.
func (f *filling) clear(ctx context.Context) error {
	m, err := f.k.marker(f.r.Subject)
	if err != nil {
		return err
	}
	if err := volume.WriteMarker(f.o.Volume, m); err != nil {
		return err
	}
	faults.Point("fill.cleared")
	return f.driver.Discard(ctx, f.r.UID, volume.Staged)
}

// load brings staged content: what the base has, or else the initializer.
func (f *filling) load(ctx context.Context) (volume.Content, error) {
	began := f.k.Now()
	content, err := f.loadFrom(ctx)
	content.Finished, content.Duration = f.k.Now(), f.k.Now().Sub(began)
	return content, err
}

func (f *filling) loadFrom(ctx context.Context) (volume.Content, error) {
	init := f.r.Initializer
	switch {
	case f.ref.Hash != "":
		return f.bringBackup(ctx)
	case init.SnapshotID != nil:
		return f.bringSnapshot(ctx)
	default:
		return f.initialize(ctx)
	}
}

func (f *filling) bringBackup(ctx context.Context) (volume.Content, error) {
	began := f.k.Now()
	name := f.ref.Name.String()
	c, err := f.bring(ctx, f.base, fmt.Sprintf("backup %s of workspace %s", name, f.r.Subject), otherBackup)
	c.Source, c.Backup = SourceBackup, name
	f.k.stepEnded(volume.Step{Source: SourceBackup, From: name, Files: c.Files, Bytes: c.Bytes, Duration: f.k.Now().Sub(began)}, err)
	return c, err
}

// bringSnapshot is the whole of an initializer that restores a snapshot and does nothing else, so that the volume may have begun with it.
func (f *filling) bringSnapshot(ctx context.Context) (volume.Content, error) {
	began := f.k.Now()
	id, commit, err := f.pinned(ctx, f.r.Initializer.SnapshotID)
	if err != nil {
		return volume.Content{}, err
	}
	c, err := f.bring(ctx, commit, "snapshot "+id, otherSnapshot)
	c.Source, c.SnapshotID = SourceSnapshot, id
	step := volume.Step{Source: SourceSnapshot, From: id, Files: c.Files, Bytes: c.Bytes, Duration: f.k.Now().Sub(began)}
	f.k.stepEnded(step, err)
	c.Steps = []volume.Step{step}
	return c, err
}

// pinned finds the commit of a snapshot. A *[NoBackupError] if there is none any more.
func (f *filling) pinned(ctx context.Context, ask func(context.Context) (string, error)) (string, history.Commit, error) {
	id, err := ask(ctx)
	if err != nil {
		return "", history.Commit{}, err
	}
	pinned, err := f.domain.Pinned(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return id, history.Commit{}, &NoBackupError{Subject: f.r.Subject, Wanted: "snapshot " + id}
	}
	if err != nil {
		return id, history.Commit{}, orDamaged(err, "snapshot "+id, otherSnapshot)
	}
	return id, pinned.Commit, nil
}

// bring stages a commit's tree: the volume began with it, or it is restored.
func (f *filling) bring(ctx context.Context, c history.Commit, what, instead string) (volume.Content, error) {
	content, ok, err := f.prepared(c)
	if ok || err != nil {
		return content, err
	}
	dir, err := f.driver.Stage(ctx, f.r.UID)
	if err != nil {
		return content, err
	}
	if content, err = f.restore(ctx, dir, c, what, instead); err == nil {
		content.Template, content.NotCloned = templateOf(c), f.k.templates.whyNotCloned(f.r.UID)
	}
	return content, err
}

// restore brings a commit's tree back and proves that it is the one that was saved.
func (f *filling) restore(ctx context.Context, dir string, c history.Commit, what, instead string) (volume.Content, error) {
	root, err := rootOf(c)
	var report archive.Report
	var key *format.Key
	if err == nil {
		key, err = f.k.key(ctx, f.domain)
	}
	if err == nil {
		report, f.index, err = archive.Restore(ctx, root, dir, archive.RestoreOptions{
			Source: packs{f.domain}, Connections: packs{f.domain}.connections(), Memory: f.k.Memory, Key: keyOf(c, key), Progress: f.r.Progress,
		})
	}
	if err != nil {
		return volume.Content{}, f.k.withNeeds(ctx, f.domain, orDamaged(fmt.Errorf("restore %s: %w", what, named(c, err)), what, instead))
	}
	if report.Digest != c.Tree.Digest {
		return volume.Content{}, fmt.Errorf("restore %s: the tree that was written does not equal the one that was saved (%s, not %s)",
			what, report.Digest, c.Tree.Digest)
	}
	return volume.Content{Files: report.Files, Bytes: report.Bytes}, nil
}

// seal writes the journal and the index, then the marker under our claim, then lets users at the content. What was adopted has
// no index: users could change it meanwhile, so the first backup reads it.
func (f *filling) seal(ctx context.Context, dir string, content volume.Content) error {
	err := f.k.record(f.r.Subject, func(e *state.Entry) {
		e.Backup = state.Backup{}
		if f.ref.Hash != "" {
			written(&e.Backup, f.base, f.ref)
			e.Backup.Last, e.Backup.CheckedAt = 0, f.k.Now()
		}
	})
	if err != nil {
		return err
	}
	if !content.Cloned { // a clone has the index of its template
		f.k.saveIndex(f.r.Subject, f.index)
	}
	m, err := f.k.marker(f.r.Subject)
	if err != nil {
		return err
	}
	if content, err = volume.Seal(ctx, dir, content); err != nil {
		return err
	}
	m.Content = &content
	if err := volume.WriteMarker(f.o.Volume, m); err != nil {
		return err
	}
	faults.Point("fill.sealed")
	f.keepTemplate(ctx, content)
	f.k.measure(ctx, f.driver, f.r.Subject, nil) // before users see it, so that one report says all
	return f.driver.Publish(ctx, f.r.UID)
}

// pause waits for a moment.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
